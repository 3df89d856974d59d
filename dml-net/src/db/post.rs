//! Letters to other db nodes. Each node has a queue and a task that sends what has gathered there in one request, so a
//! busy cluster sends many letters at the price of one. A letter that cannot be delivered is lost: the brain asks again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Bytes;
use dml_core::{
    member::{Member, NodeId},
    node::Letter,
};
use tokio::sync::mpsc;

use crate::{
    link::exchange::{Question, Silence, exchange},
    membership::Membership,
    peer::{Dial, Peer},
};

use super::meters::Meters;

/// Where letters are posted.
pub(crate) const PATH: &str = "/v1/letters";

/// In which format: fields have names, so that versions can differ, and digests are bytes, not text.
pub(super) const FORMAT: &str = "application/msgpack";

/// How many bundles of letters, each written at one time, may wait for a node; the next ones are lost.
const QUEUE: usize = 1024;

/// With so many letters in a request the next bundles go into another one.
const MOST: usize = 512;

/// How many requests with letters may be on their way to a node: while one is slow, those after it are not held up.
const LINES: usize = 3;

/// How long a node may take to take letters in.
const QUIET: Duration = Duration::from_secs(2);

/// The lines to other db nodes.
#[derive(Clone)]
pub(super) struct Post {
    dial: Dial,
    membership: Membership,
    meters: Arc<Meters>,
    lines: Arc<Mutex<BTreeMap<NodeId, Line>>>,
}

/// The line to a node in one of its lives.
struct Line {
    member: Member,
    letters: mpsc::Sender<Vec<Letter>>,
}

impl Post {
    pub(super) fn new(dial: Dial, membership: Membership, meters: Arc<Meters>) -> Self {
        Self { dial, membership, meters, lines: Arc::default() }
    }

    /// A node is at this address now.
    pub(super) fn connect(&self, member: Member) {
        let mut lines = self.lines.lock().expect("nobody panics while holding it");
        if lines.get(&member.id).is_some_and(|line| line.member == member) {
            return;
        }
        let (letters, queue) = mpsc::channel(QUEUE);
        let queue = Arc::new(tokio::sync::Mutex::new(queue));
        for _ in 0..LINES {
            let peer = self.dial.peer(member.address);
            let (membership, meters) = (self.membership.clone(), self.meters.clone());
            tokio::spawn(carry(queue.clone(), peer, member.id, membership, meters));
        }
        lines.insert(member.id, Line { member, letters });
    }

    /// Sends letters that were written at the same time.
    pub(super) fn send(&self, to: NodeId, letters: Vec<Letter>) {
        let lines = self.lines.lock().expect("nobody panics while holding it");
        let count = letters.len();
        if let Some(line) = lines.get(&to)
            && line.letters.try_send(letters).is_err()
        {
            self.meters.letters_lost.add(count as u64);
            tracing::debug!(node = %to, count, "letters were lost: too many wait");
        }
    }

    /// The node itself, to be asked for blobs; none if it was never met.
    pub(super) fn peer(&self, id: NodeId) -> Option<Peer> {
        let lines = self.lines.lock().expect("nobody panics while holding it");
        lines.get(&id).map(|line| self.dial.peer(line.member.address))
    }

    /// All nodes that are there, as far as is known.
    pub(super) fn active(&self) -> Vec<NodeId> {
        let active = self.membership.nodes().into_iter();
        active.filter(|node| node.health.is_active()).map(|node| node.member.id).collect()
    }
}

/// Carries letters until the line is given up.
async fn carry(
    queue: Arc<tokio::sync::Mutex<mpsc::Receiver<Vec<Letter>>>>,
    peer: Peer,
    to: NodeId,
    membership: Membership,
    meters: Arc<Meters>,
) {
    loop {
        let letters = {
            let mut queue = queue.lock().await;
            let Some(mut letters) = queue.recv().await else { return };
            while letters.len() < MOST
                && let Ok(more) = queue.try_recv()
            {
                letters.extend(more);
            }
            letters
        };
        let body = Bytes::from(rmp_serde::to_vec_named(&letters).expect("letters are written to memory"));
        let question = Question::post(PATH, FORMAT, body);
        match exchange(&peer, &question, QUIET).await {
            Ok((status, _)) if status.is_success() => {
                meters.letters_sent.add(letters.len() as u64);
                membership.answered(to);
            }
            Ok((status, _)) => {
                meters.letters_lost.add(letters.len() as u64);
                tracing::warn!(node = %to, %status, "letters were not taken: other versions?");
            }
            Err(silence) => {
                meters.letters_lost.add(letters.len() as u64);
                if let Silence::Peer(error) = &silence
                    && error.is_refused()
                {
                    membership.refused(to);
                }
                tracing::debug!(node = %to, %silence, count = letters.len(), "letters were lost");
            }
        }
    }
}
