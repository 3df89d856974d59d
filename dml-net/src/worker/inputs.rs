//! What pieces of work read: datasets and blobs, fetched from db nodes and kept at hand for the next piece.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use dml_compute::{Inputs, WorkError};
use dml_core::{
    Body, Dataset, Digest,
    node::{Request, Response},
};

use super::Shared;
use crate::link::LinkError;

/// How many datasets' descriptions are kept.
const DATASETS: usize = 64;

/// Blobs and descriptions of datasets at hand; the least lately used go first.
pub(crate) struct Cache {
    inner: Mutex<Kept>,
    max_bytes: usize,
}

#[derive(Default)]
struct Kept {
    blobs: BTreeMap<Digest, (u64, Arc<[u8]>)>,
    datasets: BTreeMap<Digest, (u64, Arc<Dataset>)>,
    bytes: usize,
    uses: u64,
}

impl Cache {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { inner: Mutex::default(), max_bytes }
    }

    /// The datasets of which something is at hand.
    pub(super) fn datasets(&self) -> Vec<Digest> {
        self.lock().datasets.keys().copied().collect()
    }

    /// How many bytes of blobs are at hand.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.inner.lock().expect("nobody panics while holding it")
    }

    fn blob(&self, digest: &Digest) -> Option<Arc<[u8]>> {
        let mut kept = self.lock();
        kept.uses += 1;
        let uses = kept.uses;
        let (used, bytes) = kept.blobs.get_mut(digest)?;
        *used = uses;
        Some(bytes.clone())
    }

    pub(super) fn keep_blob(&self, digest: Digest, bytes: &Arc<[u8]>) {
        let mut kept = self.lock();
        // A blob that would push out most others is not worth it.
        if bytes.len() > self.max_bytes / 2 || kept.blobs.contains_key(&digest) {
            return;
        }
        kept.uses += 1;
        let uses = kept.uses;
        kept.bytes += bytes.len();
        kept.blobs.insert(digest, (uses, bytes.clone()));
        while kept.bytes > self.max_bytes {
            let Some(oldest) = kept.blobs.iter().min_by_key(|(_, (used, _))| *used).map(|(d, _)| *d) else {
                break;
            };
            if let Some((_, bytes)) = kept.blobs.remove(&oldest) {
                kept.bytes -= bytes.len();
            }
        }
    }

    fn dataset(&self, id: &Digest) -> Option<Arc<Dataset>> {
        let mut kept = self.lock();
        kept.uses += 1;
        let uses = kept.uses;
        let (used, dataset) = kept.datasets.get_mut(id)?;
        *used = uses;
        Some(dataset.clone())
    }

    fn keep_dataset(&self, id: Digest, dataset: &Arc<Dataset>) {
        let mut kept = self.lock();
        kept.uses += 1;
        let uses = kept.uses;
        kept.datasets.insert(id, (uses, dataset.clone()));
        while kept.datasets.len() > DATASETS {
            let Some(oldest) = kept.datasets.iter().min_by_key(|(_, (used, _))| *used).map(|(d, _)| *d)
            else {
                break;
            };
            kept.datasets.remove(&oldest);
        }
    }
}

impl Shared {
    /// A blob, from the cache or from a db node.
    pub(crate) async fn blob(&self, digest: Digest) -> Result<Arc<[u8]>, LinkError> {
        if let Some(bytes) = self.cache.blob(&digest) {
            return Ok(bytes);
        }
        let bytes: Arc<[u8]> = self.link.blob(digest).await?.as_ref().into();
        self.cache.keep_blob(digest, &bytes);
        Ok(bytes)
    }

    /// The same for who would rather do without it than wait.
    pub(crate) async fn blob_within(
        &self,
        digest: Digest,
        patience: Duration,
    ) -> Result<Arc<[u8]>, LinkError> {
        if let Some(bytes) = self.cache.blob(&digest) {
            return Ok(bytes);
        }
        let bytes: Arc<[u8]> = self.link.blob_within(digest, patience).await?.as_ref().into();
        self.cache.keep_blob(digest, &bytes);
        Ok(bytes)
    }

    /// A dataset's description.
    pub(crate) async fn dataset(&self, id: Digest) -> Result<Arc<Dataset>, LinkError> {
        if let Some(dataset) = self.cache.dataset(&id) {
            return Ok(dataset);
        }
        let watch = Request::Watch { id, seen: 0, wait_ms: 0 };
        let Response::Family { entries, .. } = self.link.ask(&watch).await? else {
            return Err(LinkError::NoBlob(id));
        };
        match entries.into_iter().next().and_then(|entry| entry.record.body) {
            Some(Body::Dataset(dataset)) => {
                let dataset = Arc::new(dataset);
                self.cache.keep_dataset(id, &dataset);
                Ok(dataset)
            }
            Some(
                Body::Training(_) | Body::Study(_) | Body::Job(_) | Body::Token(_) | Body::Revocation(_),
            )
            | None => Err(LinkError::Garbled("no dataset under a dataset's id")),
        }
    }
}

/// The inputs of a piece of work, for a thread that may block.
pub(crate) struct BlockingInputs {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
}

impl BlockingInputs {
    /// To be made on the runtime, and used on a blocking thread.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, runtime: tokio::runtime::Handle::current() }
    }
}

impl Inputs for BlockingInputs {
    fn dataset(&self, id: Digest) -> Result<Arc<Dataset>, WorkError> {
        let dataset = self.runtime.block_on(self.shared.dataset(id));
        dataset.map_err(|error| WorkError::Unavailable(error.to_string()))
    }

    fn blob(&self, digest: Digest) -> Result<Arc<[u8]>, WorkError> {
        let blob = self.runtime.block_on(self.shared.blob(digest));
        blob.map_err(|error| WorkError::Unavailable(error.to_string()))
    }
}
