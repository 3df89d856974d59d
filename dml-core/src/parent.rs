//! What has jobs below it: a training or a study. A db node treats all alike: it makes the jobs that are missing, serves
//! them by the parent's priority and age, and stops when it is cancelled. A new kind of work is one more of them.

use alloc::{collections::BTreeSet, vec::Vec};

use crate::{
    id::Digest,
    job::{Job, JobSpec},
    record::Body,
    study::Study,
    training::{self, Training, state_of},
};

/// The content of a record whose jobs are records of their own.
#[derive(Debug, Clone, Copy)]
pub enum Parent<'a> {
    /// A training.
    Training(&'a Training),
    /// A study.
    Study(&'a Study),
}

impl<'a> Parent<'a> {
    /// What may have jobs, if this body may.
    pub fn of(body: &'a Body) -> Option<Self> {
        match body {
            Body::Training(training) => Some(Self::Training(training)),
            Body::Study(study) => Some(Self::Study(study)),
            Body::Dataset(_) | Body::Job(_) | Body::Token(_) | Body::Revocation(_) => None,
        }
    }

    /// A greater one is served first.
    pub fn priority(self) -> i32 {
        match self {
            Self::Training(training) => training.priority,
            Self::Study(study) => study.priority,
        }
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(self) -> bool {
        match self {
            Self::Training(training) => training.is_cancelled(),
            Self::Study(study) => study.is_cancelled(),
        }
    }

    /// The dataset that it learns from.
    pub fn dataset(self) -> Digest {
        match self {
            Self::Training(training) => training.spec.problem.dataset,
            Self::Study(study) => study.spec.training.problem.dataset,
        }
    }

    /// The jobs that it needs now and that are not there.
    pub fn reconcile<'j>(self, job: impl Fn(&Digest) -> Option<&'j Job>) -> Vec<JobSpec> {
        match self {
            Self::Training(training) => training::reconcile(&training.spec, job),
            Self::Study(study) => study.spec.reconcile(job),
        }
    }

    /// Those of its jobs that are worth doing: the ones behind what can still be had, unless it was cancelled.
    pub fn wanted<'j>(
        self,
        id: Digest,
        jobs: impl Iterator<Item = Digest>,
        job: impl Fn(&Digest) -> Option<&'j Job>,
    ) -> BTreeSet<Digest> {
        if self.is_cancelled() {
            return BTreeSet::new();
        }
        let failed = |id: &Digest| job(id).is_some_and(|job| job.failure.is_some());
        match self {
            Self::Training(training) => {
                let models = (0..training.spec.models.len()).map(|m| training.spec.jobs_of(id, m));
                models.filter(|jobs| !jobs.iter().any(failed)).flatten().collect()
            }
            Self::Study(_) => {
                let jobs: BTreeSet<Digest> = jobs.collect();
                if jobs.iter().any(failed) { BTreeSet::new() } else { jobs }
            }
        }
    }

    /// Whether something of it is still to be done.
    pub fn is_unfinished<'j>(self, id: Digest, job: impl Fn(&Digest) -> Option<&'j Job>) -> bool {
        match self {
            Self::Training(training) => {
                let models = 0..training.spec.models.len();
                let models: Vec<_> = models.map(|m| training.model_status(m, &job)).collect();
                !state_of(&models).is_final()
            }
            Self::Study(study) => !study.status(id, job).state.is_final(),
        }
    }
}

/// Counts one more cancellation or taking up again.
pub(crate) fn stop_or_go_on(body: &mut Body) {
    match body {
        Body::Training(training) => training.stops += 1,
        Body::Study(study) => study.stops += 1,
        Body::Dataset(_) | Body::Job(_) | Body::Token(_) | Body::Revocation(_) => {}
    }
}
