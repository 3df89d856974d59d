//! A cluster in one process: db nodes and workers wired Router to Router, with no socket. It is what `dml` runs when no
//! cluster is named, what `dml up` serves, and what other programs embed.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use dml_compute::{Engine, Registry};
use dml_store::{DiskStore, MemoryStore, Store};

use crate::{
    client::Client,
    db::{self, Db, DbError, Network},
    discover::{Discover, Discovery, Fixed},
    link::Link,
    logs::Logs,
    peer::{InProcess, Peer},
    worker::{self, Worker},
};

/// What the cluster is made of.
pub struct Options {
    /// Where the db nodes keep their data, the first in this directory itself, the others in `db-2`, `db-3` ... below it;
    /// in memory if none.
    pub data: Option<PathBuf>,
    /// How many db nodes there are.
    pub dbs: usize,
    /// How many copies of each thing there are to be.
    pub replication: u32,
    /// How many workers there are.
    pub workers: usize,
    /// How many pieces of work each worker computes at a time.
    pub slots: usize,
    /// Whether its workers answer those users alone who show who they are, over TLS.
    pub guarded: bool,
    /// Where the last lines of this process's log are, if they are kept.
    pub logs: Option<Arc<Logs>>,
    /// The kinds of models.
    pub registry: Registry,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data: None,
            dbs: 1,
            replication: db::Settings::default().replication,
            workers: 1,
            slots: worker::Options::default().slots,
            guarded: false,
            logs: None,
            registry: Registry::default(),
        }
    }
}

/// A running cluster. Dropping it leaves it running until the runtime ends; [`Cluster::stop`] ends it.
pub struct Cluster {
    dbs: Vec<Db>,
    workers: Vec<Worker>,
    network: InProcess,
}

/// How long workers may finish what they are at when the cluster stops.
const PATIENCE: Duration = Duration::from_millis(500);

impl Cluster {
    /// Starts a cluster. Call it within a tokio runtime.
    pub fn start(options: Options) -> Result<Self, DbError> {
        let network = InProcess::default();
        let dbs = (0..options.dbs.max(1)).map(|n| start_db(n, &options, &network));
        let dbs = dbs.collect::<Result<Vec<_>, _>>()?;
        let engine = Arc::new(Engine::new(options.registry));
        let start = |n: usize| {
            let link = match dbs.as_slice() {
                [only] => Link::new([Peer::router(only.router())]),
                several => Link::discover(Discovery::new(vec![everyone(several.len())]), network.dial()),
            };
            let settings = worker::Options {
                name: format!("worker-{n}"),
                slots: options.slots,
                guarded: options.guarded,
                logs: options.logs.clone(),
                ..Default::default()
            };
            let worker = Worker::new(link, engine.clone(), settings);
            let running = worker.clone();
            tokio::spawn(async move { running.run().await });
            worker
        };
        let workers = (0..options.workers.max(1)).map(start).collect();
        Ok(Self { dbs, workers, network })
    }

    /// A client of its workers.
    pub fn client(&self) -> Client {
        Client::new(self.workers.iter().map(|worker| Peer::router(worker.router())))
    }

    /// Its db nodes.
    pub fn dbs(&self) -> &[Db] {
        &self.dbs
    }

    /// Takes a db node away, as if its machine had died.
    pub fn kill_db(&mut self, n: usize) {
        self.network.remove(self.dbs.remove(n).address());
    }

    /// Its workers: to be served, nested in a larger app, or stopped one by one.
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// Waits until a db node's store fails, and says why.
    pub async fn failed(&self) -> Arc<DbError> {
        let failures = self.dbs.iter().map(|db| Box::pin(db.failed()));
        futures_util::future::select_all(failures).await.0
    }

    /// Stops the workers; what they are at goes on when a cluster is started on the same data.
    pub async fn stop(self) {
        for worker in &self.workers {
            worker.stop(PATIENCE).await;
        }
    }
}

/// Starts the db node number `n`. One that has others is reached under an address that need not exist.
fn start_db(n: usize, options: &Options, network: &InProcess) -> Result<Db, DbError> {
    let store: Arc<dyn Store> = match &options.data {
        Some(directory) if n == 0 => Arc::new(DiskStore::open(directory)?),
        Some(directory) => Arc::new(DiskStore::open(directory.join(format!("db-{}", n + 1)))?),
        None => Arc::new(MemoryStore::default()),
    };
    let settings = db::Settings { replication: options.replication, ..Default::default() };
    if options.dbs < 2 {
        return Db::start(store, db::Options { settings, ..Default::default() });
    }
    let (address, dials) = (address(n), network.clone());
    let sources = vec![everyone(options.dbs)];
    let swim = Default::default();
    let reach = Network { address, sources, dial: Box::new(move || dials.dial()), swim, thread: true };
    let db = Db::start(store, db::Options { settings, network: Some(reach), ..Default::default() })?;
    network.insert(address, db.router());
    Ok(db)
}

/// The address of the db node number `n`: no other program can have it, as nothing listens there.
fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1 + n as u16))
}

fn everyone(dbs: usize) -> Box<dyn Discover> {
    Box::new(Fixed((0..dbs).map(address).collect()))
}
