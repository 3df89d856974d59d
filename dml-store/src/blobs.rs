//! Blobs as files named by their digests: `blobs/ab/abcd...`.
//!
//! A blob is written to `tmp/`, synced, renamed and its directory synced, so a name under `blobs/` always stands for
//! whole bytes; what a disk does to them later is found by the digest, on every read.

use std::{
    io::ErrorKind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dml_core::Digest;

use crate::{BlobInfo, Disk, Room, StoreError, error::Health, memory::check};

const TMP: &str = "tmp";
const BLOBS: &str = "blobs";
const QUARANTINE: &str = "quarantine";

pub(crate) struct Blobs {
    disk: Arc<dyn Disk>,
    health: Arc<Health>,
    next_tmp: AtomicU64,
    /// Held while a blob appears, grows young or goes, so that a removal sees the age that it acts upon.
    gate: Mutex<()>,
}

impl Blobs {
    /// Makes the directories that are missing and clears what was half written.
    pub(crate) fn open(disk: Arc<dyn Disk>, health: Arc<Health>) -> Result<Self, StoreError> {
        let blobs = Self { disk, health, next_tmp: AtomicU64::new(0), gate: Mutex::new(()) };
        for dir in [TMP, BLOBS, QUARANTINE] {
            blobs.disk.create_dir(dir).map_err(blobs.at(dir))?;
        }
        for shelf in shelves() {
            blobs.disk.create_dir(&shelf).map_err(blobs.at(&shelf))?;
        }
        blobs.sync_dir("")?;
        blobs.sync_dir(BLOBS)?;
        for left in blobs.disk.list(TMP).map_err(blobs.at(TMP))? {
            let path = format!("{TMP}/{}", left.name);
            blobs.disk.remove(&path).map_err(blobs.at(&path))?;
        }
        Ok(blobs)
    }

    pub(crate) fn put(&self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.health.check()?;
        check(digest, bytes)?;
        let (shelf, path) = place(digest);
        if !(matches!(self.get(digest), Ok(Some(_))) && self.touch(&path)?) {
            self.write(&path, bytes)?;
        }
        // Also when it was there: whoever put it may have been killed, or be waiting still, between name and sync.
        self.sync_dir(&shelf)
    }

    /// Makes a blob young again; says whether it was there.
    fn touch(&self, path: &str) -> Result<bool, StoreError> {
        let _gate = self.gate.lock().expect("nobody panics at the gate");
        match self.disk.touch(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.at(path)(error)),
        }
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let tmp = format!("{TMP}/{}", self.next_tmp.fetch_add(1, Ordering::Relaxed));
        let written = self.fill(&tmp, bytes).and_then(|()| {
            let _gate = self.gate.lock().expect("nobody panics at the gate");
            self.disk.rename(&tmp, path).map_err(self.at(path))
        });
        if written.is_err() {
            // Gives the space back at once; if that fails too, the next start clears it.
            let _ = self.disk.remove(&tmp);
        }
        written
    }

    fn fill(&self, tmp: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let file = self.disk.create(tmp).map_err(self.at(tmp))?;
        file.write_at(0, bytes).map_err(self.at(tmp))?;
        self.health.synced(|| self.disk.place(tmp), file.sync())
    }

    pub(crate) fn get(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let (_, path) = place(digest);
        let bytes = match self.disk.read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.at(&path)(error)),
        };
        if Digest::of(&bytes) == digest { Ok(Some(bytes)) } else { Err(self.set_aside(digest, &path)) }
    }

    /// Moves a damaged blob out of the way, for people to look at. Nothing is synced: damage that comes back after a
    /// power loss is found again.
    fn set_aside(&self, digest: Digest, path: &str) -> StoreError {
        let aside = format!("{QUARANTINE}/{digest}");
        match self.disk.rename(path, &aside) {
            Err(error) if error.kind() != ErrorKind::NotFound => self.at(path)(error),
            Ok(()) | Err(_) => StoreError::Corrupt {
                path: self.disk.place(&aside),
                what: "its bytes are not those of its name".into(),
                mend: "it was set aside, and another copy takes its place",
            },
        }
    }

    /// Whether a blob is there; it becomes young again.
    pub(crate) fn has(&self, digest: Digest) -> Result<bool, StoreError> {
        self.touch(&place(digest).1)
    }

    pub(crate) fn list(&self) -> Result<Vec<BlobInfo>, StoreError> {
        let mut blobs = Vec::new();
        for shelf in shelves() {
            let entries = self.disk.list(&shelf).map_err(self.at(&shelf))?;
            blobs.extend(entries.into_iter().filter_map(|entry| {
                Some(BlobInfo { digest: entry.name.parse().ok()?, bytes: entry.bytes, age: entry.age })
            }));
        }
        Ok(blobs)
    }

    pub(crate) fn remove(&self, digest: Digest, unused_for: Duration) -> Result<bool, StoreError> {
        self.health.check()?;
        let (shelf, path) = place(digest);
        {
            let _gate = self.gate.lock().expect("nobody panics at the gate");
            if let Some(entry) = self.disk.entry(&path).map_err(self.at(&path))? {
                if entry.age < unused_for {
                    return Ok(false);
                }
                self.disk.remove(&path).map_err(self.at(&path))?;
            }
        }
        self.sync_dir(&shelf)?;
        Ok(true)
    }

    pub(crate) fn room(&self) -> Result<Option<Room>, StoreError> {
        self.disk.room().map_err(self.at(""))
    }

    fn sync_dir(&self, dir: &str) -> Result<(), StoreError> {
        self.health.synced(|| self.disk.place(dir), self.disk.sync_dir(dir))
    }

    /// Says where an error happened.
    fn at(&self, path: &str) -> impl Fn(std::io::Error) -> StoreError {
        let place = self.disk.place(path);
        move |error| StoreError::io(place.clone(), error)
    }
}

/// The directory and the path of a blob.
fn place(digest: Digest) -> (String, String) {
    let name = digest.to_string();
    let shelf = format!("{BLOBS}/{}", &name[..2]);
    let path = format!("{shelf}/{name}");
    (shelf, path)
}

fn shelves() -> impl Iterator<Item = String> {
    (0..=u8::MAX).map(|first| format!("{BLOBS}/{first:02x}"))
}
