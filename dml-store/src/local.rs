//! The real disk: a directory of the operating system.

use std::{
    any::Any,
    fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::SystemTime,
};

use crate::{Disk, DiskFile, Entry, Room};

/// The files below one directory of the operating system.
#[derive(Debug, Clone)]
pub struct LocalDisk {
    root: PathBuf,
}

impl LocalDisk {
    /// Uses this directory; if it is not there, it is created for this user alone.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        let missing: Vec<&Path> =
            root.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
        if !missing.is_empty() {
            private_dirs().create(&root)?;
        }
        for dir in missing {
            sync_dir(dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
        }
        Ok(Self { root })
    }
}

impl Disk for LocalDisk {
    fn place(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.place(path))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(LocalFile(Mutex::new(File::options().read(true).write(true).open(self.place(path))?))))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        Ok(Arc::new(LocalFile(Mutex::new(options.open(self.place(path))?))))
    }

    fn entry(&self, path: &str) -> io::Result<Option<Entry>> {
        match fs::metadata(self.place(path)) {
            Ok(found) => {
                let name = path.rsplit('/').next().unwrap_or_default();
                describe(name.to_owned(), &found).map(Some)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for found in fs::read_dir(self.place(dir))? {
            let found = found?;
            match found.metadata() {
                Ok(data) => entries.push(describe(found.file_name().to_string_lossy().into_owned(), &data)?),
                // It was removed while we looked.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.place(from), self.place(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.place(path))
    }

    fn touch(&self, path: &str) -> io::Result<()> {
        File::options().write(true).open(self.place(path))?.set_modified(SystemTime::now())
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        private_dirs().create(self.place(path))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        sync_dir(&self.place(path))
    }

    #[cfg(unix)]
    fn room(&self) -> io::Result<Option<Room>> {
        let found = rustix::fs::statvfs(&self.root)?;
        // Blocks that only the system's own user may fill are no room for anyone else.
        let (free, used) = (found.f_bavail, found.f_blocks.saturating_sub(found.f_bfree));
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Some(Room { free: bytes(free), total: bytes(used.saturating_add(free)) }))
    }

    #[cfg(not(unix))]
    fn room(&self) -> io::Result<Option<Room>> {
        Ok(None)
    }

    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let file = File::options().write(true).create(true).truncate(false).open(self.place(path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn describe(name: String, found: &Metadata) -> io::Result<Entry> {
    let age = SystemTime::now().duration_since(found.modified()?).unwrap_or_default();
    Ok(Entry { name, is_dir: found.is_dir(), bytes: found.len(), age })
}

/// Creates directories, missing parents too, that nobody else may enter.
fn private_dirs() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Windows cannot sync a directory, and its file system journals the names.
fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(windows) { Ok(()) } else { File::open(dir)?.sync_all() }
}

/// The mutex keeps the place where we are in the file together with what is done there.
#[derive(Debug)]
struct LocalFile(Mutex<File>);

impl LocalFile {
    fn with<T>(&self, act: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        act(&mut self.0.lock().expect("nothing below panics while it holds the file"))
    }
}

impl DiskFile for LocalFile {
    fn length(&self) -> io::Result<u64> {
        self.with(|file| Ok(file.metadata()?.len()))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.with(|file| {
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(buffer)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|file| {
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(bytes)
        })
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.with(|file| file.set_len(length))
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|file| file.sync_data())
    }
}
