//! The one-machine for-loop: what every run of a cluster must end with. Units are hashes of all that they may depend on.

use std::collections::BTreeMap;

use dml_core::{Digest, Job, JobSpec, Progress, TrainingSpec, training};

/// A unit's partial.
pub(crate) fn unit(spec: &JobSpec, round: u32, index: u32, state: Option<Digest>) -> Digest {
    Digest::of_value(&("unit", spec, round, index, state))
}

/// A round's new state, and whether the job is finished with it: some jobs are before their last round.
pub(crate) fn fold(spec: &JobSpec, round: u32, state: Option<Digest>, partials: &[Digest]) -> (Digest, bool) {
    let next = Digest::of_value(&("fold", spec, round, state, partials));
    (next, next.seed().is_multiple_of(5))
}

/// The end of a job.
pub(crate) fn job(spec: &JobSpec) -> Progress {
    let plan = spec.plan;
    let units = |round, state| (0..plan.units).map(move |index| unit(spec, round, index, state));
    if !plan.fold {
        return Progress { units: (0..).zip(units(0, None)).collect(), ..Progress::default() };
    }
    let mut progress = Progress::default();
    while progress.round < plan.rounds {
        let partials: Vec<Digest> = units(progress.round, progress.state).collect();
        let (state, finished) = fold(spec, progress.round, progress.state, &partials);
        progress.state = Some(state);
        progress.round = if finished { plan.rounds } else { progress.round + 1 };
    }
    progress
}

/// All jobs of a training, finished.
pub(crate) fn training(spec: &TrainingSpec) -> BTreeMap<Digest, Job> {
    let mut jobs = BTreeMap::new();
    loop {
        let missing = training::reconcile(spec, |id| jobs.get(id));
        if missing.is_empty() {
            return jobs;
        }
        for spec in missing {
            jobs.insert(spec.id(), Job { progress: job(&spec), ..Job::new(spec) });
        }
    }
}
