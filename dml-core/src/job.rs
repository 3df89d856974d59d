//! All computation is one shape: a job has rounds, a round has units, a unit is a deterministic function
//! `unit(job, round, index, state) -> partial`, and a fold `fold(state, partials in index order) -> state` closes
//! the round. How a job is cut depends on the data and the spec alone, never on the cluster.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::{
    ensemble::Bag,
    id::Digest,
    lease::Piece,
    merge::{self, Merge},
    param::Params,
    planted::{self, Bug},
    split::Split,
    study::StudySpec,
};

/// The kind of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// The target is a number.
    Regression,
    /// The target is one of several classes.
    Classification,
}

/// How a job is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Plan {
    /// How many rounds there are at most: a fold may say that the job is finished earlier.
    pub rounds: u32,
    /// How many units each round has.
    pub units: u32,
    /// Whether a round ends with a fold. Without one the job has one round, and its partials are its result.
    pub fold: bool,
}

impl Plan {
    /// One unit a round: the work is sequential, or too small to be shared out.
    pub fn sequential(rounds: u32) -> Self {
        Self { rounds: rounds.max(1), units: 1, fold: true }
    }

    /// `rounds` rounds over all rows, in units of neighbouring chunks with about `rows_per_unit` rows each.
    pub fn over_chunks(rounds: u32, rows: u64, chunks: usize, rows_per_unit: u64) -> Self {
        let units = rows.div_ceil(rows_per_unit.max(1)).clamp(1, (chunks as u64).max(1));
        Self { rounds: rounds.max(1), units: units as u32, fold: true }
    }

    /// Whether the same units come back round after round, so that it pays to give them to the same workers.
    pub fn has_shards(&self) -> bool {
        self.rounds > 1 && self.units > 1
    }

    /// Whether a round may have such a piece.
    pub fn has(&self, piece: Piece) -> bool {
        match piece {
            Piece::Unit(unit) => unit < self.units,
            Piece::Fold => self.fold,
        }
    }

    /// The share of `count` things, in order, that falls to the unit `index`.
    pub fn share(&self, index: u32, count: usize) -> core::ops::Range<usize> {
        let at = |i: u32| (i as u128 * count as u128 / u128::from(self.units.max(1))) as usize;
        at(index)..at(index + 1)
    }
}

/// What is learned, from which columns of which dataset.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Problem {
    /// Regression or classification.
    pub task: Task,
    /// The dataset's id.
    pub dataset: Digest,
    /// The column to predict.
    pub target: String,
    /// The columns to predict it from, in the dataset's order.
    pub features: Vec<String>,
}

/// What a job does. Blobs are named by digest, so that equal work has equal inputs.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Statistics of the training rows, from which every model's preprocessing is made.
    Prepare {
        /// What is learned.
        problem: Problem,
        /// Which rows are for training.
        split: Split,
        /// Chooses the sample of rows.
        seed: u64,
    },
    /// A model.
    Fit {
        /// What is learned.
        problem: Problem,
        /// Which rows are for training.
        split: Split,
        /// The result of the `Prepare` job of the same split.
        prepared: Digest,
        /// The kind of model.
        kind: String,
        /// Its parameters, complete.
        params: Params,
        /// The source of everything random in it.
        seed: u64,
        /// The part of the training rows that it learns from; all if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bag: Option<Bag>,
    },
    /// The quality of a model, or of the models of all folds together, on the rows each did not learn from.
    Evaluate {
        /// What was learned.
        problem: Problem,
        /// A model and the split that it was trained with; several for cross-validation.
        models: Vec<(Digest, Split)>,
    },
    /// The trials of a study.
    Search {
        /// What is looked for.
        study: StudySpec,
        /// The results of the `Prepare` jobs of the splits by which trials are judged.
        prepared: Vec<Digest>,
    },
    /// The predictions of a model for every row of a dataset.
    Predict {
        /// The model: the result of a `Fit` job.
        model: Digest,
        /// The dataset's id.
        dataset: Digest,
    },
}

impl Work {
    /// The dataset that the job reads.
    pub fn dataset(&self) -> Digest {
        match self {
            Self::Prepare { problem, .. } | Self::Fit { problem, .. } | Self::Evaluate { problem, .. } => {
                problem.dataset
            }
            Self::Search { study, .. } => study.training.problem.dataset,
            Self::Predict { dataset, .. } => *dataset,
        }
    }

    /// The blobs that the job reads, beside the dataset's chunks.
    pub fn blobs(&self) -> Vec<Digest> {
        match self {
            Self::Prepare { .. } => Vec::new(),
            Self::Fit { prepared, .. } => alloc::vec![*prepared],
            Self::Evaluate { models, .. } => models.iter().map(|(model, _)| *model).collect(),
            Self::Search { prepared, .. } => prepared.clone(),
            Self::Predict { model, .. } => alloc::vec![*model],
        }
    }

    /// Whether a unit that kills whoever works on it may be given up: the trials of a study fail alone.
    pub fn can_give_up(&self) -> bool {
        match self {
            Self::Search { .. } => true,
            Self::Prepare { .. } | Self::Fit { .. } | Self::Evaluate { .. } | Self::Predict { .. } => false,
        }
    }
}

/// A job, as it was asked for. It never changes.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct JobSpec {
    /// The training or study that it is part of; none for a prediction.
    pub parent: Option<Digest>,
    /// What it is to its parent: `prepare/0`, `fit/2/0`, `evaluate/2`, `search`, or `predict`.
    pub role: String,
    /// What it does.
    pub work: Work,
    /// How it is cut.
    pub plan: Plan,
}

impl JobSpec {
    /// The job's id: that of the child with this role, or the digest of the whole spec.
    pub fn id(&self) -> Digest {
        match &self.parent {
            Some(parent) => parent.child(&self.role),
            None => Digest::of_value(self),
        }
    }
}

/// How far a job has come: which round it is in, the state that the round began with, and the units done in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The round that is being computed; the plan's number of rounds when the job is finished.
    pub round: u32,
    /// The result of the last fold; none before the first.
    pub state: Option<Digest>,
    /// The partials of this round, by unit.
    pub units: BTreeMap<u32, Digest>,
}

impl Progress {
    /// Whether nothing is left to do.
    pub fn is_finished(&self, plan: &Plan) -> bool {
        self.round >= plan.rounds || !plan.fold && self.units.len() as u64 >= u64::from(plan.units)
    }

    /// Whether all units of the round are done and only the fold is left.
    pub fn is_foldable(&self, plan: &Plan) -> bool {
        let missing = u64::from(planted::is(Bug::FoldsIncompleteRound));
        plan.fold && self.round < plan.rounds && self.units.len() as u64 + missing >= u64::from(plan.units)
    }

    /// How much of the job is done, in thousandths.
    pub fn permille(&self, plan: &Plan) -> u32 {
        if self.is_finished(plan) {
            return 1000;
        }
        let (rounds, units) = (u64::from(plan.rounds.max(1)), u64::from(plan.units.max(1)));
        let done = u64::from(self.round) * units + self.units.len() as u64;
        (done * 1000 / (rounds * units)).min(999) as u32
    }
}

impl Merge for Progress {
    /// The greater round wins; in the same round the finished units unite, so that the work of both sides of a
    /// partition counts. Two different states of one round cannot be, as a fold is a function; should corruption
    /// bring one about, the greater digest wins everywhere ([`Progress::diverges`] tells).
    fn merge(&mut self, other: Self) -> bool {
        let order = (self.round, self.state).cmp(&(other.round, other.state));
        match if planted::is(Bug::LesserRoundWins) { order.reverse() } else { order } {
            Ordering::Less => {
                *self = other;
                true
            }
            Ordering::Equal if planted::is(Bug::MergeForgetsUnits) => {
                let learned = self.units != other.units;
                self.units = other.units;
                learned
            }
            Ordering::Equal => {
                let mut learned = false;
                for (unit, partial) in other.units {
                    learned |= match self.units.get_mut(&unit) {
                        Some(mine) => merge::greatest(mine, partial),
                        None => self.units.insert(unit, partial).is_none(),
                    };
                }
                learned
            }
            Ordering::Greater => false,
        }
    }
}

impl Progress {
    /// Whether two copies contradict each other: an alarm, for it means corruption or a unit that is no function.
    pub fn diverges(&self, other: &Self) -> bool {
        let same_round = self.round == other.round;
        same_round
            && (self.state != other.state
                || self.units.iter().any(|(u, p)| other.units.get(u).is_some_and(|o| o != p)))
    }
}

/// What a job record holds: the spec, how far it has come, and why it failed if it did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// What was asked for.
    pub spec: JobSpec,
    /// How far it has come.
    pub progress: Progress,
    /// Why it cannot be finished: what a unit said of its input.
    pub failure: Option<String>,
}

impl Job {
    /// A job of which nothing is done yet.
    pub fn new(spec: JobSpec) -> Self {
        Self { spec, progress: Progress::default(), failure: None }
    }

    /// Whether there is nothing left to do and the result is there.
    pub fn is_finished(&self) -> bool {
        self.progress.is_finished(&self.spec.plan)
    }

    /// Whether two copies contradict each other: see [`Progress::diverges`].
    pub fn diverges(&self, other: &Self) -> bool {
        self.spec != other.spec || self.progress.diverges(&other.progress)
    }

    /// Whether there is work left in it.
    pub fn is_open(&self) -> bool {
        !self.is_finished() && self.failure.is_none()
    }

    /// The result: the last state of a finished job that folds.
    pub fn result(&self) -> Option<Digest> {
        if self.is_finished() && self.spec.plan.fold { self.progress.state } else { None }
    }
}

impl Merge for Job {
    /// Two specs under one id cannot be, unless what a spec was made from was corrupt on one side: then the greater one
    /// wins everywhere, as text, with all that was done for it.
    fn merge(&mut self, other: Self) -> bool {
        if self.spec != other.spec {
            let text = |spec: &JobSpec| serde_json::to_vec(spec).expect("specs have string keys");
            let learned = text(&self.spec) < text(&other.spec);
            if learned {
                *self = other;
            }
            return learned;
        }
        let mut learned = self.progress.merge(other.progress);
        if let Some(theirs) = other.failure
            && self.failure.as_ref().is_none_or(|mine| theirs < *mine)
        {
            self.failure = Some(theirs);
            learned = true;
        }
        learned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn progress() -> impl Strategy<Value = Progress> {
        let digest = (0u8..4).prop_map(|n| Digest::of(&[n]));
        let units = proptest::collection::btree_map(0u32..4, digest.clone(), 0..4);
        (0u32..3, proptest::option::of(digest), units).prop_map(|(round, state, units)| Progress {
            round,
            state,
            units,
        })
    }

    fn merged(mut a: Progress, b: Progress) -> Progress {
        a.merge(b);
        a
    }

    proptest! {
        #[test]
        fn merge_is_a_join(a in progress(), b in progress(), c in progress()) {
            prop_assert_eq!(merged(a.clone(), b.clone()), merged(b.clone(), a.clone()));
            prop_assert_eq!(merged(merged(a.clone(), b.clone()), c.clone()), merged(a.clone(), merged(b, c)));
            prop_assert_eq!(merged(a.clone(), a.clone()), a);
        }

        #[test]
        fn merge_says_whether_it_learned(a in progress(), b in progress()) {
            let mut c = a.clone();
            prop_assert_eq!(c.merge(b), c != a);
        }

        #[test]
        fn shares_cover_everything_once(units in 1u32..50, count in 0usize..200) {
            let plan = Plan { rounds: 1, units, fold: true };
            let all: Vec<usize> = (0..units).flat_map(|index| plan.share(index, count)).collect();
            prop_assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn work_of_both_sides_of_a_partition_unites() {
        let at = |round, units: &[u32]| Progress {
            round,
            state: Some(Digest::of(&[round as u8])),
            units: units.iter().map(|&u| (u, Digest::of(&[u as u8, 1]))).collect(),
        };
        assert_eq!(merged(at(3, &[0, 1]), at(3, &[1, 2])), at(3, &[0, 1, 2]));
        assert_eq!(merged(at(3, &[0, 1, 2]), at(4, &[])), at(4, &[]));
        assert!(!at(3, &[0, 1]).diverges(&at(3, &[1, 2])));
    }

    #[test]
    fn permille_reaches_the_whole_only_when_finished() {
        let plan = Plan { rounds: 2, units: 2, fold: true };
        let mut progress = Progress::default();
        assert_eq!(progress.permille(&plan), 0);
        progress.units.insert(0, Digest::of(b"p"));
        assert_eq!(progress.permille(&plan), 250);
        progress = Progress { round: 2, ..Progress::default() };
        assert_eq!(progress.permille(&plan), 1000);
    }
}
