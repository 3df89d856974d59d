//! The whole behaviour of a db node, as a value: [`Node::handle`] takes an event and the time, and says what to do;
//! [`Node::deadline`] says when it wants to be called again. A call before the deadline is harmless.
//!
//! Records are all in memory, and on disk as the shell is told to persist them. A change is acknowledged when it is
//! durable. Blobs are the shell's: the brain knows only which are referred to.

mod catalogue;
mod letter;
mod message;
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

use crate::{
    id::Digest,
    lease::Leases,
    member::Member,
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
    /// How many changes there were when each thing, children included, changed last; only of what was changed since
    /// the node started and is still there.
    versions: BTreeMap<Digest, u64>,
    /// The version of what was not changed since the node started: above all versions of its earlier lives.
    first_version: u64,
    changes: u64,
    claims: BTreeMap<Ticket, Waiting<Claim>>,
    watches: BTreeMap<Ticket, Waiting<(Digest, u64)>>,
    writes: u64,
    /// What follows when a write is durable; those that are on their way.
    unwritten: BTreeMap<u64, Unwritten>,
    /// Ids changed by the event at hand.
    dirty: BTreeSet<Digest>,
    /// Blobs without a reference, and when they go.
    doomed: Doomed,
}

/// What waits for a write.
#[derive(Default)]
struct Unwritten {
    answers: Vec<(Ticket, Response)>,
    /// The blobs to which the records written before still refer.
    unreferred: BTreeSet<Digest>,
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
        let generation = me.generation;
        let mut node = Self {
            leases: Leases::new(settings.lease, u64::from(generation) << 32),
            settings,
            catalogue: Catalogue::default(),
            shares: Shares::default(),
            workers: BTreeMap::new(),
            versions: BTreeMap::new(),
            first_version: (u64::from(generation) << 32) + 1,
            changes: (u64::from(generation) << 32) + 1,
            claims: BTreeMap::new(),
            watches: BTreeMap::new(),
            writes: 0,
            unwritten: BTreeMap::new(),
            dirty: BTreeSet::new(),
            doomed: Doomed::default(),
        };
        for (id, record) in records {
            node.catalogue.put(id, record);
        }
        let roots: BTreeSet<Digest> = node.catalogue.ids().map(|id| node.catalogue.root(id)).collect();
        roots.into_iter().for_each(|root| node.follow(root));
        node
    }

    /// Takes an event in; says what is to be done.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Request { ticket, request, time_ms } => {
                let changes = request.changes_records();
                if let Some(response) = self.request(now, ticket, request, time_ms) {
                    // What is answered is durable: also what an earlier request has changed, on which this one relies.
                    let last = self.unwritten.keys().next_back().copied().filter(|_| changes);
                    match if self.dirty.is_empty() { last } else { Some(self.writes + 1) } {
                        Some(write) => {
                            self.unwritten.entry(write).or_default().answers.push((ticket, response))
                        }
                        None => effects.push(Effect::Reply(ticket, response)),
                    }
                }
            }
            Event::Gone(ticket) => {
                self.claims.remove(&ticket);
                self.watches.remove(&ticket);
            }
            Event::Persisted(write) => {
                // Writes become durable in order.
                let later = self.unwritten.split_off(&(write + 1));
                for written in core::mem::replace(&mut self.unwritten, later).into_values() {
                    let replies = written.answers.into_iter();
                    effects.extend(replies.map(|(ticket, response)| Effect::Reply(ticket, response)));
                    for blob in written.unreferred {
                        self.doomed.insert(blob, now + self.settings.blob_grace);
                    }
                }
            }
            Event::Letter(_) | Event::Active(_) | Event::Inactive(_) | Event::Tick => {}
        }
        self.expire(now);
        let changed = self.persist(&mut effects);
        self.hand_out(now, &mut effects);
        self.tell_watchers(now, changed, &mut effects);
        self.discard(now, &mut effects);
        effects
    }

    /// When [`Event::Tick`] is wanted; none while there is nothing to wait for.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let claims = self.claims.values().map(|waiting| waiting.until);
        let watches = self.watches.values().map(|waiting| waiting.until);
        let waits = claims.chain(watches).chain(self.doomed.next()).chain(self.leases.deadline());
        waits.min().map(|at| at.max(now))
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
                leases.iter().for_each(|lease| self.heard(now, lease));
                let lost = leases.into_iter().filter(|lease| !self.leases.renew(now, lease)).collect();
                Response::Lost(lost)
            }
            Request::Report { lease, outcome } => {
                self.heard(now, &lease);
                self.report(now, lease, outcome)
            }
            Request::Locate { .. }
            | Request::Route { .. }
            | Request::Users { .. }
            | Request::Leases { .. } => Response::Done,
            Request::Leave { worker, .. } => {
                self.leave(now, &worker);
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

    /// Writes down what the event has changed. Says whether that was anything.
    fn persist(&mut self, effects: &mut Vec<Effect>) -> bool {
        if self.dirty.is_empty() {
            return false;
        }
        self.writes += 1;
        self.changes += 1;
        let mut records = Vec::new();
        for id in core::mem::take(&mut self.dirty) {
            let Some(record) = self.catalogue.get(&id) else { continue };
            match record.body {
                Some(_) => self.versions.insert(self.catalogue.root(id), self.changes),
                None => self.versions.remove(&id),
            };
            records.push((id, Some(record.clone())));
        }
        effects.push(Effect::Persist { write: self.writes, records });
        self.unwritten.entry(self.writes).or_default().unreferred = self.catalogue.take_unreferred();
        true
    }

    /// Everything that follows from a record: what is missing below it, and which jobs are open.
    fn follow(&mut self, id: Digest) {
        let root = self.catalogue.root(id);
        self.reconcile(root);
        let wanted = self.catalogue.wanted(root);
        for member in self.catalogue.family(root) {
            let job = self.catalogue.job(&member).filter(|job| job.is_open());
            let open = job.is_some_and(|job| job.spec.parent.is_none() || wanted.contains(&member));
            if open { self.open(member) } else { self.close(member) }
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
        self.follow(id);
    }

    /// Answers the claims for which there is work, in the order in which they came, and those that waited long enough.
    fn hand_out(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let mut claims = core::mem::take(&mut self.claims);
        claims.retain(|ticket, Waiting { what, until }| {
            let work = self.assign(now, what);
            let over = !work.is_empty() || *until <= now;
            if over {
                effects.push(Effect::Reply(*ticket, Response::Work(work)));
            }
            !over
        });
        self.claims = claims;
    }

    /// Answers those who watch what has changed, and those who waited long enough.
    fn tell_watchers(&mut self, now: Duration, changed: bool, effects: &mut Vec<Effect>) {
        let watches = self.watches.iter().filter(|(_, watch)| changed || watch.until <= now);
        let due = watches.filter_map(|(ticket, Waiting { what: (id, seen), until })| {
            let seen = if *until <= now { 0 } else { *seen };
            Some((*ticket, self.family(*id, seen)?))
        });
        for (ticket, response) in due.collect::<Vec<_>>() {
            self.watches.remove(&ticket);
            effects.push(Effect::Reply(ticket, response));
        }
    }

    fn discard(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let due = core::iter::from_fn(|| self.doomed.pop_due(now));
        let is_written =
            |blob: &Digest| !self.unwritten.values().any(|write| write.unreferred.contains(blob));
        let gone = due.filter(|blob| !self.catalogue.refers_to(blob) && is_written(blob));
        let gone: Vec<Digest> = gone.collect();
        if !gone.is_empty() {
            effects.push(Effect::Discard(gone));
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
        Some(Entry { id, record, leased: self.leases.count(id) })
    }
}

#[cfg(test)]
mod tests;
