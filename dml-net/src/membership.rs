//! Which db nodes are there: the runtime of [`dml_core::swim`], its datagrams carried as small POSTs.
//!
//! It has a thread of its own, with a runtime of its own, so that whatever stalls the node does not look like the death
//! of the others. What it sends must therefore go over connections of its own: give it a [`Dial`] that nothing else
//! uses. What it receives comes in by the node's listener, on the node's runtime, and is handed over at once: a runtime
//! that stands still for most of a second makes this node look dead to the others, until it refutes that.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    routing::{get, post},
};
use dml_core::{
    member::{Member, NodeId},
    swim::{Effect, Event, Health, Seen, Settings, Swim, sender},
};
use hyper::Request;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};

use crate::{
    discover::Discovery,
    handshake::{self, ClusterId, Greeting, Hello, greet},
    identity::Caller,
    peer::{Dial, PeerError},
    problem::Problem,
};

/// Where datagrams are posted.
pub(crate) const PATH: &str = "/v1/swim";

/// The longest datagram, in bytes.
const LONGEST: usize = 16 << 10;

/// So many messages may wait for the thread; like datagrams, the next ones are lost.
const QUEUE: usize = 1024;

/// So many datagrams are on their way at a time, in all and to one member; the next ones are lost.
const FLYING: usize = 256;
const FLYING_TO_ONE: usize = 8;

/// How often discovery is asked while no other node is there.
const ALONE: Duration = Duration::from_secs(1);

/// What [`Membership::nodes`] tells is at most so old.
const FRESH: Duration = Duration::from_millis(100);

/// How long goodbyes may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// A change in the membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A member is there: a new one, one that came back, or one in a new life.
    Active(Member),
    /// A member that was there is not any more.
    Inactive {
        /// Who.
        id: NodeId,
        /// It said goodbye.
        left: bool,
    },
}

/// A db node as this one sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The node, in its last life that is known.
    pub member: Member,
    /// Whether it is there.
    pub health: Health,
    /// How long ago it gave a sign of life; since the start of this node, if it gave none.
    pub age: Duration,
}

/// The membership of this node; cheap to clone. When the last clone is dropped, the node falls silent.
#[derive(Clone)]
pub struct Membership {
    me: Member,
    cluster: ClusterId,
    inbox: mpsc::Sender<Message>,
    seen: Arc<Mutex<Vec<Seen>>>,
    start: Instant,
}

enum Message {
    Event(Event),
    Leave(oneshot::Sender<()>),
}

impl Membership {
    /// Takes part from now on, in a thread of its own. `known` are the nodes of earlier lives. The receiver ends when this
    /// node has left.
    ///
    /// # Panics
    /// If the system has no thread for it.
    pub fn start(
        me: Member,
        known: Vec<Member>,
        discovery: Discovery,
        dial: Dial,
        settings: Settings,
    ) -> (Self, mpsc::UnboundedReceiver<Change>) {
        let (membership, changes, run) = Self::new(me, known, discovery, dial, settings);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("the system has timers and sockets");
        let thread = std::thread::Builder::new().name("membership".into());
        let running = thread.spawn(move || {
            runtime.block_on(run);
            // A name lookup that hangs is not waited for.
            runtime.shutdown_background();
        });
        running.expect("the system has a thread to spare");
        (membership, changes)
    }

    /// The same without a thread: it takes part while the future runs, which also suits simulated time and networks.
    pub fn new(
        me: Member,
        known: Vec<Member>,
        discovery: Discovery,
        dial: Dial,
        settings: Settings,
    ) -> (Self, mpsc::UnboundedReceiver<Change>, impl Future<Output = ()> + Send + 'static) {
        let (inbox, messages) = mpsc::channel(QUEUE);
        let (tell, changes) = mpsc::unbounded_channel();
        let (seen, start) = (Arc::default(), Instant::now());
        let seed = RandomState::new().hash_one(me.id.number());
        let cluster = dial.cluster();
        let driver = Driver {
            swim: Swim::new(me, settings, seed, known),
            me,
            start,
            seen: Arc::clone(&seen),
            publish_at: None,
            tell,
            discovery,
            dial,
            patience: settings.period.min(Duration::from_secs(1)),
            errands: JoinSet::new(),
            greeting: BTreeSet::new(),
            foreign: BTreeSet::new(),
            flying: BTreeMap::new(),
        };
        (Self { me, cluster, inbox, seen, start }, changes, driver.run(messages))
    }

    /// The cluster of this node.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Who this node is.
    pub fn me(&self) -> Member {
        self.me
    }

    /// The routes by which other nodes reach this one: `POST /v1/swim` and `GET /v1/node`. They do not keep the membership
    /// alive.
    pub fn router(&self) -> Router {
        let door = Door { hello: Hello::new(self.cluster, self.me), inbox: self.inbox.downgrade() };
        Router::new()
            .route(PATH, post(receive).layer(DefaultBodyLimit::max(LONGEST)))
            .route(handshake::PATH, get(hello))
            .with_state(door)
    }

    /// Everyone ever seen but this node, by name; as of a tenth of a second ago at most.
    pub fn nodes(&self) -> Vec<Neighbour> {
        let now = self.start.elapsed();
        let seen = self.seen.lock().expect("nobody panics while holding it");
        let tell = |seen: &Seen| {
            let age = now.saturating_sub(seen.heard);
            Neighbour { member: seen.member, health: seen.health, age }
        };
        seen.iter().map(tell).collect()
    }

    /// A member answered a request.
    pub fn answered(&self, id: NodeId) {
        let now = self.start.elapsed();
        let fresh = |seen: &Seen| seen.health == Health::Active && now < seen.heard + FRESH;
        let known = {
            let seen = self.seen.lock().expect("nobody panics while holding it");
            seen.binary_search_by_key(&id, |seen| seen.member.id).is_ok_and(|at| fresh(&seen[at]))
        };
        if !known {
            // If the thread is busy, it hears of the next answer.
            let _ = self.inbox.try_send(Message::Event(Event::Answered(id)));
        }
    }

    /// A connection to a member was refused: see [`PeerError::is_refused`].
    pub fn refused(&self, id: NodeId) {
        // If the thread is busy, it will find out by itself.
        let _ = self.inbox.try_send(Message::Event(Event::Refused(id)));
    }

    /// Says goodbye to the others, and takes part no more. Returns when they have heard it, or will not.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        let goodbye = async {
            if self.inbox.send(Message::Leave(done)).await.is_ok() {
                let _ = left.await;
            }
        };
        if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
            tracing::warn!("the others did not hear the goodbye in time: they will find out");
        }
    }
}

/// What the routes know.
#[derive(Clone)]
struct Door {
    hello: Hello,
    inbox: mpsc::WeakSender<Message>,
}

impl Door {
    fn inbox(&self) -> Result<mpsc::Sender<Message>, Problem> {
        let inbox = self.inbox.upgrade().filter(|inbox| !inbox.is_closed());
        inbox.ok_or_else(|| Problem::unavailable("this db node has left the cluster"))
    }
}

async fn receive(
    State(door): State<Door>,
    caller: Option<Extension<Caller>>,
    datagram: Bytes,
) -> Result<StatusCode, Problem> {
    if let (Some(Extension(caller)), Some(sender)) = (caller, sender(&datagram)) {
        caller.must_be(sender)?;
    }
    let lost = |_| Problem::unavailable("this db node has no time for a datagram");
    let message = Message::Event(Event::Datagram(datagram.into()));
    door.inbox()?.try_send(message).map_err(lost)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn hello(State(door): State<Door>) -> Result<Json<Hello>, Problem> {
    door.inbox()?;
    Ok(Json(door.hello))
}

/// The loop around the protocol: waits for an event or the deadline, lets it decide, does what it says.
struct Driver {
    swim: Swim,
    me: Member,
    start: Instant,
    /// What others may see of the table, and when it is to be brought up to date.
    seen: Arc<Mutex<Vec<Seen>>>,
    publish_at: Option<Duration>,
    tell: mpsc::UnboundedSender<Change>,
    discovery: Discovery,
    dial: Dial,
    /// How long a datagram may be on its way.
    patience: Duration,
    errands: JoinSet<Done>,
    /// The addresses that are being greeted.
    greeting: BTreeSet<SocketAddr>,
    /// Those at which nodes of other clusters were met: that is told once.
    foreign: BTreeSet<SocketAddr>,
    /// How many datagrams are on their way to each member.
    flying: BTreeMap<NodeId, usize>,
}

/// An errand has ended.
enum Done {
    Sent(Member, Result<StatusCode, PeerError>),
    Greeted(SocketAddr, Result<Greeting, PeerError>),
}

impl Driver {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        self.publish();
        let discovery = self.discovery.clone();
        let find = async |pause: Duration| {
            tokio::time::sleep(pause).await;
            discovery.refresh().await
        };
        let mut finding = Box::pin(find(Duration::ZERO));
        loop {
            let deadlines = [self.swim.deadline(self.start.elapsed()), self.publish_at];
            let deadline = deadlines.into_iter().flatten().min();
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(self.start + at).await,
                    None => std::future::pending().await,
                }
            };
            // In this order, so that after a stall the answers that wait are read before anybody is blamed.
            tokio::select! {
                biased;
                message = messages.recv() => match message {
                    Some(Message::Event(event)) => self.handle(event),
                    Some(Message::Leave(done)) => {
                        self.handle(Event::Leave);
                        messages.close();
                        while self.errands.join_next().await.is_some() {}
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
                Some(done) = self.errands.join_next() => match done {
                    Ok(done) => self.done(done),
                    Err(error) => tracing::error!(%error, "an errand of the membership failed"),
                },
                addresses = &mut finding => {
                    self.handle(Event::Discovered(addresses));
                    let alone = !self.swim.nodes().any(|seen| seen.health.is_active());
                    let pause = self.discovery.pause();
                    finding.set(find(if alone { pause.min(ALONE) } else { pause }));
                }
                () = sleep => self.handle(Event::Tick),
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.start.elapsed();
        let mut changed = false;
        for effect in self.swim.handle(now, event) {
            match effect {
                Effect::Send { to, datagram } => self.send(to, datagram),
                Effect::Greet(address) => self.greet(address),
                Effect::Active(member) => {
                    tracing::info!(id = %member.id, address = %member.address, "a db node is there");
                    changed = true;
                    let _ = self.tell.send(Change::Active(member));
                }
                Effect::Inactive { id, left } => {
                    tracing::info!(%id, left, "a db node is gone");
                    changed = true;
                    let _ = self.tell.send(Change::Inactive { id, left });
                }
            }
        }
        if changed || self.publish_at.is_some_and(|at| at <= now) {
            self.publish();
            self.publish_at = None;
        } else {
            self.publish_at.get_or_insert(now + FRESH);
        }
    }

    fn publish(&self) {
        let nodes = self.swim.nodes().copied().collect();
        *self.seen.lock().expect("nobody panics while holding it") = nodes;
    }

    fn send(&mut self, to: Member, datagram: Vec<u8>) {
        let flying = self.flying.entry(to.id).or_default();
        if *flying >= FLYING_TO_ONE || self.errands.len() >= FLYING {
            tracing::trace!(to = %to.id, "a datagram is dropped: too many are on their way");
            return;
        }
        *flying += 1;
        let (peer, patience) = (self.dial.peer(to.address), self.patience);
        self.errands.spawn(async move {
            let request = Request::post(PATH).body(Body::from(datagram)).expect("a plain path");
            let sent = tokio::time::timeout(patience, peer.call(request)).await;
            let sent = sent.unwrap_or_else(|_| {
                let why = format!("it took more than {} ms", patience.as_millis());
                Err(PeerError::Silent { address: to.address.to_string(), why })
            });
            Done::Sent(to, sent.map(|answer| answer.status()))
        });
    }

    fn greet(&mut self, address: SocketAddr) {
        if self.errands.len() < FLYING && self.greeting.insert(address) {
            let (peer, cluster) = (self.dial.peer(address), self.dial.cluster());
            self.errands.spawn(async move { Done::Greeted(address, greet(&peer, cluster).await) });
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Sent(to, outcome) => {
                if let Some(flying) = self.flying.get_mut(&to.id) {
                    *flying -= 1;
                }
                self.flying.retain(|_, flying| *flying > 0);
                match outcome {
                    Ok(status) if status.is_success() => self.discovery.answered(to.address),
                    Ok(_) => self.discovery.failed(to.address),
                    Err(error) => {
                        tracing::trace!(to = %to.id, %error, "a datagram is lost");
                        self.discovery.failed(to.address);
                        if error.is_refused() {
                            self.handle(Event::Refused(to.id));
                        }
                    }
                }
            }
            Done::Greeted(address, outcome) => {
                self.greeting.remove(&address);
                match outcome {
                    Ok(Greeting::Member(member)) if member == self.me => self.discovery.itself(address),
                    Ok(Greeting::Member(member)) if member.id == self.me.id => {
                        tracing::warn!(
                            %address,
                            id = %member.id,
                            "another node bears the name of this one: was its data directory copied? Give it an empty one"
                        );
                    }
                    Ok(Greeting::Member(member)) => {
                        self.discovery.answered(address);
                        self.handle(Event::Greeted(member));
                    }
                    Ok(Greeting::Foreign) => {
                        if self.foreign.insert(address) {
                            tracing::warn!(%address, "a db node of another cluster answers there: it is left alone");
                        }
                        self.discovery.failed(address);
                    }
                    Ok(Greeting::Stranger) => {
                        tracing::debug!(%address, "no db node of this version answers there");
                        self.discovery.failed(address);
                    }
                    Err(error) => {
                        tracing::debug!(%address, %error, "nobody answers there");
                        self.discovery.failed(address);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
