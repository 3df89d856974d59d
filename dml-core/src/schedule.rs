//! Which job is served next: the greatest priority, then the least served, then one whose data the worker holds, then
//! the oldest.

use alloc::collections::BTreeMap;
use core::cmp::Reverse;

use crate::id::Digest;

/// The order in which jobs are served: the least comes first.
pub type Turn = (Reverse<i32>, u64, Reverse<bool>, u64, Digest);

/// How much each open job was served.
#[derive(Default)]
pub struct Shares {
    served: BTreeMap<Digest, u64>,
}

impl Shares {
    /// A job that opens is as well served as the least served one: it neither waits for the others nor makes them wait.
    pub fn open(&mut self, job: Digest) {
        let least = self.served.values().copied().min().unwrap_or(0);
        self.served.entry(job).or_insert(least);
    }

    /// A job that is no longer open.
    pub fn close(&mut self, job: &Digest) {
        self.served.remove(job);
    }

    /// A piece of it was handed out.
    pub fn serve(&mut self, job: &Digest) {
        if let Some(served) = self.served.get_mut(job) {
            *served += 1;
        }
    }

    /// The open jobs.
    pub fn jobs(&self) -> impl Iterator<Item = &Digest> {
        self.served.keys()
    }

    /// Its place in the order.
    pub fn turn(&self, job: Digest, priority: i32, local: bool, created_ms: u64) -> Turn {
        let served = self.served.get(&job).copied().unwrap_or(0);
        (Reverse(priority), served, Reverse(local), created_ms, job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn jobs_take_turns_and_a_latecomer_gets_no_more_than_its_share() {
        let (a, b, c) = (Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c"));
        let mut shares = Shares::default();
        let mut order = Vec::new();
        [a, b].into_iter().for_each(|job| shares.open(job));
        for step in 0..9 {
            if step == 4 {
                shares.open(c);
            }
            let next =
                *shares.jobs().min_by_key(|job| shares.turn(**job, 0, false, 0)).expect("jobs are open");
            shares.serve(&next);
            order.push(next);
        }
        let count = |job| order[4..].iter().filter(|served| **served == job).count();
        assert!(count(a) >= 1 && count(b) >= 1 && count(c) <= 3);
        assert_eq!(order[..4].iter().filter(|served| **served == a).count(), 2);
    }

    #[test]
    fn priority_then_service_then_locality_then_age() {
        let job = Digest::of(b"job");
        let shares = Shares::default();
        let turn = |priority, local, created| shares.turn(job, priority, local, created);
        assert!(turn(1, false, 9) < turn(0, true, 0));
        assert!(turn(0, true, 9) < turn(0, false, 0));
        assert!(turn(0, true, 1) < turn(0, true, 2));
    }
}
