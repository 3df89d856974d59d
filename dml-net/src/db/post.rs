//! Letters to other db nodes. Each node has a queue, and a request whose body goes on while letters gather there, so that
//! a busy cluster sends many letters at the price of one. A letter that cannot be delivered is lost: the brain asks again.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::{Body, BodyDataStream, Bytes};
use bytes::{Buf, BytesMut};
use dml_core::{
    member::{Member, NodeId},
    node::Letter,
};
use futures_util::{StreamExt, stream};
use hyper::{Request, StatusCode, header};
use serde::{Deserialize, de::IgnoredAny};
use tokio::{
    sync::{OwnedMutexGuard, mpsc},
    time::Instant,
};

use crate::{
    link::exchange::{Patience, Silence, converse},
    membership::Membership,
    peer::{Dial, Peer},
    problem::Problem,
};

use super::meters::Meters;

/// Where letters are posted.
pub(crate) const PATH: &str = "/v1/letters";

/// In which format: see [`pack`].
pub(crate) const FORMAT: &str = "application/vnd.dml.letters";

/// How many bytes tell the length of what follows.
const HEAD: usize = 4;

/// The longest letter, in bytes.
const MAX_LETTER: usize = 256 << 20;

/// How many bundles of letters, each written at one time, may wait for a node; the next ones are lost.
const QUEUE: usize = 1024;

/// With so many letters at a time the next bundles are sent after them.
const MOST: usize = 512;

/// How long a request goes on taking letters, and how long it waits for the next ones: who has much to say makes few
/// requests, and one that fails takes little with it.
const OPEN: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_millis(100);

/// How many requests with letters may be on their way to a node: while one is not answered, the next one goes on.
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
        let mut queue = queue.clone().lock_owned().await;
        let Some(first) = queue.recv().await else { return };
        let (patience, count) = (Patience::new(QUIET), Arc::<AtomicU64>::default());
        let end = Instant::now() + OPEN;
        let round =
            Round { queue, first: Some(first), end, patience: patience.clone(), count: count.clone() };
        let body = Body::from_stream(stream::unfold(round, Round::next));
        let request = Request::post(PATH).header(header::CONTENT_TYPE, FORMAT).body(body);
        let answer = converse(&peer, request.expect("our path and header are plain"), &patience, QUIET).await;
        let count = count.load(Ordering::Relaxed);
        match answer {
            Ok((status, _)) if status.is_success() => {
                meters.letters_sent.add(count);
                membership.answered(to);
            }
            Ok((status, _)) => {
                meters.letters_lost.add(count);
                tracing::warn!(node = %to, %status, "letters were not taken");
            }
            Err(silence) => {
                meters.letters_lost.add(count);
                if let Silence::Peer(error) = &silence
                    && error.is_refused()
                {
                    membership.refused(to);
                }
                tracing::debug!(node = %to, %silence, count, "letters were lost");
            }
        }
    }
}

/// The letters of one request. While it goes on no other request takes from the queue.
struct Round {
    queue: OwnedMutexGuard<mpsc::Receiver<Vec<Letter>>>,
    first: Option<Vec<Letter>>,
    end: Instant,
    patience: Patience,
    /// How many letters there were.
    count: Arc<AtomicU64>,
}

impl Round {
    /// The next part of the body: the letters that have gathered. None ends it.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        self.patience.extend(IDLE + QUIET);
        let mut letters = match self.first.take() {
            Some(first) => first,
            None if Instant::now() >= self.end => return None,
            None => tokio::time::timeout(IDLE, self.queue.recv()).await.ok().flatten()?,
        };
        while letters.len() < MOST
            && let Ok(more) = self.queue.try_recv()
        {
            letters.extend(more);
        }
        self.count.fetch_add(letters.len() as u64, Ordering::Relaxed);
        Some((Ok(pack(&letters)), self))
    }
}

/// Letters as they go over the wire: of each its length in four bytes, the lowest first, and the letter in MessagePack, in
/// which fields have names, so that versions can differ, and digests are bytes, not text.
pub(crate) fn pack(letters: &[Letter]) -> Bytes {
    let mut bytes = Vec::new();
    for letter in letters {
        let start = bytes.len() + HEAD;
        bytes.extend([0; HEAD]);
        rmp_serde::encode::write_named(&mut bytes, letter).expect("letters are written to memory");
        let length = u32::try_from(bytes.len() - start).expect("records are limited");
        bytes[start - HEAD..start].copy_from_slice(&length.to_le_bytes());
    }
    bytes.into()
}

/// Reads what [`pack`] has written, as it comes in: at least one letter.
pub(super) struct Unpack {
    body: BodyDataStream,
    bytes: BytesMut,
    has_begun: bool,
}

/// A letter that has come.
#[derive(Debug, PartialEq)]
pub(super) enum Received {
    /// It says what this program knows.
    Letter(Letter),
    /// A newer program of this node says something that this one does not know: whatever needs an answer finds another.
    Unknown(NodeId),
}

impl Unpack {
    pub(super) fn new(body: Body) -> Self {
        Self { body: body.into_data_stream(), bytes: BytesMut::new(), has_begun: false }
    }

    /// The next letter; none after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Received>, Problem> {
        loop {
            if let Some((head, rest)) = self.bytes.split_first_chunk::<HEAD>() {
                let length = u32::from_le_bytes(*head) as usize;
                if length > MAX_LETTER {
                    let detail = format!("a letter of {length} bytes is longer than {MAX_LETTER}");
                    return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail));
                }
                if let Some(packed) = rest.get(..length) {
                    let letter = read(packed)?;
                    self.bytes.advance(HEAD + length);
                    self.has_begun = true;
                    return Ok(Some(letter));
                }
            }
            match self.body.next().await {
                Some(Ok(part)) => self.bytes.extend_from_slice(&part),
                Some(Err(error)) => return Err(bad(format!("the letters broke off: {error}"))),
                None if self.bytes.is_empty() && self.has_begun => return Ok(None),
                None => return Err(bad("they end before the last of them is whole".into())),
            }
        }
    }
}

/// Reads a letter. One that is a letter, and says what only newer programs know, must not cost those that came with it.
fn read(packed: &[u8]) -> Result<Received, Problem> {
    /// What all letters have.
    #[derive(Deserialize)]
    struct Envelope {
        from: NodeId,
        #[serde(rename = "v")]
        _version: u8,
        #[serde(rename = "message")]
        _message: IgnoredAny,
    }
    match rmp_serde::from_slice(packed) {
        Ok(letter) => Ok(Received::Letter(letter)),
        Err(error) => match rmp_serde::from_slice(packed) {
            Ok(Envelope { from, .. }) => Ok(Received::Unknown(from)),
            Err(_) => Err(bad(format!("this is no letter: {error}"))),
        },
    }
}

fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-letters", detail)
}

#[cfg(test)]
mod tests {
    use dml_core::node::Message;
    use serde_json::json;

    use super::*;

    fn letters(batches: core::ops::Range<u64>) -> Vec<Letter> {
        let letter = |batch| Letter {
            v: 1,
            from: NodeId::new(1),
            generation: 1,
            to: NodeId::new(2),
            life: 1,
            floor: 0,
            message: Message::Copied { batch, refused: Vec::new() },
        };
        batches.map(letter).collect()
    }

    async fn unpack(parts: Vec<Vec<u8>>) -> Result<Vec<Received>, StatusCode> {
        let parts = parts.into_iter().map(|part| Ok::<_, Infallible>(Bytes::from(part)));
        let (mut body, mut all) = (Unpack::new(Body::from_stream(stream::iter(parts))), Vec::new());
        while let Some(letter) =
            body.next().await.map_err(|problem| StatusCode::from_u16(problem.status).expect("a status"))?
        {
            all.push(letter);
        }
        Ok(all)
    }

    /// Nodes of this version read it for ever.
    #[test]
    fn what_goes_over_the_wire_is_golden() {
        let hex: String = pack(&letters(0..1)).iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = concat!(
            "66000000",
            "87",
            "a176",
            "01",
            "a466726f6d",
            "af64622d303030303030303030303031",
            "aa67656e65726174696f6e",
            "01",
            "a2746f",
            "af64622d303030303030303030303032",
            "a46c696665",
            "01",
            "a5666c6f6f72",
            "00",
            "a76d657373616765",
            "81",
            "a6636f70696564",
            "82",
            "a56261746368",
            "00",
            "a772656675736564",
            "90"
        );
        assert_eq!(hex, golden);
    }

    #[tokio::test]
    async fn letters_arrive_as_they_were_packed_wherever_the_network_cuts() {
        let all: Vec<_> = letters(0..4).into_iter().map(Received::Letter).collect();
        let bytes = [pack(&letters(0..3)), pack(&[]), pack(&letters(3..4))].concat();
        for size in [1, 3, 7, 100, bytes.len()] {
            assert_eq!(
                unpack(bytes.chunks(size).map(<[u8]>::to_vec).collect()).await.as_ref(),
                Ok(&all),
                "{size}"
            );
        }
        for length in 0..bytes.len() {
            let cut = unpack(vec![bytes[..length].to_vec()]).await;
            let at_an_end = cut.as_ref().is_ok_and(|some| !some.is_empty() && all.starts_with(some));
            assert!(at_an_end || cut == Err(StatusCode::UNPROCESSABLE_ENTITY), "cut at {length}");
        }
        let absurd = unpack(vec![u32::MAX.to_le_bytes().to_vec()]).await;
        assert_eq!(absurd, Err(StatusCode::PAYLOAD_TOO_LARGE));
    }

    #[tokio::test]
    async fn what_only_newer_nodes_say_costs_nothing_of_what_came_with_it() {
        let newer = |message| {
            let letter = json!({
                "v": 1, "from": NodeId::new(1), "generation": 1, "to": NodeId::new(2), "life": 1, "floor": 0,
                "mood": "calm", "message": message,
            });
            let packed = rmp_serde::to_vec_named(&letter).expect("plain values");
            [&u32::try_from(packed.len()).expect("few").to_le_bytes()[..], &packed].concat()
        };
        let bytes = [
            pack(&letters(0..1)).to_vec(),
            newer(json!({ "telepathy": { "thoughts": [[1, 2], "three"] } })),
            newer(json!({ "copied": { "batch": 1, "refused": [], "warmth": 0.5 } })),
        ];
        let mut heard = letters(0..2).into_iter().map(Received::Letter);
        let expected = [heard.next(), Some(Received::Unknown(NodeId::new(1))), heard.next()];
        assert_eq!(unpack(bytes.to_vec()).await, Ok(expected.into_iter().flatten().collect()));
    }

    /// How many letters a request takes, and for how long, when they come after these pauses.
    async fn round(pauses: impl Iterator<Item = Duration> + Send + 'static) -> (u64, Duration) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let queue = Arc::new(tokio::sync::Mutex::new(queue)).lock_owned().await;
        let (patience, count) = (Patience::new(QUIET), Arc::<AtomicU64>::default());
        let (start, first) = (Instant::now(), Some(letters(0..1)));
        let round = Round { queue, first, end: start + OPEN, patience, count: count.clone() };
        let sending = tokio::spawn(async move {
            for pause in pauses {
                tokio::time::sleep(pause).await;
                sender.send(letters(0..1)).await.expect("somebody takes letters");
            }
            std::future::pending::<()>().await;
        });
        stream::unfold(round, Round::next).count().await;
        sending.abort();
        (count.load(Ordering::Relaxed), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_goes_on_while_letters_come_and_has_an_end() {
        assert_eq!(round([].into_iter()).await, (1, IDLE));
        assert_eq!(round([IDLE / 2, IDLE / 2, IDLE * 2].into_iter()).await, (3, IDLE * 2));
        let (count, time) = round(std::iter::repeat(IDLE / 10)).await;
        assert!(time >= OPEN && time < OPEN + IDLE && count > 90, "{count} in {time:?}");
    }
}
