//! Learning curves: the loss of a model that is built up in steps, after so many of them, on rows that it learned from
//! and on rows that it has not seen. Where the second begins to rise, the model has begun to learn by heart.

use std::collections::BTreeMap;

use dml_core::Task;
use ndarray::ArrayView1;
use serde::{Deserialize, Serialize};

use super::classes::log_loss;
use crate::learner::Scores;

/// The loss after some steps, over all folds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LearningCurve {
    /// In what it is told: `log_loss`, or `rmse`.
    pub metric: String,
    /// By rising number of steps.
    pub points: Vec<LearningPoint>,
}

/// The loss after so many steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LearningPoint {
    /// Iterations of boosting, or trees of a forest.
    pub steps: u32,
    /// On rows that the model learned from.
    pub train: f64,
    /// On rows that it has not seen.
    pub test: f64,
}

/// What some rows lose after so many steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LearningTally {
    /// By the number of steps: of training rows, then of test rows.
    steps: BTreeMap<u32, [Lost; 2]>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Lost {
    rows: u64,
    loss: f64,
}

impl LearningTally {
    /// Takes what the model says of some rows after so many steps.
    pub(crate) fn record(&mut self, steps: u32, is_test: bool, scores: &Scores, truth: ArrayView1<f64>) {
        let loss: f64 = match scores {
            Scores::Values(values) => values.iter().zip(truth).map(|(v, t)| (v - t) * (v - t)).sum(),
            Scores::Probabilities(p) => {
                let of_class =
                    |(p, class): (ArrayView1<f64>, &f64)| p.get(*class as usize).copied().unwrap_or(0.0);
                p.rows().into_iter().zip(truth).map(of_class).map(log_loss).sum()
            }
        };
        let lost = &mut self.steps.entry(steps).or_default()[usize::from(is_test)];
        lost.rows += truth.len() as u64;
        lost.loss += loss;
    }

    /// Adds what was seen of the rows that follow.
    pub(crate) fn add(&mut self, next: Self) {
        for (steps, next) in next.steps {
            for (mine, next) in self.steps.entry(steps).or_default().iter_mut().zip(next) {
                mine.rows += next.rows;
                mine.loss += next.loss;
            }
        }
    }

    /// The curve, where all folds are on it; none if the model is not built up in steps.
    pub(crate) fn curve(&self, task: Task) -> Option<LearningCurve> {
        let all = self.steps.values().map(|lost| lost.map(|lost| lost.rows)).max()?;
        let metric = match task {
            Task::Classification => "log_loss",
            Task::Regression => "rmse",
        };
        let mean = |lost: Lost| match task {
            Task::Classification => lost.loss / lost.rows as f64,
            Task::Regression => (lost.loss / lost.rows as f64).sqrt(),
        };
        let whole = self.steps.iter().filter(|(_, lost)| lost.map(|lost| lost.rows) == all);
        let points = whole.map(|(steps, [train, test])| LearningPoint {
            steps: *steps,
            train: mean(*train),
            test: mean(*test),
        });
        let points: Vec<_> =
            points.filter(|point| point.train.is_finite() && point.test.is_finite()).collect();
        (points.len() > 1).then(|| LearningCurve { metric: metric.into(), points })
    }
}

/// Whether the loss is looked at after so many steps: after each of the first, then a fixed number of times for each
/// power of ten, whatever the number of all steps.
pub(crate) fn is_looked_at(steps: usize) -> bool {
    let mut every = 1;
    while steps >= every * 20 {
        every *= 10;
    }
    let every = if every > 1 { every / 2 } else { 1 };
    steps.is_multiple_of(every)
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn many_steps_are_looked_at_seldom() {
        let looked: Vec<usize> = (1..=60).filter(|steps| is_looked_at(*steps)).collect();
        assert_eq!(looked[..22], (1..20).chain([20, 25, 30]).collect::<Vec<_>>());
        assert_eq!((1..=10_000).filter(|steps| is_looked_at(*steps)).count(), 19 + 36 + 36 + 17);
    }

    #[test]
    fn losses_are_means_of_all_rows_in_any_cut() {
        let probabilities = Scores::Probabilities(array![[0.5, 0.5], [0.25, 0.75]]);
        let mut tally = LearningTally::default();
        for steps in [1, 2] {
            tally.record(steps, false, &probabilities, array![0.0, 1.0].view());
            tally.record(steps, true, &probabilities, array![1.0, 0.0].view());
        }
        let mut twice = tally.clone();
        twice.add(tally.clone());
        let curve = tally.curve(Task::Classification).unwrap();
        assert_eq!(twice.curve(Task::Classification).unwrap(), curve);
        let mean = |p: f64, q: f64| -(p.ln() + q.ln()) / 2.0;
        let LearningPoint { steps, train, test } = curve.points[1];
        assert_eq!((steps, curve.metric.as_str()), (2, "log_loss"));
        assert!((train - mean(0.5, 0.75)).abs() < 1e-12 && (test - mean(0.5, 0.25)).abs() < 1e-12);
        assert_eq!(LearningTally::default().curve(Task::Regression), None);
    }

    #[test]
    fn a_fold_that_stopped_early_ends_the_curve() {
        let values = Scores::Values(array![3.0]);
        let mut tally = LearningTally::default();
        for (fold, last) in [3, 2].into_iter().enumerate() {
            let mut one = LearningTally::default();
            for steps in 1..=last {
                for is_test in [false, true] {
                    one.record(steps, is_test, &values, array![fold as f64].view());
                }
            }
            tally.add(one);
        }
        let curve = tally.curve(Task::Regression).unwrap();
        let rmse = (6.5f64).sqrt();
        assert_eq!(curve.points, [1, 2].map(|steps| LearningPoint { steps, train: rmse, test: rmse }));
    }
}
