//! Permutation importance (Breiman 2001, "Random forests", section 10; for any model Fisher, Rudin and Dominici 2019):
//! how much worse predictions become when one feature's values are dealt out anew among the rows. Unlike the gain that
//! trees count, it is about rows that the model has not seen, and any kind of model has it.
//!
//! Two features that tell the same have little importance each: the model still sees the other.

use std::collections::BTreeMap;

use dml_core::Task;
use ndarray::ArrayView1;
use serde::{Deserialize, Serialize};

use super::{classes::most_likely, primary};
use crate::learner::Scores;

/// How wrong some rows are predicted, as they are and with each feature permuted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PermutedTally {
    rows: u64,
    loss: f64,
    permuted: Vec<f64>,
}

/// How much each feature matters for the predictions of rows that the model has not seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Permutation {
    /// The metric that it is told in: the one that models are ranked by.
    pub metric: String,
    /// How many rows were looked at, over all folds.
    pub rows: u64,
    /// By how much the metric gets worse when the feature is permuted: accuracy lost, or RMSE gained. About 0, also a
    /// little below, where the feature does not matter.
    pub worse: BTreeMap<String, f64>,
}

impl PermutedTally {
    /// Takes the loss of some rows, and that with each feature permuted: see [`loss`].
    pub(crate) fn record(&mut self, rows: u64, loss: f64, permuted: Vec<f64>) {
        self.add(Self { rows, loss, permuted });
    }

    /// Adds what was seen of the rows that follow.
    pub(crate) fn add(&mut self, next: Self) {
        if self.permuted.len() < next.permuted.len() {
            self.permuted.resize(next.permuted.len(), 0.0);
        }
        self.rows += next.rows;
        self.loss += next.loss;
        self.permuted.iter_mut().zip(next.permuted).for_each(|(sum, loss)| *sum += loss);
    }

    /// The importance of the features with these names; none if no row was looked at.
    pub(crate) fn importance(&self, task: Task, features: &[String]) -> Option<Permutation> {
        let rows = self.rows as f64;
        let scale = |loss: f64| match task {
            Task::Classification => loss / rows,
            Task::Regression => (loss / rows).sqrt(),
        };
        let worse = |loss: &f64| Some(scale(*loss) - scale(self.loss)).filter(|worse| worse.is_finite());
        let worse =
            features.iter().zip(&self.permuted).filter_map(|(name, loss)| Some((name.clone(), worse(loss)?)));
        (self.rows > 0).then(|| Permutation {
            metric: primary(task).into(),
            rows: self.rows,
            worse: worse.collect(),
        })
    }
}

/// How wrong predictions are: rows of which another class is likelier than the true one, or the sum of squared errors.
pub(crate) fn loss(scores: &Scores, truth: ArrayView1<f64>) -> f64 {
    match scores {
        Scores::Probabilities(p) => {
            let wrong =
                p.rows().into_iter().zip(truth).filter(|(row, class)| most_likely(*row) as f64 != **class);
            wrong.count() as f64
        }
        Scores::Values(values) => {
            values.iter().zip(truth).map(|(value, truth)| (value - truth) * (value - truth)).sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{array, aview1};

    use super::*;

    #[test]
    fn importance_is_what_the_metric_loses() {
        let mut tally = PermutedTally::default();
        assert_eq!(tally.importance(Task::Regression, &["a".into()]), None);
        tally.record(4, 4.0, vec![16.0, 4.0]);
        tally.record(4, 4.0, vec![16.0, 2.0]);
        let names = ["a".to_string(), "b".to_string()];
        let rmse = tally.importance(Task::Regression, &names).unwrap();
        assert_eq!((rmse.metric.as_str(), rmse.rows, rmse.worse["a"]), ("rmse", 8, 1.0));
        assert!(rmse.worse["b"] < 0.0);
        let accuracy = tally.importance(Task::Classification, &names).unwrap();
        assert_eq!((accuracy.worse["a"], accuracy.worse["b"]), (3.0, -0.25));
    }

    #[test]
    fn the_loss_counts_wrong_rows_or_squares_errors() {
        let p = Scores::Probabilities(array![[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]);
        assert_eq!(loss(&p, aview1(&[0.0, 0.0, 1.0])), 2.0);
        assert_eq!(loss(&Scores::Values(array![1.0, 4.0]), aview1(&[0.0, 2.0])), 5.0);
    }
}
