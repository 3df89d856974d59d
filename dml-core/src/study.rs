//! A study: a search for the parameters with which a model of a table is best. Its trials are the units of one job, a
//! batch of them a round: whoever folds a round sees all scores so far, and what is tried next follows from those alone.
//! So the same trials are made on any number of workers, and on two sides of a partition none is made that the other
//! would not make.

use alloc::{collections::BTreeMap, format, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    id::Digest,
    job::{Job, JobSpec, Plan, Work},
    merge::{self, Merge},
    param::{Params, Value},
    training::{State, TrainingSpec},
};

/// The values among which a parameter is looked for.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// One of these.
    Values(Vec<Value>),
    /// A number between two others, each as likely as any.
    Uniform(f64, f64),
    /// A number between two others above 0, each order of magnitude as likely as any.
    Log(f64, f64),
    /// A whole number between two others, both included.
    Int(i64, i64),
    /// A whole number between two others above 0, both included, each order of magnitude as likely as any.
    LogInt(i64, i64),
}

/// A kind of model with what is tried of it.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Space {
    /// The kind.
    pub kind: String,
    /// The parameters that stay as they are.
    pub fixed: Params,
    /// The parameters that are looked for.
    pub dimensions: BTreeMap<String, Dimension>,
}

/// How the next trials are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Every combination of the values, in order.
    Grid,
    /// Any point of the space (Bergstra and Bengio 2012, "Random Search for Hyper-Parameter Optimization").
    Random,
    /// Points that share out each dimension evenly (McKay, Beckman, Conover 1979).
    LatinHypercube,
    /// Points near the good ones and far from the bad ones: a tree-structured Parzen estimator (Bergstra et al. 2011,
    /// "Algorithms for Hyper-Parameter Optimization").
    Tpe,
    /// Many random points with few rounds of learning each; the best part of them goes on, again and again (successive
    /// halving: Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification").
    Halving,
}

impl Strategy {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grid => "grid",
            Self::Random => "random",
            Self::LatinHypercube => "latin_hypercube",
            Self::Tpe => "tpe",
            Self::Halving => "halving",
        }
    }
}

/// What was asked for. It never changes, and the study's id is its digest.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct StudySpec {
    /// What each trial is: a training of one model, which is not among its models yet.
    pub training: TrainingSpec,
    /// What is tried.
    pub spaces: Vec<Space>,
    /// How the next trials are chosen.
    pub strategy: Strategy,
    /// How many there are.
    pub trials: u32,
    /// By halving: of so many trials one goes on.
    pub reduction: u32,
    /// The metric that says which is best.
    pub metric: String,
    /// How many of the best are trained to be kept.
    pub keep: u32,
    /// How the trials are cut into rounds.
    pub search: Plan,
}

/// The role of the job that makes the trials.
const SEARCH: &str = "search";

impl StudySpec {
    /// The study's id.
    pub fn id(&self) -> Digest {
        Digest::of_value(self)
    }

    fn prepare_role(split: usize) -> String {
        format!("prepare/{split}")
    }

    /// The id of the job that makes the trials.
    pub fn search_id(&self, study: Digest) -> Digest {
        study.child(SEARCH)
    }

    /// The jobs that the study needs now and that are not there.
    pub fn reconcile<'a>(&self, job: impl Fn(&Digest) -> Option<&'a Job>) -> Vec<JobSpec> {
        let id = self.id();
        let mut missing = Vec::new();
        let mut want = |role: String, plan: Plan, work: Work| {
            if job(&id.child(&role)).is_none() {
                missing.push(JobSpec { parent: Some(id), role, work, plan });
            }
        };
        let mut prepared = Vec::new();
        for (s, split) in self.training.judged_splits().into_iter().enumerate() {
            let role = Self::prepare_role(s);
            prepared.push(job(&id.child(&role)).and_then(Job::result));
            want(role, self.training.prepare, self.training.preparation(split));
        }
        if let Some(prepared) = prepared.into_iter().collect::<Option<Vec<_>>>() {
            want(SEARCH.into(), self.search, Work::Search { study: self.clone(), prepared });
        }
        missing
    }
}

/// What a study record holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Study {
    /// What was asked for.
    pub spec: StudySpec,
    /// A greater one is served first.
    pub priority: i32,
    /// How many times it was cancelled or taken up again, in turn: odd when it is cancelled.
    pub stops: u64,
}

impl Merge for Study {
    fn merge(&mut self, other: Self) -> bool {
        let learned = merge::greatest(&mut self.priority, other.priority);
        merge::greatest(&mut self.stops, other.stops) || learned
    }
}

/// How a study stands: a summary of its jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct StudyStatus {
    /// Queued, running, finished ...
    pub state: State,
    /// How much is done, in thousandths.
    pub permille: u32,
    /// Why it failed.
    pub error: Option<String>,
}

impl Study {
    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        !self.stops.is_multiple_of(2)
    }

    /// How it stands.
    pub fn status<'a>(&self, id: Digest, job: impl Fn(&Digest) -> Option<&'a Job>) -> StudyStatus {
        let prepare = 0..self.spec.training.judged_splits().len();
        let jobs = prepare.map(|s| id.child(&StudySpec::prepare_role(s))).chain([self.spec.search_id(id)]);
        let error = jobs.filter_map(|id| job(&id)).find_map(|job| job.failure.clone());
        let search = job(&self.spec.search_id(id));
        let permille = search.map_or(0, |search| search.progress.permille(&search.spec.plan));
        let state = match () {
            () if search.is_some_and(Job::is_finished) => State::Succeeded,
            () if error.is_some() => State::Failed,
            () if self.is_cancelled() => State::Cancelled,
            () if search.is_some() => State::Running,
            () => State::Queued,
        };
        StudyStatus { state, permille, error }
    }
}
