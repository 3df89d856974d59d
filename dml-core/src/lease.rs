//! Leases on pieces of work. They only save work: a result is accepted from whoever brings it, as it is the same bytes.
//! A lease that is not renewed runs out, so a dead worker's work is free again without anybody deciding anything.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::Digest;

/// What a worker is given: a unit of a round, or its fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Piece {
    /// The unit with this index.
    Unit(u32),
    /// The end of a round; with it, the unit of a round that has just one.
    Fold,
}

/// A piece of a certain round of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot {
    /// The job.
    pub job: Digest,
    /// The round.
    pub round: u32,
    /// The piece.
    pub piece: Piece,
}

/// A lease, as its holder names it. The epoch tells it from other leases on the same piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lease {
    /// What is leased.
    pub slot: Slot,
    /// Which lease on it this is.
    pub epoch: u64,
}

struct Held {
    worker: String,
    epoch: u64,
    until: Duration,
}

/// All leases that a node has granted. They live in memory alone: after a restart all pieces are free.
pub struct Leases {
    lease: Duration,
    epoch: u64,
    held: BTreeMap<Slot, Held>,
    /// How often a lease on the slot ran out, or when it may be tried again.
    lost: BTreeMap<Slot, Lost>,
}

#[derive(Default)]
struct Lost {
    times: u32,
    not_before: Duration,
}

/// After so many leases that ran out, a piece is taken to be what kills its workers.
pub const MAX_LOST: u32 = 5;

impl Leases {
    /// No leases yet. `first_epoch` grows with each start of the node.
    pub fn new(lease: Duration, first_epoch: u64) -> Self {
        Self { lease, epoch: first_epoch, held: BTreeMap::new(), lost: BTreeMap::new() }
    }

    /// Whether nobody holds it.
    pub fn is_free(&self, now: Duration, slot: &Slot) -> bool {
        !self.held.contains_key(slot) && self.lost.get(slot).is_none_or(|lost| lost.not_before <= now)
    }

    /// Leases a free slot.
    pub fn grant(&mut self, now: Duration, slot: Slot, worker: &str) -> Lease {
        self.epoch += 1;
        self.held.insert(slot, Held { worker: worker.into(), epoch: self.epoch, until: now + self.lease });
        Lease { slot, epoch: self.epoch }
    }

    /// Renews a lease; false if it is no longer held.
    pub fn renew(&mut self, now: Duration, lease: &Lease) -> bool {
        match self.held.get_mut(&lease.slot) {
            Some(held) if held.epoch == lease.epoch => {
                held.until = now + self.lease;
                true
            }
            _ => false,
        }
    }

    /// Gives a lease back; the piece is free again after `pause`.
    pub fn release(&mut self, now: Duration, lease: &Lease, pause: Duration) {
        if self.held.get(&lease.slot).is_some_and(|held| held.epoch == lease.epoch) {
            self.held.remove(&lease.slot);
            if !pause.is_zero() {
                self.lost.entry(lease.slot).or_default().not_before = now + pause;
            }
        }
    }

    /// Forgets everything about the slots of a job below a round: they are done.
    pub fn forget(&mut self, job: Digest, below_round: u32) {
        let of = |slot: &Slot| slot.job == job && slot.round < below_round;
        self.held.retain(|slot, _| !of(slot));
        self.lost.retain(|slot, _| !of(slot));
    }

    /// Forgets a piece that is done.
    pub fn done(&mut self, slot: &Slot) {
        self.held.remove(slot);
        self.lost.remove(slot);
    }

    /// Frees every lease that has run out by now. Gives those slots that ran out too often.
    pub fn expire(&mut self, now: Duration) -> Vec<Slot> {
        let over: Vec<Slot> =
            self.held.iter().filter(|(_, held)| held.until <= now).map(|(slot, _)| *slot).collect();
        for slot in &over {
            self.held.remove(slot);
            self.lost.entry(*slot).or_default().times += 1;
        }
        over.into_iter()
            .filter(|slot| self.lost.get(slot).is_some_and(|lost| lost.times >= MAX_LOST))
            .collect()
    }

    /// Frees everything that a worker holds: it said goodbye.
    pub fn release_all(&mut self, worker: &str) {
        self.held.retain(|_, held| held.worker != worker);
    }

    /// When the next lease runs out or the next pause ends.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let held = self.held.values().map(|held| held.until);
        let pauses = self.lost.values().map(|lost| lost.not_before).filter(|at| *at > now);
        held.chain(pauses).min()
    }

    /// How many pieces of a job are leased.
    pub fn count(&self, job: Digest) -> u32 {
        let from = Slot { job, round: 0, piece: Piece::Unit(0) };
        self.held.range(from..).take_while(|(slot, _)| slot.job == job).count() as u32
    }

    /// How many pieces a worker holds.
    pub fn held_by(&self, worker: &str) -> u32 {
        self.held.values().filter(|held| held.worker == worker).count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(20);

    fn slot(unit: u32) -> Slot {
        Slot { job: Digest::of(b"job"), round: 0, piece: Piece::Unit(unit) }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_runs_out_unless_renewed() {
        let mut leases = Leases::new(LEASE, 0);
        let (kept, left) = (leases.grant(at(0), slot(0), "a"), leases.grant(at(0), slot(1), "a"));
        assert!(leases.renew(at(10), &kept));
        leases.expire(at(20));
        assert!(!leases.is_free(at(20), &slot(0)) && leases.is_free(at(20), &slot(1)));
        assert!(!leases.renew(at(20), &left));
    }

    #[test]
    fn an_outdated_epoch_changes_nothing() {
        let mut leases = Leases::new(LEASE, 0);
        let old = leases.grant(at(0), slot(0), "a");
        leases.expire(at(20));
        let new = leases.grant(at(21), slot(0), "b");
        assert!(new.epoch > old.epoch && !leases.renew(at(22), &old));
        leases.release(at(22), &old, Duration::ZERO);
        assert!(leases.renew(at(22), &new));
    }

    #[test]
    fn what_kills_its_workers_is_told() {
        let mut leases = Leases::new(LEASE, 0);
        let deadly = (1..=MAX_LOST).map(|n| {
            leases.grant(at(u64::from(n) * 100), slot(0), "a");
            leases.expire(at(u64::from(n) * 100 + 50))
        });
        let told: Vec<usize> = deadly.map(|slots| slots.len()).collect();
        assert_eq!(told, [0, 0, 0, 0, 1]);
    }

    #[test]
    fn a_pause_keeps_a_piece_back() {
        let mut leases = Leases::new(LEASE, 0);
        let lease = leases.grant(at(0), slot(0), "a");
        leases.release(at(1), &lease, at(2));
        assert!(!leases.is_free(at(2), &slot(0)) && leases.is_free(at(3), &slot(0)));
        assert_eq!(leases.deadline(at(1)), Some(at(3)));
    }
}
