//! Leases on pieces of work. They only save work: a result is accepted from whoever brings it, as it is the same bytes.
//! A lease that is not renewed runs out, so a dead worker's work is free again without anybody deciding anything.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::{ops::RangeBounds, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    id::Digest,
    planted::{self, Bug},
};

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
    /// The thing that the job is part of: who owns it knows of the lease.
    pub root: Digest,
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
    /// How often a lease on the slot ran out, and when it may be tried again. Only of slots that are still wanted: see
    /// [`Leases::forget`].
    lost: BTreeMap<Slot, Lost>,
    /// How many leases it has granted, and how many of these ran out or died with their holder.
    pub(crate) granted: u64,
    pub(crate) lost_in_all: u64,
    /// Who was given a unit last, of jobs with several rounds of several units: it may have kept what the next round needs.
    hands: BTreeMap<(Digest, u32), String>,
}

#[derive(Default)]
struct Lost {
    times: u32,
    not_before: Option<Duration>,
}

/// After so many leases that were lost, a piece is taken to be what kills its workers.
pub const MAX_LOST: u32 = 5;

impl Leases {
    /// No leases yet. `first_epoch` grows with each start of the node.
    pub fn new(lease: Duration, first_epoch: u64) -> Self {
        Self {
            lease,
            epoch: first_epoch,
            held: BTreeMap::new(),
            lost: BTreeMap::new(),
            granted: 0,
            lost_in_all: 0,
            hands: BTreeMap::new(),
        }
    }

    /// Whether nobody holds it.
    pub fn is_free(&self, now: Duration, slot: &Slot) -> bool {
        !self.held.contains_key(slot)
            && self.lost.get(slot).and_then(|lost| lost.not_before).is_none_or(|at| at <= now)
    }

    /// Leases a free slot.
    pub fn grant(&mut self, now: Duration, slot: Slot, root: Digest, worker: &str) -> Lease {
        self.epoch += 1;
        self.granted += 1;
        self.held.insert(slot, Held { worker: worker.into(), epoch: self.epoch, until: now + self.lease });
        Lease { slot, root, epoch: self.epoch }
    }

    /// Remembers who was given a unit.
    pub fn remember(&mut self, slot: Slot, worker: &str) {
        if let Piece::Unit(unit) = slot.piece {
            self.hands.insert((slot.job, unit), worker.into());
        }
    }

    /// Who was given a unit of this job last, in this round or an earlier one, if it has not left since.
    pub fn last_hands(&self, job: Digest, unit: u32) -> Option<&str> {
        self.hands.get(&(job, unit)).map(String::as_str)
    }

    /// Renews a lease; false if it is no longer held.
    pub fn renew(&mut self, now: Duration, lease: &Lease) -> bool {
        match self.held.get_mut(&lease.slot) {
            Some(held) if held.epoch == lease.epoch || planted::is(Bug::EpochIgnored) => {
                held.until = now + self.lease;
                true
            }
            _ => false,
        }
    }

    /// Takes over a lease that another node granted, unless the slot is leased here.
    pub fn adopt(&mut self, until: Duration, lease: &Lease, worker: &str) {
        let held = || Held { worker: worker.into(), epoch: lease.epoch, until };
        self.held.entry(lease.slot).or_insert_with(held);
    }

    /// The leases on a job: slot, epoch, worker, and until when.
    pub fn of(&self, job: Digest) -> impl Iterator<Item = (Slot, u64, &str, Duration)> {
        let from = Slot { job, round: 0, piece: Piece::Unit(0) };
        let of_job = self.held.range(from..).take_while(move |(slot, _)| slot.job == job);
        of_job.map(|(slot, held)| (*slot, held.epoch, held.worker.as_str(), held.until))
    }

    /// Who holds leases, how many, and until when the last of them.
    pub fn workers(&self) -> BTreeMap<&str, (u32, Duration)> {
        let mut workers: BTreeMap<&str, (u32, Duration)> = BTreeMap::new();
        for held in self.held.values() {
            let (count, until) = workers.entry(held.worker.as_str()).or_default();
            (*count, *until) = (*count + 1, held.until.max(*until));
        }
        workers
    }

    /// Who holds a lease; none if it is no longer held.
    pub fn holder(&self, lease: &Lease) -> Option<&str> {
        let held = self.held.get(&lease.slot)?;
        (held.epoch == lease.epoch).then_some(held.worker.as_str())
    }

    /// Gives a lease back; the piece is free again after `pause`.
    pub fn release(&mut self, now: Duration, lease: &Lease, pause: Duration) {
        if self.held.get(&lease.slot).is_some_and(|held| held.epoch == lease.epoch) {
            self.held.remove(&lease.slot);
            if !pause.is_zero() {
                self.lost.entry(lease.slot).or_default().not_before = Some(now + pause);
            }
        }
    }

    /// Forgets everything about the slots of a job in these rounds: they are done, or not wanted.
    pub fn forget(&mut self, job: Digest, rounds: impl RangeBounds<u32>) {
        let from = Slot { job, round: 0, piece: Piece::Unit(0) };
        let to = Slot { job, round: u32::MAX, piece: Piece::Fold };
        self.held.extract_if(from..=to, |slot, _| rounds.contains(&slot.round)).for_each(drop);
        self.lost.extract_if(from..=to, |slot, _| rounds.contains(&slot.round)).for_each(drop);
    }

    /// Forgets everything about a job.
    pub fn close(&mut self, job: Digest) {
        self.forget(job, ..);
        self.hands.extract_if((job, 0)..=(job, u32::MAX), |_, _| true).for_each(drop);
    }

    /// Forgets a piece that is done.
    pub fn done(&mut self, slot: &Slot) {
        self.held.remove(slot);
        self.lost.remove(slot);
    }

    /// Frees every lease that has run out by now and ends every pause that is over. Gives the slots that are free again.
    pub fn expire(&mut self, now: Duration) -> Vec<Slot> {
        let over = self.held.extract_if(.., |_, held| held.until <= now);
        let mut freed: Vec<Slot> = over.map(|(slot, _)| slot).collect();
        for slot in &freed {
            self.lost.entry(*slot).or_default().times += 1;
            self.lost_in_all += 1;
        }
        for (slot, lost) in &mut self.lost {
            if lost.not_before.take_if(|at| *at <= now).is_some() && !self.held.contains_key(slot) {
                freed.push(*slot);
            }
        }
        self.lost.retain(|_, lost| lost.times > 0 || lost.not_before.is_some());
        freed
    }

    /// How often a lease on it ran out, or died with its holder.
    pub fn lost(&self, slot: &Slot) -> u32 {
        self.lost.get(slot).map_or(0, |lost| lost.times)
    }

    /// Frees everything that a worker holds: it said goodbye, or was found dead. Gives the slots that are free again.
    pub fn release_all(&mut self, worker: &str, dead: bool) -> Vec<Slot> {
        self.hands.retain(|_, hands| hands != worker);
        let over = self.held.extract_if(.., |_, held| held.worker == worker);
        let freed: Vec<Slot> = over.map(|(slot, _)| slot).collect();
        for slot in freed.iter().filter(|_| dead) {
            self.lost.entry(*slot).or_default().times += 1;
            self.lost_in_all += 1;
        }
        freed
    }

    /// When the next lease runs out or the next pause ends.
    pub fn deadline(&self) -> Option<Duration> {
        let held = self.held.values().map(|held| held.until);
        let pauses = self.lost.values().filter_map(|lost| lost.not_before);
        held.chain(pauses).min()
    }

    /// How many pieces are leased.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// How many pieces of a job are leased.
    pub fn count(&self, job: Digest) -> u32 {
        let from = Slot { job, round: 0, piece: Piece::Unit(0) };
        self.held.range(from..).take_while(|(slot, _)| slot.job == job).count() as u32
    }

    /// The jobs of which anything is remembered.
    #[cfg(test)]
    pub(crate) fn jobs(&self) -> impl Iterator<Item = Digest> {
        let slots = self.held.keys().chain(self.lost.keys()).map(|slot| slot.job);
        slots.chain(self.hands.keys().map(|(job, _)| *job))
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
    const ROOT: Digest = Digest::MIN;

    fn slot(unit: u32) -> Slot {
        Slot { job: Digest::of(b"job"), round: 0, piece: Piece::Unit(unit) }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_runs_out_unless_renewed() {
        let mut leases = Leases::new(LEASE, 0);
        let (kept, left) = (leases.grant(at(0), slot(0), ROOT, "a"), leases.grant(at(0), slot(1), ROOT, "a"));
        assert!(leases.renew(at(10), &kept));
        leases.expire(at(20));
        assert!(!leases.is_free(at(20), &slot(0)) && leases.is_free(at(20), &slot(1)));
        assert!(!leases.renew(at(20), &left));
    }

    #[test]
    fn an_outdated_epoch_changes_nothing() {
        let mut leases = Leases::new(LEASE, 0);
        let old = leases.grant(at(0), slot(0), ROOT, "a");
        leases.expire(at(20));
        let new = leases.grant(at(21), slot(0), ROOT, "b");
        assert!(new.epoch > old.epoch && !leases.renew(at(22), &old));
        leases.release(at(22), &old, Duration::ZERO);
        assert!(leases.renew(at(22), &new));
    }

    #[test]
    fn leases_that_run_out_are_counted() {
        let mut leases = Leases::new(LEASE, 0);
        let lost = (1..=3).map(|n| {
            leases.grant(at(n * 100), slot(0), ROOT, "a");
            leases.expire(at(n * 100 + 50));
            leases.lost(&slot(0))
        });
        assert_eq!(lost.collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(leases.lost(&slot(1)), 0);
    }

    #[test]
    fn a_pause_keeps_a_piece_back() {
        let mut leases = Leases::new(LEASE, 0);
        let lease = leases.grant(at(0), slot(0), ROOT, "a");
        leases.release(at(1), &lease, at(2));
        assert!(!leases.is_free(at(2), &slot(0)) && leases.is_free(at(3), &slot(0)));
        assert_eq!(leases.deadline(), Some(at(3)));
        assert_eq!([leases.expire(at(3)), leases.expire(at(3))], [alloc::vec![slot(0)], Vec::new()]);
        assert_eq!(leases.deadline(), None);
    }

    #[test]
    fn a_holder_who_leaves_frees_only_its_own() {
        let mut leases = Leases::new(LEASE, 0);
        let (a, b) = (leases.grant(at(0), slot(0), ROOT, "a"), leases.grant(at(0), slot(1), ROOT, "b"));
        assert_eq!((leases.holder(&a), leases.held_by("a")), (Some("a"), 1));
        assert_eq!(leases.release_all("a", false), [slot(0)]);
        assert_eq!((leases.holder(&a), leases.holder(&b)), (None, Some("b")));
    }

    #[test]
    fn what_is_not_wanted_leaves_no_trace() {
        let mut leases = Leases::new(LEASE, 0);
        let other = Slot { job: Digest::of(b"other"), ..slot(0) };
        let in_round = |round, piece| Slot { round, piece, ..slot(0) };
        let slots =
            [in_round(0, Piece::Unit(7)), in_round(0, Piece::Fold), in_round(1, Piece::Unit(0)), other];
        for slot in slots {
            leases.grant(at(0), slot, ROOT, "a");
        }
        leases.forget(slot(0).job, ..1);
        assert_eq!((leases.count(slot(0).job), leases.count(other.job)), (1, 1));
        leases.expire(at(20));
        assert_eq!(leases.lost.len(), 2);
        leases.forget(slot(0).job, ..);
        assert_eq!(leases.lost.keys().collect::<Vec<_>>(), [&other]);
    }
}
