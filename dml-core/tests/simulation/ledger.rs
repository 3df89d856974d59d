//! The invariants that are checked at every event: one holder a piece, nothing finished done again, nothing answered
//! that is not durable, records that only grow, references that are exact.

#![allow(clippy::wildcard_enum_match_arm)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dml_core::{
    Body, Digest, Job, Merge, Node, Record,
    lease::{Lease, Piece, Slot},
    node::{Assignment, Effect, Event, Outcome, Refusal, Request, Response, Ticket},
};

/// A lease, as it was seen to be granted.
struct Held {
    worker: String,
    epoch: u64,
    until: Duration,
}

/// What was seen from outside.
pub(crate) struct Ledger {
    lease: Duration,
    held: BTreeMap<Slot, Held>,
    /// How often a piece was granted again because its lease had run out.
    lost: BTreeMap<Slot, u32>,
    claims: BTreeMap<Ticket, String>,
    /// Results on their way in: the piece, and the life of its job.
    reports: BTreeMap<Ticket, (Lease, u64)>,
    /// The last version of each record that was to be written.
    written: BTreeMap<Digest, Record>,
    /// Pieces granted in all.
    pub(crate) granted: u64,
}

impl Ledger {
    pub(crate) fn new(lease: Duration) -> Self {
        Self {
            lease,
            held: BTreeMap::new(),
            lost: BTreeMap::new(),
            claims: BTreeMap::new(),
            reports: BTreeMap::new(),
            written: BTreeMap::new(),
            granted: 0,
        }
    }

    /// Whether a piece ran out so often that the node may soon think it deadly.
    pub(crate) fn is_about_to_give_up(&self) -> bool {
        self.lost.values().any(|times| *times >= 3)
    }

    pub(crate) fn left(&mut self, worker: u64) {
        self.held.retain(|_, held| held.worker != worker.to_string());
    }

    /// The node has started from what was durable.
    pub(crate) fn restarted(&mut self, disk: &BTreeMap<Digest, Record>) {
        self.held.clear();
        self.lost.clear();
        self.claims.clear();
        self.reports.clear();
        self.written.clone_from(disk);
    }

    /// An event goes in.
    pub(crate) fn before(&mut self, node: &Node, now: Duration, event: &Event) {
        let Event::Request { ticket, request, .. } = event else { return };
        match request {
            Request::Claim(claim) => {
                self.claims.insert(*ticket, claim.worker.clone());
            }
            Request::Report { lease, outcome: Outcome::Released { .. } } => {
                self.held.retain(|slot, held| (*slot, held.epoch) != (lease.slot, lease.epoch));
            }
            Request::Report { lease, .. } => {
                if self.held.get(&lease.slot).is_some_and(|held| held.until > now)
                    || is_current(node, &lease.slot)
                {
                    self.held.remove(&lease.slot);
                }
                // After a restart or a second creation the job may be in an earlier round than this result.
                let job = node.record(&lease.slot.job).and_then(job_of);
                let life = node.record(&lease.root).map(|root| root.life);
                let life = life.filter(|_| job.is_some_and(|job| job.progress.round >= lease.slot.round));
                self.reports.extend(life.map(|life| (*ticket, (*lease, life))));
            }
            // Nobody holds what is not wanted.
            Request::Cancel { id } | Request::Delete { id } => self.held.retain(|slot, _| {
                let job = node.record(&slot.job).and_then(job_of);
                slot.job != *id && job.is_none_or(|job| job.spec.parent != Some(*id))
            }),
            _ => {}
        }
    }

    /// An effect of the event comes out.
    pub(crate) fn during(&mut self, node: &Node, now: Duration, event: &Event, effect: &Effect) {
        match (event, effect) {
            (_, Effect::Reply(ticket, Response::Work(work))) => {
                let worker = self.claims.remove(ticket).expect("work is for those who asked");
                work.iter().for_each(|assignment| self.granted(node, now, &worker, assignment));
            }
            (
                Event::Request { request: Request::Renew { worker, leases }, .. },
                Effect::Reply(_, Response::Lost(lost)),
            ) => {
                for lease in leases {
                    let held = self.held.get_mut(&lease.slot).filter(|held| held.epoch == lease.epoch);
                    match held {
                        Some(held) if !lost.contains(lease) => held.until = now + self.lease,
                        Some(held) => assert!(
                            held.until <= now || !is_current(node, &lease.slot),
                            "a lease was lost that had not run out"
                        ),
                        None if lost.contains(lease) => {}
                        // The piece was free again, and is still in the worker's hands.
                        None => {
                            let other = self.held.get(&lease.slot).filter(|held| held.until > now);
                            assert!(other.is_none(), "a lease was renewed that another has");
                            assert!(is_current(node, &lease.slot), "a lease on what is over was renewed");
                            let (worker, until) = (worker.clone(), now + self.lease);
                            self.held.insert(lease.slot, Held { worker, epoch: lease.epoch, until });
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn granted(&mut self, node: &Node, now: Duration, worker: &str, assignment: &Assignment) {
        let slot = assignment.lease.slot;
        let job = node.record(&slot.job).and_then(job_of).expect("work is on jobs that exist");
        let parent = job.spec.parent.and_then(|parent| node.record(&parent)?.body.as_ref());
        let cancelled = matches!(parent, Some(Body::Training(training)) if training.is_cancelled());
        assert!(!cancelled && job.is_open() && job.progress.round == slot.round, "work is on what is wanted");
        assert!(job.spec.parent.is_none() || parent.is_some(), "work is on what is wanted");
        assert_eq!((&assignment.spec, assignment.progress.state), (&job.spec, job.progress.state));
        match slot.piece {
            Piece::Unit(unit) => {
                assert!(!job.progress.units.contains_key(&unit), "what is finished is not done again")
            }
            Piece::Fold => assert_eq!(assignment.progress, job.progress, "a fold has all partials"),
        }
        if let Some(before) = self.held.get(&slot) {
            assert!(before.until <= now, "two workers hold a lease on the same piece");
            *self.lost.entry(slot).or_default() += 1;
        }
        let held = Held { worker: worker.into(), epoch: assignment.lease.epoch, until: now + self.lease };
        self.held.insert(slot, held);
        self.granted += 1;
    }

    /// An answer goes out: what it says must be on the disk.
    pub(crate) fn acknowledged(
        &mut self,
        ticket: Ticket,
        response: &Response,
        disk: &BTreeMap<Digest, Record>,
    ) {
        match response {
            Response::Created { id, .. } => assert!(disk.contains_key(id), "created, but not durable"),
            Response::Done | Response::Refused(Refusal::StaleLease { .. }) => {
                let Some((Lease { slot, root, .. }, life)) = self.reports.remove(&ticket) else { return };
                let is_same_life = disk.get(&root).is_some_and(|root| root.life == life);
                let Some(job) = disk.get(&slot.job).filter(|_| is_same_life).and_then(job_of) else { return };
                let done = match slot.piece {
                    Piece::Unit(unit) => job.progress.units.contains_key(&unit),
                    Piece::Fold => false,
                };
                assert!(done || job.progress.round > slot.round, "a result was taken, but is not durable");
            }
            _ => {}
        }
    }

    /// A record is to be written: it must have learned, and forgotten nothing.
    /// Only what belonged to a thing that was deleted goes.
    pub(crate) fn grows(&mut self, id: Digest, record: Option<&Record>) {
        let Some(record) = record else {
            self.written.remove(&id);
            return;
        };
        if let Some(before) = self.written.insert(id, record.clone()) {
            let mut merged = before;
            merged.merge(record.clone());
            assert_eq!(&merged, record, "a record forgot something");
        }
    }

    /// The node refers to exactly the blobs that its records name.
    pub(crate) fn recount(&self, node: &Node, blobs: impl Iterator<Item = Digest>) {
        let records = self.written.keys().filter_map(|id| node.record(id)?.body.as_ref());
        let named: BTreeSet<Digest> = records.flat_map(Body::blobs).collect();
        for blob in blobs {
            assert_eq!(node.refers_to(&blob), named.contains(&blob), "references are exact");
        }
    }
}

fn job_of(record: &Record) -> Option<&Job> {
    match &record.body {
        Some(Body::Job(job)) => Some(job),
        _ => None,
    }
}

/// Whether a result for this piece would be taken now.
fn is_current(node: &Node, slot: &Slot) -> bool {
    node.record(&slot.job)
        .and_then(job_of)
        .is_some_and(|job| job.is_open() && job.progress.round == slot.round)
}
