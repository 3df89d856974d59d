//! The whole behaviour of a db node, as a value: [`Node::handle`] takes an event and the time, and says what to do;
//! [`Node::deadline`] says when it wants to be called again. A call before the deadline is harmless.
//!
//! Records are all in memory, and on disk as the shell is told to persist them. A change is acknowledged when it is
//! durable. Blobs are the shell's: the brain knows only which are referred to.

mod asks;
mod catalogue;
mod copies;
mod gather;
mod journal;
mod letter;
mod message;
mod owned;
mod peers;
mod sweep;
mod tally;
mod work;

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::{String, ToString},
    vec::Vec,
};
use core::time::Duration;

pub use catalogue::MAX_NAMES;
pub use letter::{Family, Letter, Message, Offer};
pub use message::{
    Assignment, Claim, Cursor, Effect, Entry, Event, Holder, LeaseSeen, Outcome, Refusal, Request, Response,
    Route, Settings, Ticket, WorkerSeen,
};
pub use tally::{Done, Tally};

use crate::{
    id::Digest,
    lease::Leases,
    member::{Member, NodeId},
    planted::{self, Bug},
    record::{Body, Record},
    rng,
    routing::{Held, OwnRow, Routing},
    schedule::Shares,
};
use asks::Asks;
use catalogue::Catalogue;
use copies::{Awaiting, Changes};
use journal::Journal;
use owned::Handover;
use peers::Peer;
use sweep::Sweep;

/// A request that waits for something to happen.
struct Waiting<T> {
    what: T,
    until: Duration,
}

/// A claim that waits for work.
struct WaitingClaim {
    what: Claim,
    until: Duration,
    /// Whether another node has been asked for it.
    asking: bool,
}

/// A worker, as it was last heard of.
struct Seen {
    at: Duration,
    capacity: u32,
    address: Option<core::net::SocketAddr>,
}

/// The brain of a db node.
pub struct Node {
    settings: Settings,
    me: Member,
    /// The time of the event at hand.
    now: Duration,
    /// What is to be done about it.
    out: Vec<Effect>,
    catalogue: Catalogue,
    leases: Leases,
    shares: Shares,
    workers: BTreeMap<String, Seen>,
    /// How many changes there were when each thing, children included, changed last; only of what was changed since
    /// the node started and is still there.
    versions: BTreeMap<Digest, u64>,
    /// The version of what was not changed since the node started: above all versions of its earlier lives.
    first_version: u64,
    changes: u64,
    claims: BTreeMap<Ticket, WaitingClaim>,
    watches: BTreeMap<Ticket, Waiting<(Digest, u64)>>,
    writes: u64,
    /// What follows when a write is durable; those that are on their way.
    unwritten: BTreeMap<u64, Unwritten>,
    /// What the event at hand has changed.
    journal: Journal,
    /// Blobs without a reference, and when they go.
    doomed: Doomed,
    /// The other db nodes, and who holds what.
    peers: BTreeMap<NodeId, Peer>,
    row: OwnRow,
    routing: Routing,
    /// The things on which this node hands out work.
    owned: BTreeSet<Digest>,
    handovers: BTreeMap<Digest, Handover>,
    asks: Asks,
    /// What has changed by the event at hand and is to be told to the other holders.
    news: Changes,
    /// Writes that wait for copies.
    awaiting: Vec<Awaiting>,
    /// Things whose holders have changed; those that may lack copies; and where copies are going.
    unchecked: BTreeSet<Digest>,
    lacking: BTreeSet<Digest>,
    planned: BTreeMap<Digest, BTreeMap<NodeId, Duration>>,
    sweep: Sweep,
    /// How much this node gave of its work: see `work.rs`.
    turn: u64,
    /// What this node has done; its leases count for themselves.
    done: Done,
}

/// What waits for a write.
#[derive(Default)]
struct Unwritten {
    answers: Vec<(Ticket, Response)>,
    /// The blobs to which the records written before still refer.
    unreferred: BTreeSet<Digest>,
    /// What this node holds then.
    held: BTreeMap<Digest, Held>,
    /// The copies that are durable then, and whose they are.
    copied: Vec<(NodeId, u64, Vec<Digest>)>,
}

/// When blobs go, by blob and by time.
#[derive(Default)]
struct Doomed {
    times: BTreeMap<Digest, Duration>,
    queue: BTreeSet<(Duration, Digest)>,
}

impl Doomed {
    fn insert(&mut self, blob: Digest, at: Duration) {
        if let Some(before) = self.times.insert(blob, at) {
            self.queue.remove(&(before, blob));
        }
        self.queue.insert((at, blob));
    }

    fn next(&self) -> Option<Duration> {
        self.queue.first().map(|(at, _)| *at)
    }

    fn pop_due(&mut self, now: Duration) -> Option<Digest> {
        let (_, blob) = self.queue.first().copied().filter(|(at, _)| *at <= now)?;
        self.queue.pop_first();
        self.times.remove(&blob);
        Some(blob)
    }
}

impl Node {
    /// The node `me` that holds these records. Its generation counts its starts, so that leases and letters of an earlier
    /// life are told from those of this one.
    pub fn new(settings: Settings, me: Member, records: impl IntoIterator<Item = (Digest, Record)>) -> Self {
        // Numbers of other nodes and other lives differ, but for rare chance, which does no harm.
        let first = (rng::mix(me.id.number()) << 48) | (u64::from(me.generation & 0xffff) << 32);
        let mut node = Self {
            leases: Leases::new(settings.lease, first),
            settings,
            now: Duration::ZERO,
            out: Vec::new(),
            catalogue: Catalogue::default(),
            shares: Shares::default(),
            workers: BTreeMap::new(),
            versions: BTreeMap::new(),
            first_version: first + 1,
            changes: first + 1,
            claims: BTreeMap::new(),
            watches: BTreeMap::new(),
            writes: 0,
            unwritten: BTreeMap::new(),
            journal: Journal::default(),
            doomed: Doomed::default(),
            peers: BTreeMap::new(),
            row: OwnRow::new(me.generation),
            routing: Routing::default(),
            owned: BTreeSet::new(),
            handovers: BTreeMap::new(),
            asks: Asks::default(),
            news: BTreeMap::new(),
            awaiting: Vec::new(),
            unchecked: BTreeSet::new(),
            lacking: BTreeSet::new(),
            planned: BTreeMap::new(),
            sweep: Sweep::default(),
            turn: 0,
            done: Done::default(),
            me,
        };
        node.journal.read(&mut node.catalogue, records);
        let roots: Vec<Digest> = node.catalogue.roots().collect();
        for root in roots {
            let is_alive = node.catalogue.body(&root).is_some();
            node.hold(root, if is_alive { Held::Alive } else { Held::Dead });
            node.check_owner(root);
        }
        node
    }

    /// Takes an event in, and acts on it.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        self.take(now, event);
        self.act()
    }

    /// Takes an event in. What follows from it is said by [`Self::act`], which is to be called at once; but a node that has
    /// much to do may first take in all that has arrived, and so writes, sends and looks through its queues once for all.
    pub fn take(&mut self, now: Duration, event: Event) {
        self.now = now;
        if let Event::Request { time_ms, .. } = &event
            && planted::is(Bug::WallClockLease)
        {
            self.now = Duration::from_millis(*time_ms);
        }
        match event {
            Event::Request { ticket, request, time_ms } => self.request(ticket, request, time_ms),
            Event::Gone(ticket) => self.gone(ticket),
            Event::Persisted(write) => self.persisted(write),
            Event::Letter(letter) => self.read(letter),
            Event::Active(member) => self.joined(member),
            Event::Inactive(id) => self.parted(id),
            Event::Tick => {}
        }
    }

    /// Says what is to be done after the events that were taken in.
    pub fn act(&mut self) -> Vec<Effect> {
        self.expire();
        self.expire_asks();
        self.expire_copies();
        self.expire_handovers();
        self.sweep();
        self.check_some();
        self.spread(None);
        let changed = self.persist();
        self.acknowledge();
        self.hand_out();
        self.offer_work();
        self.tell_row();
        self.send_copies();
        self.tell_watchers(changed);
        self.discard();
        core::mem::take(&mut self.out)
    }

    /// When [`Event::Tick`] is wanted; none while there is nothing to wait for.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let claims = self.claims.values().filter(|waiting| !waiting.asking).map(|waiting| waiting.until);
        let watches = self.watches.values().map(|waiting| waiting.until);
        let waits = claims.chain(watches).chain(self.doomed.next()).chain(self.leases.deadline());
        let waits = waits.chain(self.asks_deadline()).chain(self.copies_deadline());
        let waits = waits.chain(self.handovers_deadline()).chain(self.sweep_deadline());
        let unchecked = (!self.unchecked.is_empty()).then_some(now + Duration::from_millis(1));
        waits.chain(unchecked).min().map(|at| at.max(now))
    }

    /// How often two copies contradicted each other: an alarm, for it means corruption, or a unit that is no function.
    pub fn divergences(&self) -> u64 {
        self.done.divergences
    }

    /// The record under an id, deleted ones included.
    pub fn record(&self, id: &Digest) -> Option<&Record> {
        self.catalogue.get(id)
    }

    /// Whose certificates are not trusted any more.
    pub fn revoked(&self) -> impl Iterator<Item = &str> {
        self.catalogue.revoked()
    }

    /// How many nodes are to keep a thing.
    fn factor(&self, root: &Digest) -> u32 {
        match self.catalogue.body(root) {
            // Each has to know by itself whom not to trust, also when nobody else is there.
            Some(Body::Revocation(_)) => u32::MAX,
            Some(Body::Dataset(_) | Body::Training(_) | Body::Study(_) | Body::Job(_) | Body::Token(_))
            | None => self.settings.replication,
        }
    }

    /// Whether a record refers to this blob.
    pub fn refers_to(&self, blob: &Digest) -> bool {
        self.catalogue.refers_to(blob)
    }

    /// Does what is asked, here.
    fn serve(&mut self, ticket: Ticket, request: Request, time_ms: u64) {
        let now = self.now;
        let wait = |ms| now + Duration::from_millis(ms).min(self.settings.max_wait);
        let response = match request {
            Request::Create { body, name } => return self.create(ticket, body, name, time_ms),
            Request::Cancel { id } => return self.cancel(ticket, id),
            Request::Delete { id } => return self.delete(ticket, id),
            Request::Redeem { id } => return self.redeem(ticket, id),
            Request::Watch { id, seen, wait_ms } => {
                let until = wait(wait_ms);
                match self.family(id, seen) {
                    None if until > now => {
                        self.watches.insert(ticket, Waiting { what: (id, seen), until });
                        return;
                    }
                    None => self.family(id, 0).expect("any family is newer than none"),
                    Some(response) => response,
                }
            }
            Request::Claim(claim) => {
                let until = wait(claim.wait_ms);
                let seen = Seen { at: now, capacity: claim.capacity, address: claim.address };
                self.workers.insert(claim.worker.clone(), seen);
                self.claims.insert(ticket, WaitingClaim { what: claim, until, asking: false });
                return;
            }
            Request::Report { lease, outcome } => {
                self.heard(&lease);
                let response = self.report(lease, outcome);
                return self.answer_durable(ticket, response);
            }
            Request::Leases { id } => self.list_leases(id),
            // These never come this far: they are answered by many nodes, or from the table.
            Request::Renew { .. } | Request::Leave { .. } | Request::Route { .. } => Response::Done,
            Request::Find { .. } | Request::List { .. } | Request::Workers => Response::Done,
            Request::Locate { .. } | Request::Users { .. } => Response::Done,
        };
        self.answer(ticket, response);
    }

    /// Answers as soon as all that was changed until now is durable here: also what an earlier request has changed, on
    /// which this one relies.
    fn answer_durable(&mut self, ticket: Ticket, response: Response) {
        let last = self.unwritten.keys().next_back().copied();
        match if self.journal.is_empty() { last } else { Some(self.writes + 1) } {
            Some(write) => self.unwritten.entry(write).or_default().answers.push((ticket, response)),
            None => self.answer(ticket, response),
        }
    }

    /// A write is durable, and so are those before it.
    fn persisted(&mut self, write: u64) {
        let later = self.unwritten.split_off(&(write + 1));
        for written in core::mem::replace(&mut self.unwritten, later).into_values() {
            for (root, held) in written.held {
                self.hold(root, held);
            }
            for (ticket, response) in written.answers {
                self.answer(ticket, response);
            }
            for (node, batch, refused) in written.copied {
                self.send(node, Message::Copied { batch, refused });
            }
            for blob in written.unreferred {
                self.doomed.insert(blob, self.now + self.settings.blob_grace);
            }
        }
    }

    /// The workers that this node has heard of, or that hold leases of it.
    pub fn workers(&self) -> Vec<WorkerSeen> {
        let leases = self.leases.workers();
        let mut all: BTreeMap<&str, WorkerSeen> = BTreeMap::new();
        for (worker, seen) in &self.workers {
            all.insert(
                worker,
                WorkerSeen {
                    worker: worker.clone(),
                    capacity: seen.capacity,
                    leases: 0,
                    age_ms: self.now.saturating_sub(seen.at).as_millis() as u64,
                    address: seen.address,
                },
            );
        }
        for (worker, (count, until)) in leases {
            // Of who renews through other nodes, the leases tell when that was.
            let renewed = until.saturating_sub(self.settings.lease);
            let unseen = || WorkerSeen {
                worker: worker.into(),
                capacity: 0,
                leases: 0,
                age_ms: self.now.saturating_sub(renewed).as_millis() as u64,
                address: None,
            };
            all.entry(worker).or_insert_with(unseen).leases = count;
        }
        all.into_values().collect()
    }

    /// Writes down what the event has changed. Says whether that was anything.
    fn persist(&mut self) -> bool {
        if self.journal.is_empty() {
            return false;
        }
        self.writes += 1;
        self.changes += 1;
        let roots: BTreeSet<Digest> = self.journal.changed().map(|id| self.catalogue.root(id)).collect();
        let mut held = BTreeMap::new();
        for root in roots {
            self.stir(&root);
            let state = match self.catalogue.get(&root).map(|record| record.body.is_some()) {
                Some(true) => Held::Alive,
                Some(false) => Held::Dead,
                None => Held::Gone,
            };
            held.insert(root, state);
            match state {
                Held::Alive => self.versions.insert(root, self.changes),
                Held::Dead | Held::Gone => self.versions.remove(&root),
            };
        }
        let records = self.journal.take(&self.catalogue);
        self.out.push(Effect::Persist { write: self.writes, records });
        let unwritten = self.unwritten.entry(self.writes).or_default();
        (unwritten.unreferred, unwritten.held) = (self.catalogue.take_unreferred(), held);
        true
    }

    /// Everything that follows from a record: what is missing below it, and which jobs are open.
    fn follow(&mut self, id: Digest) {
        let root = self.catalogue.root(id);
        if !self.owned.contains(&root) {
            return;
        }
        self.reconcile(root);
        let wanted = self.catalogue.wanted(root);
        for member in self.catalogue.family(root) {
            let job = self.catalogue.job(&member).filter(|job| job.is_open());
            let open = job.is_some_and(|job| job.spec.parent.is_none() || wanted.contains(&member));
            if open { self.open(member) } else { self.close(member) }
        }
    }

    /// Creates the missing children of what goes on.
    fn reconcile(&mut self, id: Digest) {
        let Some(parent) = self.catalogue.parent(&id).filter(|parent| !parent.is_cancelled()) else { return };
        for spec in parent.reconcile(|job| self.catalogue.job(job)) {
            let record = Record::new(Body::Job(crate::job::Job::new(spec)));
            let child = record.body.as_ref().expect("it was made with a body").id();
            self.catalogue.put(child, record);
            self.note(child, None);
        }
    }

    /// A change of `id` is to be written down and told; all that follows from it is done.
    fn changed(&mut self, id: Digest) {
        let root = self.catalogue.root(id);
        self.note(id, None);
        self.unchecked.insert(root);
        if self.owned.contains(&root) { self.follow(root) } else { self.check_owner(root) }
    }

    /// Answers those who watch what has changed, and those who waited long enough.
    fn tell_watchers(&mut self, changed: bool) {
        let watches = self.watches.iter().filter(|(_, watch)| changed || watch.until <= self.now);
        let due = watches.filter_map(|(ticket, Waiting { what: (id, seen), until })| {
            let seen = if *until <= self.now { 0 } else { *seen };
            Some((*ticket, self.family(*id, seen)?))
        });
        for (ticket, response) in due.collect::<Vec<_>>() {
            self.watches.remove(&ticket);
            self.answer(ticket, response);
        }
    }

    fn discard(&mut self) {
        let due = core::iter::from_fn(|| self.doomed.pop_due(self.now));
        let is_written =
            |blob: &Digest| !self.unwritten.values().any(|write| write.unreferred.contains(blob));
        let gone = due.filter(|blob| !self.catalogue.refers_to(blob) && is_written(blob));
        let mut gone: Vec<Digest> = gone.collect();
        if gone.is_empty() {
            return;
        }
        // What other nodes were asked to write may be written here in the end.
        let asked = self.asks.blobs();
        for blob in gone.extract_if(.., |blob| asked.contains(blob)) {
            self.doomed.insert(blob, self.now + self.settings.blob_grace);
        }
        if !gone.is_empty() {
            self.out.push(Effect::Discard(gone));
        }
    }

    /// The record and its children, if they are newer than what was seen.
    fn family(&self, id: Digest, seen: u64) -> Option<Response> {
        let root = self.catalogue.root(id);
        let version = self.versions.get(&root).copied().unwrap_or(self.first_version);
        if self.catalogue.body(&id).is_none() {
            let refusal = Refusal::NotFound { what: "record".into(), text: id.to_string() };
            return Some(Response::Refused(refusal));
        }
        if version == seen {
            return None;
        }
        let below = if id == root { self.catalogue.family(id) } else { Vec::new() };
        let ids = core::iter::once(id).chain(below.into_iter().filter(|child| *child != id));
        let entries = ids.filter_map(|id| self.entry(id)).collect();
        Some(Response::Family { version, entries })
    }

    fn entry(&self, id: Digest) -> Option<Entry> {
        let record = self.catalogue.get(&id)?.clone();
        Some(Entry { id, created_ms: record.names.since(), record, leased: self.leases.count(id) })
    }
}

#[cfg(test)]
mod tests;
