//! A cluster in one process: db nodes and workers wired Router to Router, with no socket. It is what `dml` runs when no
//! cluster is named, what `dml up` serves, and what other programs embed.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use dml_compute::{Engine, Registry};
use tokio::net::TcpListener;

use crate::{
    client::Client,
    db::{Db, DbError},
    link::Link,
    peer::Peer,
    serve::serve,
    worker::{self, Worker},
};

/// What the cluster is made of.
pub struct Options {
    /// Where the db nodes keep their data; in memory if none.
    pub data: Option<PathBuf>,
    /// How many workers there are.
    pub workers: usize,
    /// How many pieces of work each worker computes at a time.
    pub slots: usize,
    /// The kinds of models.
    pub registry: Registry,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data: None,
            workers: 1,
            slots: worker::Options::default().slots,
            registry: Registry::default(),
        }
    }
}

/// A running cluster. Dropping it leaves it running until the runtime ends; [`Cluster::stop`] ends it.
pub struct Cluster {
    db: Db,
    workers: Vec<Worker>,
}

/// How long workers may finish what they are at when the cluster stops.
const PATIENCE: Duration = Duration::from_millis(500);

impl Cluster {
    /// Starts a cluster. Call it within a tokio runtime.
    pub fn start(options: Options) -> Result<Self, DbError> {
        let db = match &options.data {
            Some(directory) => Db::open(directory)?,
            None => Db::in_memory()?,
        };
        let engine = Arc::new(Engine::new(options.registry));
        let start = |n: usize| {
            let link = Link::new([Peer::router(db.router())]);
            let settings =
                worker::Options { name: format!("worker-{n}"), slots: options.slots, ..Default::default() };
            let worker = Worker::new(link, engine.clone(), settings);
            let running = worker.clone();
            tokio::spawn(async move { running.run().await });
            worker
        };
        let workers = (0..options.workers.max(1)).map(start).collect();
        Ok(Self { db, workers })
    }

    /// A client of its workers.
    pub fn client(&self) -> Client {
        Client::new(self.workers.iter().map(|worker| Peer::router(worker.router())))
    }

    /// Its workers: to be served, nested in a larger app, or stopped one by one.
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// Serves the users' REST API on a socket until `end` is ready.
    pub async fn serve(&self, listener: TcpListener, end: impl Future<Output = ()>) {
        serve(listener, self.workers[0].router(), end).await;
    }

    /// Opens a socket for [`Cluster::serve`].
    pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
        TcpListener::bind(address).await
    }

    /// Waits until the store fails, and says why.
    pub async fn failed(&self) -> Arc<DbError> {
        self.db.failed().await
    }

    /// Stops the workers; what they are at goes on when a cluster is started on the same data.
    pub async fn stop(self) {
        for worker in &self.workers {
            worker.stop(PATIENCE).await;
        }
    }
}
