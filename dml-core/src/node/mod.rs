//! The whole behaviour of a db node, as a value: [`Node::handle`] takes an event and the time, and says what to do;
//! [`Node::deadline`] says when it wants to be called again. A call before the deadline is harmless.
//!
//! Records are all in memory, and on disk as the shell is told to persist them. A change is acknowledged when it is
//! durable. Blobs are the shell's: the brain knows only which are referred to.

mod catalogue;
mod message;
mod work;

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::{String, ToString},
    vec::Vec,
};
use core::time::Duration;

pub use catalogue::MAX_NAMES;
pub use message::{
    Assignment, Claim, Cursor, Effect, Entry, Event, Outcome, Refusal, Request, Response, Settings, Ticket,
    WorkerSeen,
};

use crate::{
    id::Digest,
    lease::Leases,
    record::{Body, Record},
    schedule::Shares,
    training,
};
use catalogue::Catalogue;

/// A request that waits for something to happen.
struct Waiting<T> {
    what: T,
    until: Duration,
}

/// A worker, as it was last heard of.
struct Seen {
    at: Duration,
    capacity: u32,
}

/// The brain of a db node.
pub struct Node {
    settings: Settings,
    catalogue: Catalogue,
    leases: Leases,
    shares: Shares,
    workers: BTreeMap<String, Seen>,
    /// How often each training or prediction has changed since the node started.
    versions: BTreeMap<Digest, u64>,
    claims: BTreeMap<Ticket, Waiting<Claim>>,
    watches: BTreeMap<Ticket, Waiting<(Digest, u64)>>,
    /// Answers that wait for a write to be durable.
    unanswered: BTreeMap<u64, Vec<(Ticket, Response)>>,
    writes: u64,
    /// Ids changed by the event at hand.
    dirty: BTreeSet<Digest>,
    /// Blobs without a reference, and when they go.
    doomed: BTreeMap<Digest, Duration>,
}

impl Node {
    /// A node that holds these records. `generation` counts the starts of this node, so that leases of an earlier life
    /// are told from those of this one.
    pub fn new(
        settings: Settings,
        generation: u32,
        records: impl IntoIterator<Item = (Digest, Record)>,
    ) -> Self {
        let mut node = Self {
            leases: Leases::new(settings.lease, u64::from(generation) << 32),
            settings,
            catalogue: Catalogue::default(),
            shares: Shares::default(),
            workers: BTreeMap::new(),
            versions: BTreeMap::new(),
            claims: BTreeMap::new(),
            watches: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            writes: 0,
            dirty: BTreeSet::new(),
            doomed: BTreeMap::new(),
        };
        for (id, record) in records {
            node.catalogue.put(id, record);
        }
        let ids: Vec<Digest> = node.catalogue.ids().collect();
        ids.into_iter().for_each(|id| node.reopen(id));
        node
    }

    /// Takes an event in; says what is to be done.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Request { ticket, request, time_ms } => {
                match self.request(now, ticket, request, time_ms) {
                    Some(response) if self.dirty.is_empty() => effects.push(Effect::Reply(ticket, response)),
                    Some(response) => {
                        self.unanswered.entry(self.writes + 1).or_default().push((ticket, response))
                    }
                    None => {}
                }
            }
            Event::Gone(ticket) => {
                self.claims.remove(&ticket);
                self.watches.remove(&ticket);
            }
            Event::Persisted(write) => {
                let answers = self.unanswered.remove(&write).unwrap_or_default();
                effects.extend(answers.into_iter().map(|(ticket, response)| Effect::Reply(ticket, response)));
            }
            Event::Tick => {}
        }
        self.expire(now);
        self.persist(now, &mut effects);
        self.answer_waiting(now, &mut effects);
        self.discard(now, &mut effects);
        effects
    }

    /// When [`Event::Tick`] is wanted; none while there is nothing to wait for.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let claims = self.claims.values().map(|waiting| waiting.until);
        let watches = self.watches.values().map(|waiting| waiting.until);
        let doomed = self.doomed.values().copied();
        claims.chain(watches).chain(doomed).chain(self.leases.deadline(now)).min()
    }

    /// The record under an id, deleted ones included.
    pub fn record(&self, id: &Digest) -> Option<&Record> {
        self.catalogue.get(id)
    }

    /// Whether a record refers to this blob.
    pub fn refers_to(&self, blob: &Digest) -> bool {
        self.catalogue.refers_to(blob)
    }

    fn request(&mut self, now: Duration, ticket: Ticket, request: Request, time_ms: u64) -> Option<Response> {
        let wait = |ms| now + Duration::from_millis(ms).min(self.settings.max_wait);
        Some(match request {
            Request::Create { body, name } => self.create(body, name, time_ms),
            Request::Find { kind, text } => self.catalogue.find(kind, &text),
            Request::List { kind, after, limit } => self.list(kind, after, limit),
            Request::Watch { id, seen, wait_ms } => {
                let until = wait(wait_ms);
                match self.family(id, seen) {
                    None if until > now => {
                        self.watches.insert(ticket, Waiting { what: (id, seen), until });
                        return None;
                    }
                    None => self.family(id, 0).expect("any family is newer than none"),
                    Some(response) => response,
                }
            }
            Request::Cancel { id } => self.cancel(id),
            Request::Delete { id } => self.delete(id),
            Request::Claim(claim) => {
                let until = wait(claim.wait_ms);
                self.workers.insert(claim.worker.clone(), Seen { at: now, capacity: claim.capacity });
                self.claims.insert(ticket, Waiting { what: claim, until });
                return None;
            }
            Request::Renew { leases } => {
                let lost = leases.into_iter().filter(|lease| !self.leases.renew(now, lease)).collect();
                Response::Lost(lost)
            }
            Request::Report { lease, outcome } => self.report(now, lease, outcome),
            Request::Leave { worker } => {
                self.leases.release_all(&worker);
                self.workers.remove(&worker);
                Response::Done
            }
            Request::Workers => self.list_workers(now),
        })
    }

    fn list_workers(&self, now: Duration) -> Response {
        let seen = self.workers.iter().map(|(worker, seen)| WorkerSeen {
            worker: worker.clone(),
            capacity: seen.capacity,
            leases: self.leases.held_by(worker),
            age_ms: now.saturating_sub(seen.at).as_millis() as u64,
        });
        Response::Workers(seen.collect())
    }

    /// Writes down what the event has changed, and wakes those who watch it.
    fn persist(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if self.dirty.is_empty() {
            return;
        }
        self.writes += 1;
        let mut records = Vec::new();
        for id in core::mem::take(&mut self.dirty) {
            let Some(record) = self.catalogue.get(&id) else { continue };
            records.push((id, record.clone()));
            *self.versions.entry(self.catalogue.root(id)).or_insert(1) += 1;
        }
        effects.push(Effect::Persist { write: self.writes, records });
        for blob in self.catalogue.take_unreferred() {
            self.doomed.insert(blob, now + self.settings.blob_grace);
        }
    }

    /// Everything about an id that follows from its record: whether it is open, and what is missing below it.
    fn reopen(&mut self, id: Digest) {
        let root = self.catalogue.root(id);
        self.reconcile(root);
        for job in self.catalogue.family(root) {
            if self.catalogue.is_open(&job) { self.shares.open(job) } else { self.shares.close(&job) }
        }
    }

    /// Creates the missing children of a training that goes on.
    fn reconcile(&mut self, id: Digest) {
        let Some(Body::Training(training)) = self.catalogue.body(&id) else { return };
        if training.is_cancelled() {
            return;
        }
        for spec in training::reconcile(&training.spec, |job| self.catalogue.job(job)) {
            let record = Record::new(Body::Job(crate::job::Job::new(spec)));
            let child = record.body.as_ref().expect("it was made with a body").id();
            // Under a training that was deleted and made again, the children of its earlier life are tombstones.
            let life = self.catalogue.get(&child).map_or(1, |old| old.life + 1);
            self.catalogue.put(child, Record { life, ..record });
            self.dirty.insert(child);
        }
    }

    /// A change of `id` is to be written down; all that follows from it is done.
    fn changed(&mut self, id: Digest) {
        self.dirty.insert(id);
        self.reopen(id);
    }

    fn answer_waiting(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let tickets: Vec<Ticket> = self.claims.keys().copied().collect();
        for ticket in tickets {
            let Waiting { what, until } = &self.claims[&ticket];
            let (claim, over) = (what.clone(), *until <= now);
            let work = self.assign(now, &claim);
            if over || !work.is_empty() {
                self.claims.remove(&ticket);
                effects.push(Effect::Reply(ticket, Response::Work(work)));
            }
        }
        let due = self.watches.iter().filter_map(|(ticket, Waiting { what: (id, seen), until })| {
            let seen = if *until <= now { 0 } else { *seen };
            Some((*ticket, self.family(*id, seen)?))
        });
        for (ticket, response) in due.collect::<Vec<_>>() {
            self.watches.remove(&ticket);
            effects.push(Effect::Reply(ticket, response));
        }
    }

    fn discard(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let due: Vec<Digest> =
            self.doomed.iter().filter(|(_, at)| **at <= now).map(|(blob, _)| *blob).collect();
        self.doomed.retain(|blob, _| !due.contains(blob));
        let gone: Vec<Digest> = due.into_iter().filter(|blob| !self.catalogue.refers_to(blob)).collect();
        if !gone.is_empty() {
            effects.push(Effect::Discard(gone));
        }
    }

    /// The record and its children, if they are newer than what was seen.
    fn family(&self, id: Digest, seen: u64) -> Option<Response> {
        let root = self.catalogue.root(id);
        let version = self.versions.get(&root).copied().unwrap_or(1);
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
        Some(Entry { id, record, leased: self.leases.count(id) })
    }
}
