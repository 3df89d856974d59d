//! Where bytes live: small records that change, blobs that never do, and a few settings of the node itself.
//!
//! [`Store`] is what the rest of DML sees. Two engines implement it: [`MemoryStore`], and [`DiskStore`] over any
//! [`Disk`]: the real one ([`LocalDisk`]) or one that loses power ([`sim::SimDisk`]). [`conformance`] is the suite
//! that any engine passes, your own included.
//!
//! Everything here is synchronous and blocks: call it from threads that may wait. What the bytes mean, how many
//! copies there are and when they may go is decided elsewhere.

mod blobs;
pub mod conformance;
mod disk;
mod disk_store;
mod error;
mod local;
mod log;
mod memory;
mod records;
pub mod sim;
mod table;

use std::{sync::Arc, time::Duration};

use dml_core::Digest;

pub use disk::{Disk, DiskFile, Entry, Room};
pub use disk_store::{DiskStore, FORMAT};
pub use error::StoreError;
pub use local::LocalDisk;
pub use memory::MemoryStore;

/// Writes (`Some`) and removals (`None`) of records that take effect together.
pub type Batch = [(Digest, Option<Vec<u8>>)];

/// Keeps records, blobs and settings. What a call wrote is durable when it returns `Ok`; after an error it may be
/// there whole or not at all, never in part.
pub trait Store: Send + Sync + 'static {
    /// All records, in the order of their keys.
    fn records(&self) -> Result<Vec<(Digest, Vec<u8>)>, StoreError>;

    /// Writes and removes records in one atomic step; of two changes to one key the later counts.
    fn commit(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Keeps a blob. Bytes that are not those of the digest are refused; a blob that is there already becomes young
    /// again, and one that is there but damaged is mended.
    fn put_blob(&self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError>;

    /// A blob, checked against its digest. A damaged one is [`StoreError::Corrupt`] once; then it is as if it had
    /// never been there, so that another copy can take its place.
    fn blob(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError>;

    /// Whether the blob is there; its bytes are not looked at, but it becomes young again: who asks is about to name it.
    fn touch_blob(&self, digest: Digest) -> Result<bool, StoreError>;

    /// All blobs, in the order of their digests.
    fn blobs(&self) -> Result<Vec<BlobInfo>, StoreError>;

    /// Removes a blob unless it was put less than `unused_for` ago (zero: in any case); says whether it is gone.
    /// A collector that passes the age it had in mind cannot remove what was put again meanwhile.
    fn remove_blob(&self, digest: Digest, unused_for: Duration) -> Result<bool, StoreError>;

    /// How much room there is, where that is known and limited.
    fn room(&self) -> Result<Option<Room>, StoreError>;

    /// A small value that belongs to the node itself, such as its identity.
    fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Keeps a setting.
    fn set_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError>;
}

/// What is known of a blob without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name.
    pub digest: Digest,
    /// How long it is.
    pub bytes: u64,
    /// How long ago it was put for the last time.
    pub age: Duration,
}

impl<S: Store + ?Sized> Store for Arc<S> {
    fn records(&self) -> Result<Vec<(Digest, Vec<u8>)>, StoreError> {
        (**self).records()
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        (**self).commit(batch)
    }

    fn put_blob(&self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        (**self).put_blob(digest, bytes)
    }

    fn blob(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        (**self).blob(digest)
    }

    fn touch_blob(&self, digest: Digest) -> Result<bool, StoreError> {
        (**self).touch_blob(digest)
    }

    fn blobs(&self) -> Result<Vec<BlobInfo>, StoreError> {
        (**self).blobs()
    }

    fn remove_blob(&self, digest: Digest, unused_for: Duration) -> Result<bool, StoreError> {
        (**self).remove_blob(digest, unused_for)
    }

    fn room(&self) -> Result<Option<Room>, StoreError> {
        (**self).room()
    }

    fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        (**self).setting(name)
    }

    fn set_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        (**self).set_setting(name, value)
    }
}
