//! A db node: the shell around [`dml_core::Node`]. It keeps records and blobs in a [`Store`], answers on HTTP, finds
//! the other db nodes and writes to them, and does what the brain says. It computes nothing.

mod blobs;
mod join;
mod meters;
mod nodes;
mod post;
mod probe;
mod routes;
mod runtime;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{Router, middleware};
use dml_core::{
    Digest, Member, Node, NodeId, Record,
    node::{Request, Response},
    record::NotARecord,
    swim,
};
use dml_store::{Store, StoreError};
use tokio::sync::{mpsc, watch};

use crate::{
    discover::{Discover, Discovery},
    handshake::same_cluster,
    identity::{ClusterKey, Identity, IdentityError, Party, Revoked, nodes_only},
    membership::{Change, Membership, Neighbour},
    metrics::observed,
    peer::{self, Dial},
    view::Role,
};
use blobs::Blobs;
pub use dml_core::node::Settings;
use meters::Meters;
pub(crate) use post::PATH as LETTERS;
use post::Post;
#[cfg(test)]
pub(crate) use post::{FORMAT as LETTERS_FORMAT, pack};
pub(crate) use routes::{ASKS, MAX_BLOB, REVOKED};
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
    /// It cannot show who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The node has stopped.
    #[error("this db node has stopped")]
    Stopped,
}

/// What a db node is like, beside what it stores.
pub struct Options {
    /// How the brain behaves: the number of copies, the length of leases.
    pub settings: Settings,
    /// The network of the other db nodes; none for a node that stays alone.
    pub network: Option<Network>,
    /// How many bytes of its disk stay free: with less, a node takes no blobs of users and workers any more, but goes on
    /// to take copies of what other nodes have, and deletions.
    pub keep_free: u64,
    /// Who it is, if it is to answer nodes of its cluster alone and is served over TLS.
    pub identity: Option<Identity>,
    /// The cluster's key, if it is to make certificates for machines with a token to join.
    pub key: Option<Arc<ClusterKey>>,
}

/// What stays free of a disk unless one says otherwise, in bytes: room for copies, deletions and whoever else writes there.
/// It is an amount, since a hundredth of a large disk is room for years.
pub const KEEP_FREE: u64 = 256 << 20;

impl Default for Options {
    fn default() -> Self {
        Self { settings: Settings::default(), network: None, keep_free: KEEP_FREE, identity: None, key: None }
    }
}

/// How a db node finds and reaches the others.
pub struct Network {
    /// Where they reach this one.
    pub address: SocketAddr,
    /// Where they may be.
    pub sources: Vec<Box<dyn Discover>>,
    /// How addresses become connections. Each call gives a dial with connections of its own.
    pub dial: Box<dyn Fn() -> Dial + Send + Sync>,
    /// How failures are detected.
    pub swim: swim::Settings,
    /// Whether the membership has a thread of its own, as it should unless time is simulated.
    pub thread: bool,
}

impl Network {
    /// For a node that others reach at `address`, and that finds them at `sources`.
    pub fn new(
        dial: impl Fn() -> Dial + Send + Sync + 'static,
        address: SocketAddr,
        sources: Vec<Box<dyn Discover>>,
    ) -> Self {
        Self { address, sources, dial: Box::new(dial), swim: swim::Settings::default(), thread: true }
    }
}

/// A running db node.
#[derive(Clone)]
pub struct Db {
    shell: Arc<Shell>,
}

struct Shell {
    me: Member,
    id: String,
    blobs: Blobs,
    keep_free: u64,
    inbox: Inbox,
    meters: Arc<Meters>,
    /// Whether the node is about to end.
    leaving: watch::Sender<bool>,
    membership: Option<Membership>,
    post: Option<Post>,
    end: watch::Receiver<Option<Arc<DbError>>>,
    /// If it answers nodes with certificates alone, those whose certificates were revoked.
    revoked: Option<Revoked>,
    key: Option<Arc<ClusterKey>>,
}

impl Db {
    /// Opens a node on a data directory, which is created if it is not there, and starts it, alone.
    ///
    /// Call it within a tokio runtime.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, DbError> {
        Self::start(Arc::new(dml_store::DiskStore::open(directory)?), Options::default())
    }

    /// Starts a node that is alone and forgets everything when the process ends.
    pub fn in_memory() -> Result<Self, DbError> {
        Self::start(Arc::new(dml_store::MemoryStore::default()), Options::default())
    }

    /// Starts a node on any store.
    pub fn start(store: Arc<dyn Store>, options: Options) -> Result<Self, DbError> {
        let Options { mut settings, network, keep_free, identity, key } = options;
        settings.expects_others |= network.as_ref().is_some_and(|network| !network.sources.is_empty());
        let id = node_id(&*store)?;
        let revoked = identity.as_ref().map(Identity::revoked);
        let workers = match identity {
            Some(identity) => identity.dial(Role::Worker)?,
            None => peer::http(),
        };
        let address = network.as_ref().map_or(ALONE, |network| network.address);
        let me = Member { id, address, generation: next_generation(&*store)? };
        let records = store.records()?.into_iter().map(|(id, bytes)| {
            Record::from_bytes(&bytes).map(|record| (id, record)).map_err(|why| DbError::Record { id, why })
        });
        let mut node = Node::new(settings, me, records.collect::<Result<Vec<_>, _>>()?);
        let known = known_members(&*store)?;
        node.remember(known.iter().copied());
        let meters = Arc::<Meters>::default();
        let joined = network.map(|network| join(me, known, network, &store, &meters)).transpose()?;
        let (membership, post, changes) = match joined {
            Some((membership, post, changes)) => (Some(membership), Some(post), Some(changes)),
            None => (None, None, None),
        };
        let (inbox, end) = runtime::spawn(node, store.clone(), post.clone(), meters.clone());
        let blobs = Blobs::new(store.clone(), post.clone(), meters.clone());
        let (id, leaving) = (id.to_string(), watch::Sender::new(false));
        let shell =
            Shell { me, id, blobs, keep_free, inbox, meters, leaving, membership, post, end, revoked, key };
        let db = Self { shell: Arc::new(shell) };
        if let Some(changes) = changes {
            tokio::spawn(follow(Arc::downgrade(&db.shell), changes));
        }
        tokio::spawn(probe::run(Arc::downgrade(&db.shell), workers));
        tokio::spawn(keep_swept(Arc::downgrade(&db.shell)));
        if db.shell.revoked.is_some() {
            tokio::spawn(heed(Arc::downgrade(&db.shell)));
        }
        Ok(db)
    }

    /// The node's name: made once, kept in its store.
    pub fn id(&self) -> &str {
        &self.shell.id
    }

    /// Where the other db nodes reach it.
    pub fn address(&self) -> SocketAddr {
        self.shell.me.address
    }

    /// What the node answers on HTTP: to be served, nested in a larger app, or asked in the same process.
    pub fn router(&self) -> Router {
        let router = routes::router(self.clone());
        let router = match &self.shell.membership {
            Some(membership) => {
                let same_cluster = middleware::from_fn_with_state(membership.cluster(), same_cluster);
                router.merge(membership.router()).layer(same_cluster)
            }
            None => router,
        };
        let router = match &self.shell.revoked {
            Some(revoked) => router.layer(middleware::from_fn_with_state(revoked.clone(), nodes_only)),
            None => router,
        };
        observed(router, self.shell.meters.requests.clone())
    }

    /// Asks the brain.
    pub async fn ask(&self, request: Request) -> Result<Response, DbError> {
        self.shell.inbox.ask(request).await.ok_or(DbError::Stopped)
    }

    /// The other db nodes, everyone who was ever seen.
    pub fn neighbours(&self) -> Vec<Neighbour> {
        self.shell.membership.as_ref().map(Membership::nodes).unwrap_or_default()
    }

    /// Says goodbye to the other db nodes, so that they need not find out. From now on the node is not ready, and who
    /// waits here for something to happen is sent to another node; else it answers as before.
    pub async fn leave(&self) {
        self.shell.leaving.send_replace(true);
        if let Some(membership) = &self.shell.membership {
            membership.leave().await;
        }
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

/// The address of a node that nobody needs to reach.
const ALONE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7301);

const GENERATION: &str = "generation";
const IDENTITY: &str = "identity";
const ADDRESSES: &str = "addresses";
const MEMBERS: &str = "members";

/// Takes part in the membership.
fn join(
    me: Member,
    known: Vec<Member>,
    network: Network,
    store: &Arc<dyn Store>,
    meters: &Arc<Meters>,
) -> Result<(Membership, Post, mpsc::UnboundedReceiver<Change>), DbError> {
    let Network { sources, dial, swim, thread, .. } = network;
    let saved = store.setting(ADDRESSES)?;
    let keeper = store.clone();
    let save = move |bytes: &[u8]| keeper.set_setting(ADDRESSES, bytes).map_err(std::io::Error::other);
    let discovery = Discovery::with_cache(sources, saved.as_deref(), Box::new(save));
    let (membership, changes) = if thread {
        Membership::start(me, known, discovery, dial(), swim)
    } else {
        let (membership, changes, run) = Membership::new(me, known, discovery, dial(), swim);
        tokio::spawn(run);
        (membership, changes)
    };
    let post = Post::new(dial(), membership.clone(), meters.clone());
    Ok((membership, post, changes))
}

/// Tells the brain who is there.
async fn follow(shell: std::sync::Weak<Shell>, mut changes: mpsc::UnboundedReceiver<Change>) {
    while let Some(change) = changes.recv().await {
        let Some(shell) = shell.upgrade() else { return };
        shell.inbox.tell(change).await;
    }
}

/// How often a node looks whose certificates were revoked.
const HEED: Duration = Duration::from_secs(1);

/// Takes note of whose certificates were revoked. The records are on every node.
async fn heed(shell: std::sync::Weak<Shell>) {
    loop {
        let Some(shell) = shell.upgrade() else { return };
        let names = |node: &Node| node.revoked().map(String::from).collect::<Vec<_>>();
        let Some(names) = shell.inbox.look(names).await else { return };
        let news = shell.revoked.as_ref().map(|revoked| revoked.learn(names)).unwrap_or_default();
        // What a worker had in hand goes to others at once.
        for worker in news.into_iter().filter(|name| matches!(Party::named(name), Ok(Party::Worker(_)))) {
            shell.inbox.ask(Request::Leave { worker, dead: true }).await;
        }
        drop(shell);
        tokio::time::sleep(HEED).await;
    }
}

/// Who was seen in earlier lives of this node. What cannot be read was written by another version: it is learned anew.
fn known_members(store: &dyn Store) -> Result<Vec<Member>, DbError> {
    let saved = store.setting(MEMBERS)?;
    Ok(saved.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
}

/// How many times the node has started, this time included.
fn next_generation(store: &dyn Store) -> Result<u32, DbError> {
    let last =
        store.setting(GENERATION)?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    store.set_setting(GENERATION, &(last + 1).to_le_bytes())?;
    Ok(last + 1)
}

/// The name of the node whose store this is; it is made if there is none yet.
pub fn node_id(store: &dyn Store) -> Result<NodeId, DbError> {
    let saved = store.setting(IDENTITY)?.and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some(known) = saved.and_then(|text| text.parse().ok()) {
        return Ok(known);
    }
    let new = NodeId::new(random());
    store.set_setting(IDENTITY, new.to_string().as_bytes())?;
    Ok(new)
}

/// Gives a store that has no node's name yet the name of a certificate. A store keeps the name that it has.
pub fn become_node(store: &dyn Store, id: NodeId) -> Result<(), DbError> {
    if store.setting(IDENTITY)?.is_none() {
        store.set_setting(IDENTITY, id.to_string().as_bytes())?;
    }
    Ok(())
}

/// Twelve random hexadecimal digits.
pub(crate) fn random_name() -> String {
    format!("{:016x}", random())[..12].to_string()
}

/// A random number: the standard library seeds its hash maps from the system's randomness.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// How old a blob must be to be swept away: younger ones may be about to be named by a record.
const SWEEP_AGE: Duration = Duration::from_secs(24 * 3600);

/// How often a node looks for blobs to be swept away.
const SWEEP: Duration = Duration::from_secs(3600);

/// Removes blobs that no record refers to: uploads that broke off, results that a crash made superfluous.
async fn keep_swept(shell: std::sync::Weak<Shell>) {
    loop {
        let Some(shell) = shell.upgrade() else { return };
        let inbox = &shell.inbox;
        let nameless = |blobs: Vec<Digest>| async move {
            inbox.look(move |node| blobs.into_iter().filter(|blob| !node.refers_to(blob)).collect()).await
        };
        if let Err(error) = shell.blobs.sweep(SWEEP_AGE, nameless).await {
            tracing::warn!(%error, "blobs that nothing refers to could not be removed");
        }
        drop(shell);
        tokio::time::sleep(SWEEP).await;
    }
}
