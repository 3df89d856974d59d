//! The one-machine for-loop: what every run of a cluster must end with, and pass through on the way. Units are hashes of
//! all that they may depend on.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::{
    id::Digest,
    job::{Job, JobSpec, Progress},
    lease::Piece,
    node::{Assignment, Outcome},
    parent::Parent,
};

/// Every round of a job with all its units, and the end.
pub(super) struct Course {
    rounds: Vec<Progress>,
    end: Progress,
}

impl Course {
    /// Carries a job out.
    pub(super) fn of(spec: &JobSpec) -> Self {
        let (plan, name) = (spec.plan, Digest::of_value(spec));
        let mut rounds = Vec::new();
        let mut now = Progress::default();
        while now.round < plan.rounds {
            now.units =
                (0..plan.units).map(|index| (index, unit(name, now.round, index, now.state))).collect();
            rounds.push(now.clone());
            if !plan.fold {
                break;
            }
            let (state, finished) = fold(name, now.round, now.state, &now.units);
            let round = if finished { plan.rounds } else { now.round + 1 };
            now = Progress { round, state: Some(state), units: BTreeMap::new() };
        }
        Self { rounds, end: now }
    }

    /// The job's progress when it is finished.
    pub(super) fn end(&self) -> &Progress {
        &self.end
    }

    /// Whether the for-loop passes through this.
    pub(super) fn has(&self, progress: &Progress) -> bool {
        if *progress == self.end {
            return true;
        }
        let round = self.rounds.iter().find(|round| round.round == progress.round);
        round.is_some_and(|round| {
            let known = |(unit, partial): (&u32, &Digest)| round.units.get(unit) == Some(partial);
            round.state == progress.state && progress.units.iter().all(known)
        })
    }
}

/// All jobs of a training or study, finished.
pub(super) fn jobs_of(parent: Parent<'_>) -> Vec<(Digest, Course)> {
    let (mut jobs, mut courses) = (BTreeMap::new(), Vec::new());
    loop {
        let missing = parent.reconcile(|id| jobs.get(id));
        if missing.is_empty() {
            return courses;
        }
        for spec in missing {
            let course = Course::of(&spec);
            jobs.insert(spec.id(), Job { progress: course.end.clone(), ..Job::new(spec.clone()) });
            courses.push((spec.id(), course));
        }
    }
}

/// What a worker makes of a piece of work.
pub(super) fn compute(assignment: &Assignment) -> Outcome {
    let Assignment { lease, spec, progress, .. } = assignment;
    let (round, state, name) = (lease.slot.round, progress.state, Digest::of_value(spec));
    match lease.slot.piece {
        Piece::Unit(index) => Outcome::Partial(unit(name, round, index, state)),
        Piece::Fold => {
            let mut partials = progress.units.clone();
            if partials.is_empty() && spec.plan.units == 1 {
                partials.insert(0, unit(name, round, 0, state));
            }
            let (state, finished) = fold(name, round, state, &partials);
            Outcome::State { state, finished }
        }
    }
}

fn unit(job: Digest, round: u32, index: u32, state: Option<Digest>) -> Digest {
    Digest::of_value(&("unit", job, round, index, state))
}

/// A round's new state, and whether the job is finished with it: some jobs are before their last round.
fn fold(job: Digest, round: u32, state: Option<Digest>, partials: &BTreeMap<u32, Digest>) -> (Digest, bool) {
    let next = Digest::of_value(&("fold", job, round, state, partials));
    (next, next.seed().is_multiple_of(5))
}
