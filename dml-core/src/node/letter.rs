//! What db nodes say to each other. A letter may be lost, late or repeated: whoever needs an answer asks again.

use alloc::{boxed::Box, vec::Vec};

use serde::{Deserialize, Serialize};

use super::{LeaseSeen, Request, Response, Ticket};
use crate::{
    consistency::Summary,
    id::{self, Digest},
    lease::Lease,
    member::{Member, NodeId},
    record::{Body, Record},
    routing::{Change, Version},
};

/// The version of the format of letters that this code writes.
pub(super) const VERSION: u8 = 1;

/// A message with what tells it from those of other lives of its sender and its receiver: those are not heard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// The version of this format.
    pub v: u8,
    /// Who says it.
    pub from: NodeId,
    /// In which of its lives.
    pub generation: u32,
    /// Whom it is meant for: another may be at the same address by now.
    pub to: NodeId,
    /// In which of its lives.
    pub life: u32,
    /// All copies that the sender numbered lower are settled: what still arrives of them is not heard.
    pub floor: u64,
    /// What is said.
    pub message: Message,
}

impl Letter {
    /// The blobs that must be at the receiver before the letter is handed to its [`Node`](super::Node); the sender has
    /// them.
    pub fn blobs(&self) -> Vec<Digest> {
        match &self.message {
            Message::Ask { request, .. } => request.blobs(),
            Message::Copy { families, .. } => {
                let records = families.iter().flat_map(|family| &family.records);
                id::distinct(records.filter_map(|(_, record)| record.body.as_ref()).flat_map(Body::blobs))
            }
            Message::Answer { .. } | Message::Withdraw { .. } | Message::Offer(_) => Vec::new(),
            Message::Row { .. } | Message::RowWanted { .. } | Message::Copied { .. } => Vec::new(),
            Message::Handover { .. } | Message::Missing { .. } | Message::Noted { .. } => Vec::new(),
            Message::Compare { .. } | Message::Differ { .. } | Message::Want { .. } => Vec::new(),
            Message::MayBury { .. } | Message::Buriable { .. } | Message::Bury { .. } => Vec::new(),
        }
    }
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Somebody asked the sender for this, and the receiver is to answer.
    Ask {
        /// To be named in the answer.
        ticket: Ticket,
        /// What is asked.
        request: Box<Request>,
        /// When, for people.
        time_ms: u64,
    },
    /// The answer.
    Answer {
        /// Of the question.
        ticket: Ticket,
        /// What it is.
        response: Response,
    },
    /// Nobody waits for the answer any more.
    Withdraw {
        /// Of the question.
        ticket: Ticket,
    },
    /// How much work the sender has to hand out.
    Offer(Offer),
    /// What has changed of what the sender holds.
    Row {
        /// The version of the row to which the changes lead from `since`; from nothing, if that is none.
        version: Version,
        /// The version that the receiver must have.
        since: Option<Version>,
        /// What has changed.
        changes: Vec<Change>,
    },
    /// The receiver is to send what has changed of its row since this version.
    RowWanted {
        /// What the sender has of it.
        since: Option<Version>,
    },
    /// Records for the receiver to keep.
    Copy {
        /// Names the letter in [`Message::Copied`].
        batch: u64,
        /// The records, by the thing that they are part of.
        families: Vec<Family>,
    },
    /// The records of a [`Message::Copy`] are durable here.
    Copied {
        /// Which.
        batch: u64,
        /// All but these: something newer is here, or what they belong to is not.
        refused: Vec<Digest>,
    },
    /// The sender does not own this any more and the receiver does: these are the leases on it.
    Handover {
        /// The thing.
        root: Digest,
        /// Who holds what.
        leases: Vec<(Lease, LeaseSeen)>,
        /// How often it was passed on, as ownership had moved further.
        hops: u8,
    },
    /// Nodes that were seen and are not there: what they hold may be older than what was deleted since.
    Missing {
        /// Which.
        members: Vec<Member>,
    },
    /// The receiver need not say again that these are missing.
    Noted {
        /// Of a [`Message::Missing`].
        members: Vec<NodeId>,
    },
    /// The owner's summary of what it believes both hold.
    Compare {
        /// Names the comparison in the answer.
        number: u64,
        /// By the first byte of the ids.
        summary: Summary,
    },
    /// What a replica has in those parts where its summary differs from the owner's.
    Differ {
        /// The comparison.
        number: u64,
        /// The parts.
        parts: Vec<u8>,
        /// Root and digest of each family.
        held: Vec<(Digest, Digest)>,
    },
    /// The receiver is to send all records of these.
    Want {
        /// The roots.
        roots: Vec<Digest>,
    },
    /// May the tombstones of these lives be forgotten?
    MayBury {
        /// Root and life.
        dead: Vec<(Digest, u64)>,
    },
    /// Those of them that the sender knows to be dead, or does not know at all.
    Buriable {
        /// Root and life.
        dead: Vec<(Digest, u64)>,
    },
    /// Every node agrees: forget them.
    Bury {
        /// Root and life.
        dead: Vec<(Digest, u64)>,
    },
}

/// Records of one thing: a dataset, a training with its jobs, a prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Family {
    /// The thing.
    pub root: Digest,
    /// Its life at the sender: what belongs to an earlier life than the receiver's is not heard.
    pub life: u64,
    /// Records of it, whole or only what is new in them.
    pub records: Vec<(Digest, Record)>,
}

/// How much work a node has to hand out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Jobs with pieces that are free.
    pub jobs: u32,
    /// The greatest priority among them.
    pub priority: i32,
}
