//! What goes into the brain of a db node and what comes out.

use alloc::{string::String, vec::Vec};
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::Letter;
use crate::{
    id::Digest,
    job::{JobSpec, Progress},
    lease::{Lease, Slot},
    member::{Member, NodeId},
    record::{Body, Kind, Record},
    routing::Held,
};

/// Names a request until it is answered.
pub type Ticket = u64;

/// Something that happened.
#[expect(clippy::large_enum_variant, reason = "few are alive at a time, and each is moved once")]
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Somebody asks for something. `time_ms` is the wall clock, for people to read (milliseconds since 1970).
    Request {
        /// To be named in the answer.
        ticket: Ticket,
        /// What is asked.
        request: Request,
        /// When, for people.
        time_ms: u64,
    },
    /// Whoever asked has gone away: no answer is needed.
    Gone(Ticket),
    /// The records of an [`Effect::Persist`] are durable, and so are those of all before it.
    Persisted(u64),
    /// A letter of another db node has come, and the blobs that it names are here ([`Letter::blobs`]).
    Letter(Letter),
    /// A db node is there: it is new, has returned, or has started again.
    Active(Member),
    /// A db node is not there any more: it failed, or said goodbye.
    Inactive(NodeId),
    /// The deadline has come.
    Tick,
}

/// Something to be done; each is answered by an event, but for replies and discards.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make these records durable, all or none, then say [`Event::Persisted`].
    Persist {
        /// Names the write.
        write: u64,
        /// The records to write under their ids; none where the record is to go.
        records: Vec<(Digest, Option<Record>)>,
    },
    /// Answer a request.
    Reply(Ticket, Response),
    /// These blobs are not referred to by any record any more.
    Discard(Vec<Digest>),
    /// Write down who the other db nodes are, for [`Node::remember`](super::Node::remember) in the next life.
    Remember(Vec<Member>),
    /// Send a letter to another db node. It may get lost.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        letter: Letter,
    },
}

/// What workers and clients ask of a db node.
#[expect(clippy::large_enum_variant, reason = "few are alive at a time, and each is moved once")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Create something; if it is there already, add the name and take a cancelled training up again.
    Create {
        /// What.
        body: Body,
        /// What people call it.
        name: Option<String>,
    },
    /// Look for what `text` names: a name, an id, or the beginning of an id.
    Find {
        /// Among things of this kind.
        kind: Kind,
        /// What the user wrote.
        text: String,
    },
    /// List things, newest first.
    List {
        /// Of this kind.
        kind: Kind,
        /// After this one: the `next` of the page before.
        after: Option<Cursor>,
        /// At most so many.
        limit: usize,
    },
    /// A record and, for a training, its jobs; as soon as they have changed since `seen`.
    Watch {
        /// The record.
        id: Digest,
        /// The version that the asker has; 0 for none.
        seen: u64,
        /// How long to wait for a newer one.
        wait_ms: u64,
    },
    /// Cancel a training.
    Cancel {
        /// The training.
        id: Digest,
    },
    /// Delete something, with its children; what was deleted before stays so. A job of a training goes with it alone.
    Delete {
        /// The dataset, training or prediction.
        id: Digest,
    },
    /// Use a token that is good once: it is deleted, and whoever asks again is told that there is none. Its owner decides.
    Redeem {
        /// The token.
        id: Digest,
    },
    /// Ask for work; wait for some if there is none.
    Claim(Claim),
    /// Renew leases.
    Renew {
        /// The worker that holds them.
        worker: String,
        /// Those that the worker holds.
        leases: Vec<Lease>,
    },
    /// Bring a result, or hand a lease back.
    Report {
        /// The lease.
        lease: Lease,
        /// What came of it.
        outcome: Outcome,
    },
    /// A worker leaves: all that it holds is free.
    Leave {
        /// The worker's name.
        worker: String,
        /// Whether it did not say so itself, but was found dead.
        dead: bool,
    },
    /// Which thing is this a part of?
    Locate {
        /// The id of a record.
        id: Digest,
    },
    /// Where is this, and who owns it?
    Route {
        /// The id of a record.
        id: Digest,
    },
    /// Does anything unfinished use one of these?
    Users {
        /// Datasets and blobs.
        of: Vec<Digest>,
        /// What uses them and does not count.
        except: Digest,
    },
    /// Who works on it?
    Leases {
        /// The root.
        id: Digest,
    },
    /// The workers that have been seen.
    Workers,
}

impl Request {
    /// The blobs that must be where the request is answered, before it is.
    pub fn blobs(&self) -> Vec<Digest> {
        match self {
            Self::Create { body, .. } => body.blobs(),
            Self::Report { outcome: Outcome::Partial(blob) | Outcome::State { state: blob, .. }, .. } => {
                alloc::vec![*blob]
            }
            Self::Report { outcome: Outcome::Failed(_) | Outcome::Released { .. }, .. } => Vec::new(),
            Self::Find { .. } | Self::List { .. } | Self::Watch { .. } | Self::Workers => Vec::new(),
            Self::Claim(_) | Self::Renew { .. } | Self::Leave { .. } => Vec::new(),
            Self::Cancel { .. } | Self::Delete { .. } | Self::Redeem { .. } | Self::Leases { .. } => {
                Vec::new()
            }
            Self::Locate { .. } | Self::Route { .. } | Self::Users { .. } => Vec::new(),
        }
    }
}

impl Request {
    /// How long the answer may be kept back on purpose.
    pub fn wait_ms(&self) -> u64 {
        if let Self::Watch { wait_ms, .. } = self {
            *wait_ms
        } else if let Self::Claim(claim) = self {
            claim.wait_ms
        } else {
            0
        }
    }
}

/// A worker's request for work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The worker's name, one of its own.
    pub worker: String,
    /// How many pieces it can take.
    pub slots: u32,
    /// How many it can work on in all.
    pub capacity: u32,
    /// Datasets and blobs that it has at hand.
    pub have: Vec<Digest>,
    /// How long to wait for work.
    pub wait_ms: u64,
    /// Where it serves users; there it is asked whether it is alive.
    pub address: Option<core::net::SocketAddr>,
}

/// What came of a piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A unit's partial.
    Partial(Digest),
    /// A fold's state, and whether the job is finished with it.
    State {
        /// The state's blob.
        state: Digest,
        /// Whether no round is left.
        finished: bool,
    },
    /// The input is at fault: no worker can do it.
    Failed(String),
    /// Not done: it may be tried again after a pause.
    Released {
        /// How long; at most as long as a lease.
        pause_ms: u64,
    },
}

/// The place in a list where the next page goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// When the last thing of the page was created.
    pub created_ms: u64,
    /// Its id.
    pub id: Digest,
}

/// A piece of work with all that is needed to do it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The lease, to be renewed.
    pub lease: Lease,
    /// How long the lease lasts unless renewed.
    pub lease_ms: u64,
    /// How many leases on it were lost before. From [`MAX_LOST`](crate::lease::MAX_LOST) on it is taken to be what kills
    /// its workers, and given up if the job [can do without](crate::job::Work::can_give_up).
    #[serde(default)]
    pub lost: u32,
    /// The job.
    pub spec: JobSpec,
    /// How far it has come: the state to start from and the partials to fold.
    pub progress: Progress,
}

/// A worker, as a db node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSeen {
    /// Its name.
    pub worker: String,
    /// How many pieces it can work on at a time.
    pub capacity: u32,
    /// How many it works on.
    pub leases: u32,
    /// How long ago it was last heard of.
    pub age_ms: u64,
    /// Where it serves users, if it has said so.
    pub address: Option<core::net::SocketAddr>,
}

/// One entry of a list or of a watch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its id.
    pub id: Digest,
    /// When it was created, or the training that it is a model of: milliseconds since 1970.
    pub created_ms: u64,
    /// What is stored under it.
    pub record: Record,
    /// How many pieces of it workers are busy with.
    pub leased: u32,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It is there now.
    Created {
        /// Its id.
        id: Digest,
        /// Whether it was new.
        new: bool,
        /// How many nodes keep it.
        replicas: u32,
    },
    /// What was looked for has this id.
    Found(Digest),
    /// A page of a list.
    Page {
        /// The things.
        entries: Vec<Entry>,
        /// Where the next page begins, if there is one.
        next: Option<Cursor>,
    },
    /// A record, and its children.
    Family {
        /// To be named in the next watch.
        version: u64,
        /// The record itself comes first.
        entries: Vec<Entry>,
    },
    /// Pieces to work on; none if the wait was in vain.
    Work(Vec<Assignment>),
    /// Those of the leases that are no longer held.
    Lost(Vec<Lease>),
    /// Workers.
    Workers(Vec<WorkerSeen>),
    /// What a text may mean: ids, and when they were given it as a name; none where it is the beginning of the id.
    Matches(Vec<(Digest, Option<u64>)>),
    /// Where something is.
    Route(Route),
    /// What uses it, if anything does.
    Users(Option<String>),
    /// Leases.
    Leases(Vec<LeaseSeen>),
    /// Done; nothing to tell.
    Done,
    /// Not done.
    Refused(Refusal),
}

/// Where something is, as a node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The thing that it is part of, or itself.
    pub root: Digest,
    /// The active holder with the lowest address.
    pub owner: Option<NodeId>,
    /// Who holds it.
    pub holders: Vec<Holder>,
    /// How many copies there are to be.
    pub factor: u32,
}

/// A node that holds something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Which.
    pub node: NodeId,
    /// Where it is, if that is known.
    pub address: Option<core::net::SocketAddr>,
    /// Whether it is there.
    pub active: bool,
    /// What it holds.
    pub held: Held,
}

/// A lease, as the owner of the job knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseSeen {
    /// What is leased.
    pub slot: Slot,
    /// The worker that has it.
    pub worker: String,
    /// For how much longer, unless it is renewed.
    pub left_ms: u64,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No such thing.
    #[error("there is no {what} '{text}'")]
    NotFound {
        /// What was looked for.
        what: String,
        /// What was written.
        text: String,
    },
    /// Several ids begin so.
    #[error("'{text}' is the beginning of {count} ids: write more of it")]
    Ambiguous {
        /// What was written.
        text: String,
        /// How many.
        count: usize,
    },
    /// Something unfinished needs it.
    #[error("it is in use by {by}: wait until that is finished, or cancel or delete it first")]
    InUse {
        /// What needs it.
        by: String,
    },
    /// It is finished, or no training.
    #[error("only a training that is not finished can be cancelled")]
    NotCancellable,
    /// The lease is on a round that is over, or held by another: the result was not needed.
    #[error("this lease is no longer held")]
    StaleLease {
        /// Which.
        slot: Slot,
    },
    /// The nodes that hold it are not there.
    #[error("{id} is on nodes that do not answer now: {nodes}; it is back as soon as one of them is")]
    Unreachable {
        /// What was asked for.
        id: Digest,
        /// Those that hold it.
        nodes: String,
    },
    /// The node that was to answer did not.
    #[error("no db node that could do this answered in time: try again")]
    NoAnswer,
    /// There are fewer copies than were asked for.
    #[error(
        "it is on {copies} of {wanted} nodes only, and the others do not take it: see their logs, then try again"
    )]
    TooFewCopies {
        /// How many there are.
        copies: u32,
        /// How many there should be.
        wanted: u32,
    },
    /// The limit on names was reached.
    #[error("it has too many names already: use one of those")]
    TooManyNames,
}

/// The brain's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long a lease lasts unless it is renewed.
    pub lease: Duration,
    /// The longest that a request may wait.
    pub max_wait: Duration,
    /// How long a worker that says nothing is listed.
    pub forget_worker: Duration,
    /// How long a blob that nothing refers to is kept, for those who are reading or about to name it.
    pub blob_grace: Duration,
    /// How many copies of each thing there are to be.
    pub replication: u32,
    /// On how many nodes a write must be durable before it is acknowledged; as many as there are to be copies if none.
    pub write_copies: Option<u32>,
    /// How long another db node may take to answer, beyond what the request asks to wait.
    pub patience: Duration,
    /// How long a copy of a thing may take before another node is tried.
    pub copy_patience: Duration,
    /// How often rows and digests are compared with other nodes, which take turns.
    pub sweep: Duration,
    /// How long the note of a deletion is kept at the least.
    pub bury_after: Duration,
    /// Whether there are others to be met. A node that has met none yet does not take itself for everybody: it keeps
    /// the notes of deletions.
    pub expects_others: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(20),
            max_wait: Duration::from_secs(30),
            forget_worker: Duration::from_secs(3600),
            blob_grace: Duration::from_secs(60),
            replication: 3,
            write_copies: None,
            patience: Duration::from_secs(2),
            copy_patience: Duration::from_secs(10),
            sweep: Duration::from_secs(1),
            bury_after: Duration::from_secs(24 * 3600),
            expects_others: false,
        }
    }
}
