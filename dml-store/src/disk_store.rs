//! The store on disk: a data directory, its format marker, its lock, and who keeps what in it.
//!
//! ```text
//! FORMAT          "dml-data 3": whose directory this is, and how to read it
//! lock            held by the process that uses it
//! records.redb    records and settings
//! records.log     the last changes of them
//! blobs/ab/ab...  one file a blob, named by its digest
//! tmp/            blobs being written; cleared at each start
//! quarantine/     blobs whose bytes were found damaged, for people to look at
//! ```

use std::{
    any::Any,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dml_core::Digest;

use crate::{
    Batch, BlobInfo, Disk, LocalDisk, Room, Store, StoreError, blobs::Blobs, error::Health, records::Records,
};

/// The format of data directories that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 3;

const MARKER: &str = "FORMAT";
const NEW_MARKER: &str = "FORMAT.new";
const LOCK: &str = "lock";
const MAGIC: &str = "dml-data ";

/// A store in a directory that outlives the process, and the loss of power.
pub struct DiskStore {
    records: Records,
    blobs: Blobs,
    path: PathBuf,
    /// Last, so that it is let go of when all files are closed.
    _lock: Box<dyn Any + Send + Sync>,
}

impl DiskStore {
    /// Opens the data directory, or makes it if there is nothing there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        if path.exists() && !path.is_dir() {
            return Err(StoreError::NotOurs { path: path.to_owned() });
        }
        Self::on(LocalDisk::open(path).map_err(|error| StoreError::io(path.to_owned(), error))?)
    }

    /// Opens the store on this disk, or makes it if the disk is empty.
    pub fn on(disk: impl Disk) -> Result<Self, StoreError> {
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let path = disk.place("");
        let health = Arc::new(Health::default());
        let found = recognise(&*disk)?;
        let lock = disk
            .lock(LOCK)
            .map_err(|error| StoreError::io(disk.place(LOCK), error))?
            .ok_or_else(|| StoreError::InUse { path: path.clone() })?;
        if found != Some(FORMAT) {
            // What earlier formats lack is made by who opens it.
            mark(&*disk, &health)?;
        }
        let blobs = Blobs::open(disk.clone(), health.clone())?;
        let records = Records::open(disk, health)?;
        Ok(Self { records, blobs, path, _lock: lock })
    }

    /// The data directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Store for DiskStore {
    fn records(&self) -> Result<Vec<(Digest, Vec<u8>)>, StoreError> {
        self.records.all()
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.records.commit(batch)
    }

    fn put_blob(&self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.blobs.put(digest, bytes)
    }

    fn blob(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.blobs.get(digest)
    }

    fn touch_blob(&self, digest: Digest) -> Result<bool, StoreError> {
        self.blobs.has(digest)
    }

    fn blobs(&self) -> Result<Vec<BlobInfo>, StoreError> {
        self.blobs.list()
    }

    fn remove_blob(&self, digest: Digest, unused_for: Duration) -> Result<bool, StoreError> {
        self.blobs.remove(digest, unused_for)
    }

    fn room(&self) -> Result<Option<Room>, StoreError> {
        self.blobs.room()
    }

    fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.records.setting(name)
    }

    fn set_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.records.set_setting(name, value)
    }
}

/// The format that the directory is marked with. Without a mark it must be empty, but for what a start that was cut short, or
/// the file system itself, leaves there.
fn recognise(disk: &dyn Disk) -> Result<Option<u32>, StoreError> {
    let path = disk.place("");
    match disk.read(MARKER) {
        Ok(marker) => match format_of(&marker) {
            Some(found) if found > FORMAT => Err(StoreError::Newer { path, found, known: FORMAT }),
            found @ Some(_) => Ok(found),
            None => Err(StoreError::NotOurs { path }),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let entries = disk.list("").map_err(|error| StoreError::io(path.clone(), error))?;
            let strange = |name: &str| ![LOCK, NEW_MARKER, "lost+found"].contains(&name);
            if entries.iter().any(|entry| strange(&entry.name)) {
                Err(StoreError::NotOurs { path })
            } else {
                Ok(None)
            }
        }
        Err(error) => Err(StoreError::io(disk.place(MARKER), error)),
    }
}

fn format_of(marker: &[u8]) -> Option<u32> {
    std::str::from_utf8(marker).ok()?.strip_prefix(MAGIC)?.trim_end().parse().ok()
}

/// Makes the directory ours; nothing else is written before this is durable.
fn mark(disk: &dyn Disk, health: &Health) -> Result<(), StoreError> {
    let at = |error| StoreError::io(disk.place(MARKER), error);
    let file = disk.create(NEW_MARKER).map_err(at)?;
    file.write_at(0, format!("{MAGIC}{FORMAT}\n").as_bytes()).map_err(at)?;
    health.synced(|| disk.place(MARKER), file.sync())?;
    disk.rename(NEW_MARKER, MARKER).map_err(at)?;
    health.synced(|| disk.place(""), disk.sync_dir(""))
}
