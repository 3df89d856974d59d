//! A db node: the shell around [`dml_core::Node`]. It keeps records and blobs in a [`Store`], answers on HTTP, and does
//! what the brain says. It computes nothing.

mod routes;
mod runtime;

use std::{path::Path, sync::Arc, time::Duration};

use axum::Router;
use dml_core::{
    Digest, Node, Record,
    node::{Request, Response, Settings},
    record::NotARecord,
};
use dml_store::{Store, StoreError};
use tokio::sync::watch;

pub(crate) use routes::MAX_BLOB;
use runtime::Inbox;

/// Why a db node cannot be, or could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored record is of another version or broken.
    #[error("the record {id} cannot be used: {why}")]
    Record {
        /// Its id.
        id: Digest,
        /// What is wrong.
        why: NotARecord,
    },
    /// The node has stopped.
    #[error("this db node has stopped")]
    Stopped,
}

/// A running db node.
#[derive(Clone)]
pub struct Db {
    shell: Arc<Shell>,
}

struct Shell {
    id: String,
    store: Arc<dyn Store>,
    inbox: Inbox,
    end: watch::Receiver<Option<Arc<DbError>>>,
}

impl Db {
    /// Opens a node on a data directory, which is created if it is not there, and starts it.
    ///
    /// Call it within a tokio runtime.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, DbError> {
        Self::start(Arc::new(dml_store::DiskStore::open(directory)?), Settings::default())
    }

    /// Starts a node that forgets everything when the process ends.
    pub fn in_memory() -> Result<Self, DbError> {
        Self::start(Arc::new(dml_store::MemoryStore::default()), Settings::default())
    }

    /// Starts a node on any store.
    pub fn start(store: Arc<dyn Store>, settings: Settings) -> Result<Self, DbError> {
        let generation = next_generation(&*store)?;
        let id = identity(&*store)?;
        let records = store.records()?.into_iter().map(|(id, bytes)| {
            Record::from_bytes(&bytes).map(|record| (id, record)).map_err(|why| DbError::Record { id, why })
        });
        let node = Node::new(settings, generation, records.collect::<Result<Vec<_>, _>>()?);
        sweep(&node, &*store)?;
        let (inbox, end) = runtime::spawn(node, store.clone());
        Ok(Self { shell: Arc::new(Shell { id, store, inbox, end }) })
    }

    /// The node's name: made once, kept in its store.
    pub fn id(&self) -> &str {
        &self.shell.id
    }

    /// What the node answers on HTTP: to be served, nested in a larger app, or asked in the same process.
    pub fn router(&self) -> Router {
        routes::router(self.clone())
    }

    /// Asks the brain.
    pub async fn ask(&self, request: Request) -> Result<Response, DbError> {
        self.shell.inbox.ask(request).await.ok_or(DbError::Stopped)
    }

    /// Waits until the node cannot go on, and says why: its store failed.
    pub async fn failed(&self) -> Arc<DbError> {
        let mut end = self.shell.end.clone();
        match end.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or_else(|| Arc::new(DbError::Stopped)),
            Err(_) => Arc::new(DbError::Stopped),
        }
    }
}

const GENERATION: &str = "generation";
const IDENTITY: &str = "identity";

/// How many times the node has started, this time included.
fn next_generation(store: &dyn Store) -> Result<u32, DbError> {
    let last =
        store.setting(GENERATION)?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    store.set_setting(GENERATION, &(last + 1).to_le_bytes())?;
    Ok(last + 1)
}

fn identity(store: &dyn Store) -> Result<String, DbError> {
    if let Some(known) = store.setting(IDENTITY)?.and_then(|bytes| String::from_utf8(bytes).ok()) {
        return Ok(known);
    }
    let new = format!("db-{}", random_name());
    store.set_setting(IDENTITY, new.as_bytes())?;
    Ok(new)
}

/// Twelve random hexadecimal digits. The standard library seeds its hash maps from the system's randomness.
pub(crate) fn random_name() -> String {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{random:016x}")[..12].to_string()
}

/// How old a blob must be to be swept away: younger ones may be about to be named by a record.
const SWEEP_AGE: Duration = Duration::from_secs(3600);

/// Removes blobs that no record refers to: uploads that broke off, results that a crash made superfluous.
fn sweep(node: &Node, store: &dyn Store) -> Result<(), DbError> {
    for blob in store.blobs()? {
        if !node.refers_to(&blob.digest) {
            store.remove_blob(blob.digest, SWEEP_AGE)?;
        }
    }
    Ok(())
}
