//! Which job is served next: the greatest priority, then the least served, then one whose data the worker holds, then
//! the oldest. Jobs with nothing to hand out are set aside, so that a choice costs no more with many open jobs.

use alloc::collections::{BTreeMap, BTreeSet};
use core::cmp::Reverse;

use crate::id::Digest;

/// The order in which jobs are served: the least comes first.
pub type Turn = (Reverse<i32>, u64, Reverse<bool>, u64, Digest);

/// What decides a job's place in the order, beside how much it was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// A greater one is served first.
    pub priority: i32,
    /// The oldest is served first.
    pub created_ms: u64,
    /// The data that the job reads.
    pub dataset: Digest,
}

/// An open job.
struct Open {
    standing: Standing,
    served: u64,
    /// Whether it may have something to hand out.
    ready: bool,
}

impl Open {
    fn place(&self, job: Digest) -> Place {
        (Reverse(self.standing.priority), self.served, self.standing.created_ms, job)
    }
}

/// A job's place among those whose data are equally near.
type Place = (Reverse<i32>, u64, u64, Digest);

/// How much each open job was served, and which of them may have something to hand out.
#[derive(Default)]
pub struct Shares {
    open: BTreeMap<Digest, Open>,
    /// How many open jobs were served so often.
    levels: BTreeMap<u64, usize>,
    ready: BTreeSet<Place>,
    /// The ready ones, by dataset.
    near: BTreeSet<(Digest, Place)>,
}

impl Shares {
    /// A job opens, or its standing changes. One that opens is as well served as the least served one: it neither waits
    /// for the others nor makes them wait.
    pub fn open(&mut self, job: Digest, standing: Standing) {
        let least = self.levels.keys().next().copied().unwrap_or(0);
        let served = self.take(&job).map_or(least, |open| open.served);
        self.place(job, Open { standing, served, ready: true });
    }

    /// A job that is no longer open.
    pub fn close(&mut self, job: &Digest) {
        self.take(job);
    }

    /// A piece of it was handed out.
    pub fn serve(&mut self, job: &Digest) {
        self.change(job, |open| open.served += 1);
    }

    /// It may have something to hand out.
    pub fn wake(&mut self, job: &Digest) {
        self.change(job, |open| open.ready = true);
    }

    /// It has nothing to hand out until it wakes.
    pub fn rest(&mut self, job: &Digest) {
        self.change(job, |open| open.ready = false);
    }

    /// The job whose turn it is, for a worker that has these data at hand.
    pub fn next(&self, have: &[Digest]) -> Option<Digest> {
        let any = turn(self.ready.first()?, false);
        let near = have.iter().filter_map(|dataset| {
            let from = (*dataset, (Reverse(i32::MAX), 0, 0, Digest::MIN));
            let (of, place) = self.near.range(from..).next()?;
            (of == dataset).then(|| turn(place, true))
        });
        near.chain([any]).min().map(|(.., job)| job)
    }

    /// Whether a job is open.
    pub fn is_open(&self, job: &Digest) -> bool {
        self.open.contains_key(job)
    }

    /// How many jobs are open.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// How many jobs may have something to hand out, and the greatest priority among them.
    pub fn ready(&self) -> (u32, i32) {
        let priority = self.ready.first().map_or(0, |(Reverse(priority), ..)| *priority);
        (self.ready.len() as u32, priority)
    }

    /// The open jobs.
    #[cfg(test)]
    pub(crate) fn jobs(&self) -> impl Iterator<Item = Digest> {
        self.open.keys().copied()
    }

    fn change(&mut self, job: &Digest, change: impl FnOnce(&mut Open)) {
        if let Some(mut open) = self.take(job) {
            change(&mut open);
            self.place(*job, open);
        }
    }

    fn place(&mut self, job: Digest, open: Open) {
        if open.ready {
            self.ready.insert(open.place(job));
            self.near.insert((open.standing.dataset, open.place(job)));
        }
        *self.levels.entry(open.served).or_default() += 1;
        self.open.insert(job, open);
    }

    fn take(&mut self, job: &Digest) -> Option<Open> {
        let open = self.open.remove(job)?;
        self.ready.remove(&open.place(*job));
        self.near.remove(&(open.standing.dataset, open.place(*job)));
        let level = self.levels.get_mut(&open.served).expect("every open job was counted");
        *level -= 1;
        if *level == 0 {
            self.levels.remove(&open.served);
        }
        Some(open)
    }
}

fn turn(&(priority, served, created, job): &Place, local: bool) -> Turn {
    (priority, served, Reverse(local), created, job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};
    use proptest::prelude::*;

    fn id(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn standing(priority: i32, created_ms: u64, dataset: u8) -> Standing {
        Standing { priority, created_ms, dataset: id(dataset) }
    }

    #[test]
    fn jobs_take_turns_and_a_latecomer_gets_no_more_than_its_share() {
        let mut shares = Shares::default();
        let mut order = Vec::new();
        [0, 1].into_iter().for_each(|job| shares.open(id(job), standing(0, 0, 9)));
        for step in 0..100 {
            if step == 40 {
                shares.open(id(2), standing(0, 0, 9));
            }
            let next = shares.next(&[]).expect("jobs are open");
            shares.serve(&next);
            order.push(next);
        }
        let count = |part: &[Digest], job| part.iter().filter(|served| **served == id(job)).count();
        assert_eq!([count(&order[..40], 0), count(&order[..40], 1)], [20, 20]);
        assert_eq!([0, 1, 2].map(|job| count(&order[40..], job)), [20, 20, 20]);
    }

    #[test]
    fn a_latecomer_is_as_well_served_as_the_least_served() {
        let mut shares = Shares::default();
        [0, 1].into_iter().for_each(|job| shares.open(id(job), standing(0, 0, 9)));
        (0..9).for_each(|_| shares.serve(&id(0)));
        shares.serve(&id(1));
        shares.open(id(2), standing(0, 1, 9));
        let order = [(); 4].map(|()| {
            let next = shares.next(&[]).expect("jobs are open");
            shares.serve(&next);
            next
        });
        assert_eq!(order, [1, 2, 1, 2].map(id));
    }

    #[test]
    fn priority_then_service_then_locality_then_age() {
        let mut shares = Shares::default();
        shares.open(id(0), standing(0, 1, 8));
        shares.open(id(1), standing(0, 2, 9));
        assert_eq!(shares.next(&[]), Some(id(0)), "the older");
        assert_eq!(shares.next(&[id(9)]), Some(id(1)), "the nearer");
        shares.serve(&id(1));
        assert_eq!(shares.next(&[id(9)]), Some(id(0)), "the less served");
        shares.open(id(1), standing(1, 2, 9));
        assert_eq!(shares.next(&[]), Some(id(1)), "the more urgent");
        shares.rest(&id(1));
        assert_eq!(shares.next(&[id(9)]), Some(id(0)), "one that has something");
        shares.rest(&id(0));
        assert_eq!(shares.next(&[id(9)]), None);
        shares.wake(&id(0));
        shares.close(&id(0));
        assert_eq!(shares.next(&[id(8), id(9)]), None);
    }

    proptest! {
        /// The index chooses what a scan of all jobs would choose.
        #[test]
        fn the_index_is_true(moves in proptest::collection::vec((0u8..6, 0u8..6, -1i32..2, 0u64..3, 0u8..3), 1..60)) {
            let mut shares = Shares::default();
            for (what, job, priority, created, dataset) in moves {
                match what {
                    0 | 1 => shares.open(id(job), standing(priority, created, dataset)),
                    2 => shares.serve(&id(job)),
                    3 => shares.wake(&id(job)),
                    4 => shares.rest(&id(job)),
                    _ => shares.close(&id(job)),
                }
                for have in [vec![], vec![id(0)], vec![id(1), id(2)]] {
                    let ready = shares.open.iter().filter(|(_, open)| open.ready);
                    let turns = ready.map(|(job, open)| turn(&open.place(*job), have.contains(&open.standing.dataset)));
                    prop_assert_eq!(shares.next(&have), turns.min().map(|(.., job)| job));
                }
            }
            let jobs: Vec<Digest> = shares.open.keys().copied().collect();
            jobs.iter().for_each(|job| shares.close(job));
            prop_assert!(shares.levels.is_empty() && shares.ready.is_empty() && shares.near.is_empty());
        }
    }
}
