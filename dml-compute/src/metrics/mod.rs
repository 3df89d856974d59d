//! How good predictions are. Units count what their rows show in a [`Tally`], tallies add up in any cut of the rows,
//! [`Metrics`] follow from the sum, and a [`Report`] brings the folds of a validation together.
//!
//! Counts are integers, so for classification the sum does not depend on the order either. A metric that is not defined
//! for the rows at hand (R² of a constant target, AUC when there is one class, anything when there are no rows) is left
//! out; none is ever NaN.

mod auc;
mod classes;
mod curves;
mod interval;
mod learning;
mod numbers;
mod permuted;
mod report;
mod sample;

use dml_core::Task;
use ndarray::ArrayView1;
use serde::{Deserialize, Serialize};

pub use classes::ClassTally;
pub use curves::{Curves, RocCurve};
pub use learning::{LearningCurve, LearningPoint};
pub(crate) use learning::{LearningTally, is_looked_at};
pub use numbers::NumberTally;
pub(crate) use permuted::loss;
pub use permuted::{Permutation, PermutedTally};
pub use report::{Confusion, MAX_CONFUSION, Metrics, Report, compare, primary, ranking, second, shown};
pub use sample::Sample;

use crate::learner::Scores;

/// What has been seen of predictions and the truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Tally {
    /// Of classes.
    Classification(ClassTally),
    /// Of numbers.
    Regression(NumberTally),
}

impl Tally {
    /// Nothing seen yet; the number of classes does not matter for regression.
    pub fn new(task: Task, classes: usize) -> Self {
        match task {
            Task::Classification => Self::Classification(ClassTally::new(classes)),
            Task::Regression => Self::Regression(NumberTally::default()),
        }
    }

    /// Takes predictions and, for each, the truth: the number or the index of the class. Rows without a truth (NaN, or
    /// a class that there is not) are left out, as are predictions for the other task.
    pub fn record(&mut self, scores: &Scores, truth: ArrayView1<f64>) {
        match (self, scores) {
            (Self::Classification(tally), Scores::Probabilities(rows)) => {
                rows.rows().into_iter().zip(truth).for_each(|(row, class)| tally.record(row, *class));
            }
            (Self::Regression(tally), Scores::Values(values)) => {
                values.iter().zip(truth).for_each(|(value, truth)| tally.record(*value, *truth));
            }
            (Self::Classification(_), Scores::Values(_))
            | (Self::Regression(_), Scores::Probabilities(_)) => {}
        }
    }

    /// Adds what was seen of the rows that follow.
    pub fn add(&mut self, next: Self) {
        match (self, next) {
            (Self::Classification(tally), Self::Classification(next)) => tally.add(next),
            (Self::Regression(tally), Self::Regression(next)) => tally.add(next),
            (Self::Classification(_), Self::Regression(_))
            | (Self::Regression(_), Self::Classification(_)) => {}
        }
    }

    /// The ROC curves of the classes with these labels; none for regression.
    pub(crate) fn curves(&self, labels: &[String]) -> Vec<RocCurve> {
        match self {
            Self::Classification(tally) => tally.curves(labels),
            Self::Regression(_) => Vec::new(),
        }
    }

    /// The metrics of all rows seen.
    pub fn metrics(&self) -> Metrics {
        match self {
            Self::Classification(tally) => tally.metrics(),
            Self::Regression(tally) => tally.metrics(),
        }
    }
}
