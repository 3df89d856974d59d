//! What must hold at every event: records only grow and say what the for-loop says, acknowledged writes are durable on
//! as many disks as the answer says, no blob is named that is not there, and no piece has two holders while all is calm.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    format,
    string::String,
    vec::Vec,
};
use core::time::Duration;

use super::{
    Invariant,
    disk::{Disk, id_of},
    sometimes::Sometimes,
    world::World,
};
use crate::{
    id::Digest,
    lease::Slot,
    member::NodeId,
    node::{Event, Message, Outcome, Request, Response, Ticket},
    record::{Body, Record},
};

/// An invariant that does not hold, and what shows it.
pub(super) struct Broken {
    pub(super) invariant: Invariant,
    pub(super) what: String,
}

/// A write that was acknowledged last about a thing.
pub(super) struct Acked {
    /// Whether it made the thing, or deleted it.
    pub(super) alive: bool,
    pub(super) life: u64,
    /// The disks that it is on.
    pub(super) holders: BTreeSet<NodeId>,
}

/// A lease that was seen to be granted.
pub(super) struct Held {
    pub(super) epoch: u64,
    pub(super) worker: String,
    pub(super) until: Duration,
}

/// How far a job has come anywhere, and since when.
#[derive(Default)]
pub(super) struct Reached {
    pub(super) round: u32,
    pub(super) at: Duration,
    pub(super) units: BTreeMap<u32, Duration>,
}

/// What was seen from outside.
#[derive(Default)]
pub(super) struct Ledger {
    /// When db nodes last had a reason to disagree.
    pub(super) calm_since: Duration,
    blobs: BTreeSet<Digest>,
    pub(super) acked: BTreeMap<Digest, Acked>,
    /// Disks that were lost, with the times.
    pub(super) graveyard: Vec<(Duration, Disk)>,
    /// Leases that were granted while all was calm.
    pub(super) held: BTreeMap<Slot, Held>,
    /// All leases, until when they may be held.
    pub(super) out: BTreeMap<Slot, (Digest, Duration)>,
    /// By job and the life of what it is part of.
    pub(super) reached: BTreeMap<(Digest, u64), Reached>,
    /// How many nodes somebody believed to be there, before that changed.
    pub(super) views: VecDeque<(Duration, usize)>,
    /// Whether the event at hand brings a result.
    reporting: bool,
    /// By job, round and partition, the sides that finished something.
    sides: BTreeMap<(Digest, u32, u32), BTreeSet<u8>>,
    pub(super) buried: BTreeSet<(NodeId, Digest)>,
    /// Tombstones, by host, id and life, that are to be forgotten with what a host writes next.
    burials: BTreeSet<(usize, Digest, u64)>,
    /// Pieces granted in all.
    pub(super) granted: u64,
}

/// An answer may be under way so long.
pub(super) const RECENTLY: Duration = Duration::from_secs(60);

impl Ledger {
    /// Db nodes have a reason to disagree for a while.
    pub(super) fn disturb(&mut self, now: Duration) {
        self.calm_since = now;
        self.held.clear();
    }

    /// A blob was put somewhere.
    pub(super) fn seen_blob(&mut self, blob: Digest) {
        self.blobs.insert(blob);
    }

    /// All blobs that were ever put.
    pub(super) fn blobs(&self) -> impl Iterator<Item = Digest> + use<'_> {
        self.blobs.iter().copied()
    }

    /// A disk is gone with all that was on it.
    pub(super) fn lost_disk(&mut self, now: Duration, disk: Disk) {
        self.graveyard.push((now, disk));
    }

    /// A node changes its mind about who is there.
    pub(super) fn view_changes(&mut self, now: Duration, before: usize) {
        self.views.push_back((now, before));
        while self.views.front().is_some_and(|(at, _)| *at + RECENTLY < now) {
            self.views.pop_front();
        }
    }
}

impl World<'_> {
    /// An event goes in.
    pub(super) fn before(&mut self, host: usize, event: &Event) {
        let request = match event {
            Event::Request { request, .. } => request,
            Event::Letter(letter) => {
                let Message::Ask { request, .. } = &letter.message else {
                    self.ledger.reporting = false;
                    return self.merging(host, letter);
                };
                &**request
            }
            Event::Gone(_) | Event::Persisted(_) | Event::Active(_) | Event::Inactive(_) | Event::Tick => {
                self.ledger.reporting = false;
                return;
            }
        };
        self.ledger.reporting = matches!(request, Request::Report { .. });
        let ledger = &mut self.ledger;
        match request {
            Request::Create { body, .. } => {
                let id = body.id();
                if ledger.acked.get(&id).is_some_and(|acked| !acked.alive) {
                    ledger.acked.remove(&id);
                }
                ledger.held.clear();
            }
            Request::Delete { id } => {
                if ledger.acked.get(id).is_some_and(|acked| acked.alive) {
                    ledger.acked.remove(id);
                }
                ledger.held.clear();
                ledger.out.retain(|_, (root, _)| root != id);
            }
            Request::Cancel { .. } => ledger.held.clear(),
            Request::Report { lease, outcome } => {
                let released = matches!(outcome, Outcome::Released { .. });
                if !released || ledger.held.get(&lease.slot).is_some_and(|held| held.epoch == lease.epoch) {
                    ledger.held.remove(&lease.slot);
                }
                ledger.out.remove(&lease.slot);
            }
            Request::Leave { worker, .. } => ledger.held.retain(|_, held| held.worker != *worker),
            Request::Find { .. } | Request::List { .. } | Request::Watch { .. } | Request::Claim(_) => {}
            Request::Renew { .. }
            | Request::Redeem { .. }
            | Request::Locate { .. }
            | Request::Route { .. }
            | Request::Users { .. } => {}
            Request::Leases { .. } | Request::Workers => {}
        }
    }

    /// A node is told, or tells others, that these tombstones are to be forgotten.
    pub(super) fn burying(&mut self, host: usize, dead: &[(Digest, u64)]) {
        self.ledger.burials.extend(dead.iter().map(|(id, life)| (host, *id, *life)));
    }

    /// A node is about to make records durable.
    pub(super) fn persisting(&mut self, host: usize, records: &[(Digest, Option<Record>)]) {
        let made_again = records.iter().filter(|(id, record)| self.is_made_again(host, id, record));
        let made_again: BTreeSet<Digest> = made_again.map(|(id, _)| *id).collect();
        made_again.iter().for_each(|id| self.going(host, *id));
        for (id, record) in records {
            match record {
                Some(record) => self.growing(host, *id, record, made_again.contains(id)),
                None => self.going(host, *id),
            }
        }
        self.ledger.burials.retain(|(at, ..)| *at != host);
    }

    /// Whether a tombstone is forgotten and the thing made again at the same time, in its first life.
    fn is_made_again(&self, host: usize, id: &Digest, record: &Option<Record>) -> bool {
        let Some(before) = self.hosts[host].disk.latest(id).filter(|before| before.body.is_none()) else {
            return false;
        };
        let begins = record.as_ref().is_some_and(|record| record.body.is_some() && record.life == 1);
        begins && self.ledger.burials.contains(&(host, *id, before.life))
    }

    fn growing(&mut self, host: usize, key: Digest, record: &Record, made_again: bool) {
        let id = id_of(key, record);
        let disk = &self.hosts[host].disk;
        let before = disk.latest(&id).filter(|_| !made_again).cloned();
        let body = record.body.iter();
        let unnamed = body.flat_map(Body::blobs).find(|blob| !disk.has(blob) && !disk.lost.contains(blob));
        if let Some(blob) = unnamed {
            self.breach(Invariant::BlobsAreThere, || {
                format!("host {host} writes {id:?}, which names {blob:?}, and has it not")
            });
        }
        let root = job_of(record).and_then(|job| job.spec.parent).unwrap_or(id);
        let (root_before, root_life) = self.lives(host, &root);
        if let Some(before) = &before {
            // The jobs of a training that was deleted and made again begin anew.
            let is_new_life = root != id && root_life > root_before;
            if id == key && !has_grown(before, record) && !is_new_life {
                self.breach(Invariant::RecordsGrow, || {
                    format!("host {host} forgets something of {id:?}: {before:?} became {record:?}")
                });
            }
            if before.body.is_none() && record.body.is_some() {
                self.reach(Sometimes::MadeAgain);
            }
        }
        match &record.body {
            Some(Body::Job(job)) => {
                let known = self.course(&id).is_some_and(|course| course.has(&job.progress));
                if !known {
                    self.breach(Invariant::SameBytes, || {
                        format!("host {host} has what the for-loop has not: {id:?} {:?}", job.progress)
                    });
                }
                self.note_progress(host, id, root_life, before.as_ref(), &job.progress);
            }
            Some(Body::Training(training)) if training.stops > 0 && !training.is_cancelled() => {
                self.reach(Sometimes::TakenUpAgain);
            }
            Some(
                Body::Training(_) | Body::Study(_) | Body::Dataset(_) | Body::Token(_) | Body::Revocation(_),
            )
            | None => {}
        }
    }

    /// The life of a thing on the disk, and in the node's memory; 0 for none.
    fn lives(&self, host: usize, id: &Digest) -> (u64, u64) {
        let (disk, node) = (&self.hosts[host].disk, self.hosts[host].node.as_ref());
        let life = |record: Option<&Record>| record.map_or(0, |record| record.life);
        (life(disk.latest(id)), life(node.and_then(|node| node.record(id))))
    }

    fn note_progress(
        &mut self,
        host: usize,
        id: Digest,
        life: u64,
        before: Option<&Record>,
        progress: &crate::Progress,
    ) {
        let now = self.now;
        let reached = self.ledger.reached.entry((id, life)).or_default();
        if progress.round > reached.round {
            *reached = Reached { round: progress.round, at: now, units: BTreeMap::new() };
        }
        if progress.round == reached.round {
            for unit in progress.units.keys() {
                reached.units.entry(*unit).or_insert(now);
            }
        }
        let earlier = before.and_then(job_of).map_or(0, |job| job.progress.units.len());
        let Some((partition, side)) = self.network.partition(super::network::Place::Host(host)) else {
            return;
        };
        if self.ledger.reporting && progress.units.len() > earlier {
            let sides = self.ledger.sides.entry((id, progress.round, partition)).or_default();
            sides.insert(side);
            if sides.len() > 1 {
                self.reach(Sometimes::BothSidesFinished);
            }
        }
    }

    /// A record goes: a tombstone whose time is over, or what belonged to something that is gone.
    fn going(&mut self, host: usize, id: Digest) {
        let disk = &self.hosts[host].disk;
        let Some(before) = disk.latest(&id) else { return };
        match job_of(before).and_then(|job| job.spec.parent) {
            _ if before.body.is_none() => {
                let life = before.life;
                self.ledger.buried.insert((self.hosts[host].me.id, id));
                // It was deleted, though whoever asked for that may not have heard so.
                let is_over = |acked: &Acked| acked.alive && acked.life < life;
                if self.ledger.acked.get(&id).is_some_and(is_over) {
                    self.ledger.acked.remove(&id);
                }
                self.reach(Sometimes::Buried);
                // Lives are counted anew from here.
                let jobs: Vec<Digest> = self.jobs_of(&id);
                self.ledger.reached.retain(|(job, _), _| !jobs.contains(job));
            }
            Some(parent) => {
                let (life_before, life) = self.lives(host, &parent);
                if life % 2 == 1 && life == life_before {
                    self.breach(Invariant::RecordsGrow, || {
                        format!("host {host} drops {id:?}, whose parent is there")
                    });
                }
            }
            None => self
                .breach(Invariant::RecordsGrow, || format!("host {host} drops {id:?}, which nobody deleted")),
        }
    }

    /// A node says that nothing refers to these blobs.
    pub(super) fn discarding(&mut self, host: usize, blobs: &[Digest]) {
        let machine = &self.hosts[host];
        let bodies = machine.disk.durable().values().filter_map(|record| record.body.as_ref());
        let named: BTreeSet<Digest> = bodies.flat_map(Body::blobs).collect();
        let wrong = blobs.iter().find(|blob| {
            named.contains(blob) || machine.node.as_ref().is_some_and(|node| node.refers_to(blob))
        });
        if let Some(blob) = wrong.copied() {
            self.breach(Invariant::BlobsAreThere, || {
                format!("host {host} discards {blob:?}, which a record names")
            });
        }
    }

    /// A node gives an answer: what it says must be so.
    pub(super) fn acknowledged(&mut self, host: usize, ticket: Ticket, response: &Response) {
        match response {
            // What another node has acknowledged was looked at when it did.
            Response::Created { .. } if self.hosts[host].relays => {}
            Response::Created { id, replicas, .. } => {
                self.write_acknowledged(host, *id, true, Some(*replicas))
            }
            Response::Done => {
                if let Some(id) = self.asks.get(&ticket).and_then(|ask| ask.deletes) {
                    self.write_acknowledged(host, id, false, None);
                }
            }
            Response::Work(work) => {
                let worker = self.asks.get(&ticket).and_then(|ask| ask.claims.clone()).unwrap_or_default();
                for assignment in work {
                    self.granted(host, &worker, assignment);
                }
            }
            Response::Lost(lost) => self.renewed(host, ticket, lost),
            Response::Found(_)
            | Response::Matches(_)
            | Response::Page { .. }
            | Response::Family { .. }
            | Response::Workers(_) => {}
            Response::Route(_) | Response::Users(_) | Response::Leases(_) | Response::Refused(_) => {}
        }
    }
}

/// Whether nothing was forgotten; said without a merge, which may be at fault itself.
fn has_grown(before: &Record, now: &Record) -> bool {
    if before.life != now.life {
        return before.life < now.life;
    }
    let names = before.names.0.iter().all(|(name, at)| match now.names.0.get(name) {
        Some(now) if name.is_empty() => now <= at,
        Some(now) => now >= at,
        None => false,
    });
    let content = match (&before.body, &now.body) {
        (None, None) => true,
        (Some(Body::Dataset(before)), Some(Body::Dataset(now))) => before == now,
        (Some(Body::Training(before)), Some(Body::Training(now))) => {
            before.spec == now.spec && before.stops <= now.stops && before.priority <= now.priority
        }
        (Some(Body::Study(before)), Some(Body::Study(now))) => {
            before.spec == now.spec && before.stops <= now.stops && before.priority <= now.priority
        }
        (Some(Body::Job(before)), Some(Body::Job(now))) => {
            let (old, new) = (&before.progress, &now.progress);
            let same_round = new.round == old.round && new.state == old.state;
            let units = old.units.iter().all(|(unit, partial)| new.units.get(unit) == Some(partial));
            before.spec == now.spec && (new.round > old.round || same_round && units)
        }
        _ => false,
    };
    names && content
}

/// The job in a record.
pub(super) fn job_of(record: &Record) -> Option<&crate::Job> {
    match record.body.as_ref()? {
        Body::Job(job) => Some(job),
        Body::Dataset(_) | Body::Training(_) | Body::Study(_) | Body::Token(_) | Body::Revocation(_) => None,
    }
}
