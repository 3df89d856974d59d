//! A worker: serves the users' REST API, takes pieces of work from db nodes, computes them and returns the results. It
//! keeps nothing that matters and knows no other worker; its only counterpart is a db node, whichever answers.

mod inputs;
mod meters;
mod pieces;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, middleware};
use dml_compute::Engine;
use dml_core::node::Request;
use tokio::sync::{Semaphore, watch};

use crate::{api, client::Client, console, link::Link, logs::Logs, metrics::observed, peer::Peer};
pub(crate) use inputs::{BlockingInputs, Cache};
use meters::Meters;
pub(crate) use meters::page as metrics;

/// A worker's settings.
#[derive(Debug, Clone)]
pub struct Options {
    /// What it is called; other workers must be called otherwise.
    pub name: String,
    /// How many pieces of work it computes at a time.
    pub slots: usize,
    /// Where db nodes can ask whether it is alive; without it, its work is free again only when its leases run out.
    pub address: Option<SocketAddr>,
    /// How many bytes of blobs it keeps at hand.
    pub cache_bytes: usize,
    /// Whether it answers those users alone who show who they are, over TLS.
    pub guarded: bool,
    /// Where the last lines of this process's log are, if they are kept.
    pub logs: Option<Arc<Logs>>,
}

impl Default for Options {
    fn default() -> Self {
        let slots = std::thread::available_parallelism().map_or(1, Into::into);
        Self {
            name: format!("worker-{}", crate::db::random_name()),
            slots,
            address: None,
            cache_bytes: 64 << 20,
            guarded: false,
            logs: None,
        }
    }
}

/// A worker, cheap to clone.
#[derive(Clone)]
pub struct Worker {
    pub(crate) shared: Arc<Shared>,
}

/// What the REST API and the pieces of work under way have in common.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) link: Link,
    pub(crate) engine: Arc<Engine>,
    pub(crate) cache: Cache,
    /// Turns to upload: each holds a thread that may block, and needs another to get on.
    pub(crate) uploads: Semaphore,
    pub(crate) meters: Meters,
    /// Those by which users are known.
    pub(crate) tokens: api::Tokens,
    pub(crate) lengths: api::Lengths,
    pub(crate) keys: api::Keys,
    pub(crate) recent: api::Recent,
    pub(crate) ensembles: api::Ensembles,
    stop: watch::Sender<bool>,
}

/// How many uploads a worker takes in at a time; the others wait.
const UPLOADS: usize = 32;

impl Worker {
    /// A worker of these db nodes that can train what the engine can.
    pub fn new(link: Link, engine: impl Into<Arc<Engine>>, options: Options) -> Self {
        let cache = Cache::new(options.cache_bytes);
        let stop = watch::Sender::new(false);
        let uploads = Semaphore::new(UPLOADS);
        let (engine, meters, tokens) = (engine.into(), Meters::default(), api::Tokens::default());
        let shared = Shared {
            options,
            link,
            engine,
            cache,
            uploads,
            meters,
            tokens,
            lengths: api::Lengths::default(),
            keys: api::Keys::default(),
            recent: api::Recent::default(),
            ensembles: api::Ensembles::default(),
            stop,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The users' REST API, and the console in the browser: to be served, nested in a larger app, or called in the same
    /// process.
    pub fn router(&self) -> Router {
        let api = api::router(self.clone());
        let client = Client::new([Peer::router(api.clone())]);
        let guard = middleware::from_fn_with_state(self.clone(), api::access::check);
        let router = api.merge(console::router(client)).layer(guard);
        observed(router, self.shared.meters.requests.clone())
    }

    /// Takes pieces of work and computes them until [`Worker::stop`] is called. A worker that is not run serves users
    /// all the same.
    pub async fn run(&self) {
        pieces::run(self.shared.clone()).await;
    }

    /// Ready when the worker is asked to stop: no request waits any longer on purpose.
    pub(crate) async fn stopping(&self) {
        let mut stop = self.shared.stop.subscribe();
        stop.wait_for(|stop| *stop).await.expect("this worker holds the sender");
    }

    /// Whether the worker was asked to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.shared.stop.borrow()
    }

    /// Ends [`Worker::run`]: pieces under way are finished if they can be within `patience`, else handed back. From now
    /// on the worker is not ready, and answers at once who waits for something to happen; else it serves as before.
    pub async fn stop(&self, patience: Duration) {
        self.shared.stop.send_replace(true);
        let idle = self.shared.stop.closed();
        let _ = tokio::time::timeout(patience, idle).await;
        let leave = Request::Leave { worker: self.shared.options.name.clone(), dead: false };
        if let Err(error) = self.shared.link.ask(&leave).await {
            tracing::debug!(%error, "no db node heard the goodbye: the leases will run out");
        }
    }
}
