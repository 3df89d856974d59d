//! The narrow waist between the store and the files: what a disk must do, so that a simulated one can forget.
//!
//! Paths are relative to the data directory, with `/` between names; the empty path is the directory itself.
//! Nothing is durable before it is synced: the bytes of a file by [`DiskFile::sync`], its name by
//! [`Disk::sync_dir`] on the directory that holds it.

use std::{any::Any, fmt, io, path::PathBuf, sync::Arc, time::Duration};

/// Files and directories below one data directory.
pub trait Disk: Send + Sync + 'static {
    /// Where a path is, for people.
    fn place(&self, path: &str) -> PathBuf;

    /// The whole content of a file.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// Opens a file that is there, for reading and writing.
    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates an empty file, in place of the one that is there.
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// What is at a path, if anything.
    fn entry(&self, path: &str) -> io::Result<Option<Entry>>;

    /// What is in a directory, by name.
    fn list(&self, dir: &str) -> io::Result<Vec<Entry>>;

    /// Gives a file another name, in place of the file that has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Makes a file young again.
    fn touch(&self, path: &str) -> io::Result<()>;

    /// Creates a directory if it is not there.
    fn create_dir(&self, path: &str) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &str) -> io::Result<()>;

    /// How much room there is, where that is known.
    fn room(&self) -> io::Result<Option<Room>>;

    /// Takes the lock at a path, until the value is dropped or the process ends; `None` while another has it.
    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn Any + Send + Sync>>>;
}

/// A file open for reading and writing at any place. It outlives a change of its name.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// How long it is.
    fn length(&self) -> io::Result<u64>;

    /// Fills the buffer from this place on; an error if the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all bytes at this place, beyond the end if need be.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Makes bytes and length durable.
    fn sync(&self) -> io::Result<()>;
}

/// The room on a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What may still be written.
    pub free: u64,
    /// All of it, but for what is kept from this user.
    pub total: u64,
}

/// A file or directory, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name in its directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// How long it is.
    pub bytes: u64,
    /// How long ago it was written or touched.
    pub age: Duration,
}
