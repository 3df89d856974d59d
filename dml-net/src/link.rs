//! A worker's link to the db nodes: "a db node, whichever answers". It keeps a table of all db nodes ever known and
//! turns to the one that was of service last, to the next when that one is silent, and to all again with pauses until
//! the patience of the request is over. So any db node may die at any time, also while it is being asked.
//!
//! Every request may be sent twice, for doing a thing twice does it once.

pub(crate) mod exchange;
mod hedge;
mod refresh;
mod table;
mod together;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::body::Bytes;
use dml_core::{
    Digest,
    node::{Request, Response},
};
use hyper::{Method, StatusCode};
use tokio::{sync::Notify, time::Instant};

use self::{
    exchange::{BYTES, JSON, Question, Silence, exchange},
    table::{Node, Table},
    together::Queue,
};
use crate::{
    db::MAX_BLOB,
    discover::Discovery,
    handshake::FOREIGN,
    peer::{Dial, Peer},
    problem::Problem,
    view::{NodeView, Page},
};

pub(crate) use together::Answers;

/// Why the db nodes gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// None of them answers.
    #[error("no db node answers: {0}")]
    NoneAnswers(String),
    /// One answered with an error.
    #[error("{0}")]
    Problem(#[from] Problem),
    /// No node has this blob.
    #[error("the blob {0} is nowhere to be found")]
    NoBlob(Digest),
    /// What came is not what was asked for.
    #[error("a db node answered with {0}: is it of another version?")]
    Garbled(&'static str),
}

/// The db nodes that a worker knows; cheap to clone.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    table: Mutex<Table>,
    /// Requests that go together.
    queue: Mutex<Queue>,
    /// Where new nodes come from, if they do.
    discovery: Option<Discovery>,
    /// Notified when a node is there that was not.
    arrival: Notify,
    /// Notified when a node failed: its replacement should be looked for.
    departure: Arc<Notify>,
}

/// How long requests are repeated while no db node answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same for a question of the moment, such as whether this worker is ready.
const HASTE: Duration = Duration::from_secs(1);

/// How long a node may be silent before the next one is asked. It doubles each time that all have been asked.
const QUIET: Duration = Duration::from_secs(3);
const MAX_QUIET: Duration = Duration::from_secs(24);

/// The pause after all nodes have been asked; it doubles too.
const PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);

impl Link {
    /// A link to these db nodes and no others.
    pub fn new(peers: impl IntoIterator<Item = Peer>) -> Self {
        let link = Self::empty(None);
        let now = Instant::now();
        for (rank, peer) in (0..).zip(peers) {
            link.lock().insert(None, peer, rank, now);
        }
        link
    }

    /// A link to the db nodes that discovery finds, and to those that they know. It is there at once, and goes on
    /// looking for nodes until its last clone is dropped. Call it within a tokio runtime.
    pub fn discover(discovery: Discovery, dial: Dial) -> Self {
        let link = Self::empty(Some(discovery.clone()));
        tokio::spawn(refresh::run(Arc::downgrade(&link.shared), discovery, dial));
        link
    }

    fn empty(discovery: Option<Discovery>) -> Self {
        let (arrival, departure) = (Notify::new(), Arc::default());
        Self {
            shared: Arc::new(Shared {
                table: Mutex::default(),
                queue: Mutex::default(),
                discovery,
                arrival,
                departure,
            }),
        }
    }

    /// The db nodes ever known: where, whether they answered last time, how long ago that was.
    pub fn nodes(&self) -> Vec<(Option<String>, bool, Duration)> {
        self.lock().all(Instant::now())
    }

    /// Asks the brain of a db node.
    pub async fn ask(&self, request: &Request) -> Result<Response, LinkError> {
        if let Request::Report { .. } = request
            && let Some(answer) = self.ask_together(request).await
        {
            return Ok(answer?);
        }
        let momentary = matches!(request, Request::Workers | Request::Leave { .. });
        let body = Bytes::from(serde_json::to_vec(request).expect("requests have string keys"));
        let wait = Duration::from_millis(request.wait_ms());
        let question = Question { wait, ..Question::post("/v1/ask", JSON, body) };
        let bytes = self.call(&question, if momentary { HASTE } else { PATIENCE }).await?;
        serde_json::from_slice(&bytes).map_err(|_| LinkError::Garbled("something that is no answer"))
    }

    /// The nodes of the cluster, as a db node that answers sees them.
    pub async fn cluster(&self) -> Result<Vec<NodeView>, LinkError> {
        let question = Question::get("/v1/nodes?each=true");
        let bytes = self.call(&question, HASTE).await?;
        let page = serde_json::from_slice::<Page<NodeView>>(&bytes);
        Ok(page.map_err(|_| LinkError::Garbled("something that is no list of nodes"))?.items)
    }

    /// Keeps a blob: it is durable on return.
    pub async fn put_blob(&self, bytes: impl Into<Bytes>) -> Result<Digest, LinkError> {
        let body: Bytes = bytes.into();
        if body.len() > MAX_BLOB {
            let detail = format!(
                "a result of {} MiB is larger than the {} MiB that a db node keeps: limit the depth, the leaves or the \
                 number of trees",
                body.len() >> 20,
                MAX_BLOB >> 20
            );
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "blob-too-large", detail).into());
        }
        let digest = Digest::of(&body);
        let path = format!("/v1/blobs/{digest}");
        self.call(&Question { method: Method::PUT, ..Question::post(path, BYTES, body) }, PATIENCE).await?;
        Ok(digest)
    }

    /// Fetches a blob, from any node that has it. Its digest is checked.
    pub async fn blob(&self, digest: Digest) -> Result<Bytes, LinkError> {
        let path = format!("/v1/blobs/{digest}");
        let question = Question::get(path);
        match self.call(&question, PATIENCE).await {
            Ok(bytes) if Digest::of(&bytes) == digest => Ok(bytes),
            Ok(_) => Err(LinkError::Garbled("bytes of another digest")),
            Err(LinkError::Problem(problem)) if problem.status == 404 => Err(LinkError::NoBlob(digest)),
            Err(error) => Err(error),
        }
    }

    /// Asks the nodes in turn until one is of service. What one cannot do, another may: it lacks a blob, its disk is
    /// full, it is cut off from the others.
    async fn call(&self, question: &Question, patience: Duration) -> Result<Bytes, LinkError> {
        let start = Instant::now();
        let (mut quiet, mut pause) = (QUIET, PAUSE);
        loop {
            let mut lap = Lap::default();
            while let Some(node) = self.next(&lap.asked) {
                lap.asked.insert(node.key);
                let outcome = self.attempt(&node, question, quiet).await;
                if let Some(answer) = lap.judge(&node, question, outcome) {
                    self.lock().served(node.key);
                    return answer;
                }
            }
            if let Some(error) = lap.verdict() {
                return Err(error);
            }
            if start.elapsed() + pause > patience {
                return Err(lap.give_up());
            }
            // A node that arrives meanwhile is asked at once.
            let _ = tokio::time::timeout(pause, self.shared.arrival.notified()).await;
            (quiet, pause) = ((quiet * 2).min(MAX_QUIET), (pause * 2).min(MAX_PAUSE));
        }
    }

    /// The first node that was not asked yet, of those known by now.
    fn next(&self, asked: &BTreeSet<u64>) -> Option<Node> {
        self.lock().in_order().into_iter().find(|node| !asked.contains(&node.key))
    }

    /// Asks one node, and remembers whether it answered.
    async fn attempt(
        &self,
        node: &Node,
        question: &Question,
        quiet: Duration,
    ) -> Result<(StatusCode, Bytes), Silence> {
        let given_up = async {
            if question.wait.is_zero() {
                std::future::pending::<()>().await;
            }
            node.given_up.notified().await;
        };
        let outcome = tokio::select! {
            outcome = exchange(&node.peer, question, quiet) => outcome,
            // Others have found the node dead while it was to answer later.
            () = given_up => return Err(Silence::GivenUp),
        };
        match &outcome {
            Ok(_) => self.answered(node.key, node.address),
            Err(silence) => {
                tracing::debug!(node = node.peer.address(), %silence, "a db node does not answer");
                self.failed(node.key, node.address);
            }
        }
        outcome
    }

    fn answered(&self, key: u64, address: Option<SocketAddr>) {
        if self.lock().answered(key, Instant::now()) {
            self.shared.arrival.notify_waiters();
        }
        if let (Some(discovery), Some(address)) = (&self.shared.discovery, address) {
            discovery.answered(address);
        }
    }

    fn failed(&self, key: u64, address: Option<SocketAddr>) {
        self.lock().failed(key, Instant::now());
        self.shared.departure.notify_one();
        if let (Some(discovery), Some(address)) = (&self.shared.discovery, address) {
            discovery.failed(address);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().expect("nobody panics while holding it")
    }
}

/// What came of asking each node once.
#[derive(Default)]
struct Lap {
    asked: BTreeSet<u64>,
    /// Why the last silent one was silent.
    silence: Option<Silence>,
    /// A node fell silent that did not seem to be before: what it knows may be with others soon.
    shrunk: bool,
    /// A node cannot do it at present.
    busy: Option<Problem>,
    /// A node cannot do it, and asking again would not help.
    unable: Option<LinkError>,
    /// No such blob at a node.
    missing: Option<Problem>,
}

impl Lap {
    /// Whether this is the answer. If not, the next node is asked.
    fn judge(
        &mut self,
        node: &Node,
        question: &Question,
        outcome: Result<(StatusCode, Bytes), Silence>,
    ) -> Option<Result<Bytes, LinkError>> {
        let (status, bytes) = match outcome {
            Ok(answer) => answer,
            Err(silence) => {
                self.shrunk |= node.active;
                self.silence = Some(silence);
                return None;
            }
        };
        if status.is_success() {
            return Some(Ok(bytes));
        }
        let Ok(problem) = serde_json::from_slice::<Problem>(&bytes) else {
            // Perhaps it is no db node at all, or one of another version.
            self.unable.get_or_insert(LinkError::Garbled("an error without words"));
            return None;
        };
        if status == StatusCode::SERVICE_UNAVAILABLE && ["unavailable", "no-answer"].contains(&&*problem.code)
        {
            self.busy = Some(problem);
        } else if status == StatusCode::NOT_FOUND && question.method == Method::GET {
            self.missing = Some(problem);
        } else if status.is_server_error() || ["blob-missing", FOREIGN].contains(&&*problem.code) {
            self.unable = Some(problem.into());
        } else {
            return Some(Err(problem.into()));
        }
        None
    }

    /// What is to be told after all have been asked; nothing if they are to be asked again.
    fn verdict(&mut self) -> Option<LinkError> {
        if self.shrunk || self.busy.is_some() {
            return None;
        }
        self.missing.take().map(Into::into).or(self.unable.take())
    }

    /// What is to be told when the patience is over.
    fn give_up(self) -> LinkError {
        let problem = self.unable.or(self.missing.or(self.busy).map(Into::into));
        problem.unwrap_or_else(|| {
            let why = self.silence.map(|silence| silence.to_string());
            LinkError::NoneAnswers(why.unwrap_or_else(|| "none is known yet".into()))
        })
    }
}

#[cfg(test)]
mod tests;
