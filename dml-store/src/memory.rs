//! The store that forgets when the process ends: for tests, and for clusters that live no longer than a command.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use dml_core::Digest;

use crate::{Batch, BlobInfo, Room, Store, StoreError};

/// Everything in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    records: BTreeMap<Digest, Vec<u8>>,
    blobs: BTreeMap<Digest, (Vec<u8>, Instant)>,
    settings: BTreeMap<String, Vec<u8>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().expect("nothing below panics while it holds the shelf")
    }
}

impl Store for MemoryStore {
    fn records(&self) -> Result<Vec<(Digest, Vec<u8>)>, StoreError> {
        Ok(self.shelf().records.iter().map(|(key, value)| (*key, value.clone())).collect())
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let records = &mut self.shelf().records;
        for (key, value) in batch {
            match value {
                Some(value) => records.insert(*key, value.clone()),
                None => records.remove(key),
            };
        }
        Ok(())
    }

    fn put_blob(&self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        check(digest, bytes)?;
        self.shelf().blobs.insert(digest, (bytes.to_vec(), Instant::now()));
        Ok(())
    }

    fn blob(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.shelf().blobs.get(&digest).map(|(bytes, _)| bytes.clone()))
    }

    fn touch_blob(&self, digest: Digest) -> Result<bool, StoreError> {
        Ok(self.shelf().blobs.get_mut(&digest).map(|(_, put)| *put = Instant::now()).is_some())
    }

    fn blobs(&self) -> Result<Vec<BlobInfo>, StoreError> {
        let describe = |(digest, (bytes, put)): (&Digest, &(Vec<u8>, Instant))| BlobInfo {
            digest: *digest,
            bytes: bytes.len() as u64,
            age: put.elapsed(),
        };
        Ok(self.shelf().blobs.iter().map(describe).collect())
    }

    fn remove_blob(&self, digest: Digest, unused_for: Duration) -> Result<bool, StoreError> {
        let blobs = &mut self.shelf().blobs;
        if blobs.get(&digest).is_some_and(|(_, put)| put.elapsed() < unused_for) {
            return Ok(false);
        }
        blobs.remove(&digest);
        Ok(true)
    }

    fn room(&self) -> Result<Option<Room>, StoreError> {
        Ok(None)
    }

    fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.shelf().settings.get(name).cloned())
    }

    fn set_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.shelf().settings.insert(name.to_owned(), value.to_vec());
        Ok(())
    }
}

/// Refuses bytes that are not those of the digest.
pub(crate) fn check(expected: Digest, bytes: &[u8]) -> Result<(), StoreError> {
    let found = Digest::of(bytes);
    if found == expected { Ok(()) } else { Err(StoreError::Mismatch { expected, found }) }
}
