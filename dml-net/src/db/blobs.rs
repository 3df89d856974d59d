//! Blobs of this node and of others: what is missing here is fetched from a node that has it.

use std::{sync::Arc, time::Duration};

use axum::body::Bytes;
use dml_core::{Digest, NodeId};
use dml_store::{Store, StoreError};
use hyper::Method;
use tokio::sync::Semaphore;

use super::post::Post;
use crate::link::exchange::{Question, exchange};

/// How many blobs are fetched at a time.
const FETCHES: usize = 8;

/// How long a node may be silent while it sends a blob.
const QUIET: Duration = Duration::from_secs(5);

/// The blobs of this node, and the way to those of others.
#[derive(Clone)]
pub(super) struct Blobs {
    store: Arc<dyn Store>,
    post: Option<Post>,
    turns: Arc<Semaphore>,
}

impl Blobs {
    pub(super) fn new(store: Arc<dyn Store>, post: Option<Post>) -> Self {
        Self { store, post, turns: Arc::new(Semaphore::new(FETCHES)) }
    }

    /// Runs a store's function where it may block.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&*store)).await;
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Sees to it that blobs are here; tells the first that cannot be had. `from` is asked first, then everyone.
    pub(super) async fn ensure(
        &self,
        blobs: Vec<Digest>,
        from: Option<NodeId>,
    ) -> Result<Option<Digest>, StoreError> {
        if blobs.is_empty() {
            return Ok(None);
        }
        let missing = self.blocking(move |store| missing(store, blobs)).await?;
        let mut fetches = tokio::task::JoinSet::new();
        for digest in missing {
            let this = self.clone();
            fetches.spawn(async move {
                let _turn = this.turns.acquire().await;
                // Another letter may have brought it meanwhile.
                if this.blocking(move |store| store.touch_blob(digest)).await? {
                    return Ok(None);
                }
                let Some(bytes) = this.fetch(digest, from).await else { return Ok(Some(digest)) };
                this.blocking(move |store| store.put_blob(digest, &bytes)).await?;
                Ok(None)
            });
        }
        let mut lacking = None;
        while let Some(fetched) = fetches.join_next().await {
            lacking = lacking
                .or(fetched.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?);
        }
        Ok(lacking)
    }

    /// A blob of another node, checked.
    pub(super) async fn fetch(&self, digest: Digest, from: Option<NodeId>) -> Option<Bytes> {
        let post = self.post.as_ref()?;
        let others = post.active().into_iter().filter(|id| Some(*id) != from);
        for id in from.into_iter().chain(others) {
            let Some(peer) = post.peer(id) else { continue };
            let path = format!("/v1/blobs/{digest}?here=true");
            let question = Question { method: Method::GET, path, body: Bytes::new(), wait: Duration::ZERO };
            match exchange(&peer, &question, QUIET).await {
                Ok((status, bytes)) if status.is_success() && Digest::of(&bytes) == digest => return Some(bytes),
                Ok((status, _)) => tracing::debug!(%digest, node = %id, %status, "a blob is not there"),
                Err(silence) => tracing::debug!(%digest, node = %id, %silence, "a blob could not be fetched"),
            }
        }
        None
    }
}

fn missing(store: &dyn Store, blobs: Vec<Digest>) -> Result<Vec<Digest>, StoreError> {
    let mut missing = Vec::new();
    for blob in blobs {
        if !store.touch_blob(blob)? {
            missing.push(blob);
        }
    }
    Ok(missing)
}
