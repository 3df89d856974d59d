//! Permutes features within the test rows of a chunk, and tells how much worse a model predicts.
//!
//! It never dominates an evaluation. Of the test rows, a part drawn by their numbers is looked at, so that a training
//! makes about as many more predictions as its evaluation makes anyway, though up to [`FEW`] in any case and at most
//! [`MANY`]. Where that leaves fewer than [`LEAST_ROWS`] rows a feature, there are too many features, and nothing is
//! told.
//!
//! Rows are permuted within their chunk, so the result does not depend on how the chunks are shared out among units. In a
//! table that is sorted by a feature over many chunks, that feature matters more than it appears to.

use dml_core::{Dataset, Split, rng};
use ndarray::{Array1, Array2, Axis};

use crate::{
    error::WorkError,
    learner::Scores,
    metrics::{PermutedTally, loss},
    model::{Model, Predictor},
};

/// So many permuted rows are always predicted: a moment's work.
const FEW: f64 = 16_384.0;

/// More are never predicted, whatever the size of the table.
const MANY: f64 = 65_536.0;

/// With fewer rows the importance is noise.
const LEAST_ROWS: f64 = 50.0;

/// Which rows are looked at, and how they are permuted.
pub(super) struct Permuter {
    seed: u64,
    /// The part of the test rows that is looked at.
    share: f64,
}

/// The test rows of a chunk as a model sees them.
pub(super) struct Judged<'a> {
    /// The rows' numbers in the dataset.
    pub(super) rows: Vec<u64>,
    /// Encoded.
    pub(super) x: &'a Array2<f64>,
    pub(super) truth: &'a Array1<f64>,
    pub(super) scores: &'a Scores,
}

impl Permuter {
    /// None if there are too many features.
    pub(super) fn new(dataset: &Dataset, seed: u64, features: usize, splits: &[Split]) -> Option<Self> {
        let part = |split: &Split| match *split {
            Split::All => 0.0,
            Split::Holdout { fraction, .. } => fraction,
            Split::Fold { folds, .. } => 1.0 / f64::from(folds),
        };
        let rows = dataset.rows as f64 * splits.iter().map(part).sum::<f64>();
        let share = (rows.clamp(FEW, MANY) / (rows * features as f64)).min(1.0);
        (rows > 0.0 && (share == 1.0 || share * rows >= LEAST_ROWS)).then_some(Self { seed, share })
    }

    /// Permutes each feature of a chunk's rows in turn. `all` gives scores the columns that the truth is told in.
    pub(super) fn record(
        &self,
        (model, predictor): (&Model, &Predictor),
        chunk: usize,
        judged: Judged,
        all: impl Fn(Scores) -> Scores,
        tally: &mut PermutedTally,
    ) -> Result<(), WorkError> {
        let rows = judged.rows.iter().enumerate();
        let chosen: Vec<usize> =
            rows.filter(|(_, row)| rng::unit(self.seed, **row) < self.share).map(|(i, _)| i).collect();
        if chosen.is_empty() {
            return Ok(());
        }
        let x = judged.x.select(Axis(0), &chosen);
        let truth = judged.truth.select(Axis(0), &chosen);
        let scores = match judged.scores {
            Scores::Probabilities(p) => Scores::Probabilities(p.select(Axis(0), &chosen)),
            Scores::Values(values) => Scores::Values(values.select(Axis(0), &chosen)),
        };
        let before = loss(&scores, truth.view());
        let mut permuted = x.clone();
        let (mut losses, mut end) = (Vec::new(), 0);
        for (feature, encoded) in model.pipeline.columns().iter().enumerate() {
            let columns = end..end + encoded.code.width();
            end = columns.end;
            if columns.is_empty() {
                losses.push(before);
                continue;
            }
            let order = shuffled(rng::draw(rng::draw(self.seed, feature as u64), chunk as u64), chosen.len());
            for column in columns.clone() {
                for (to, from) in order.iter().enumerate() {
                    permuted[[to, column]] = x[[*from, column]];
                }
            }
            losses.push(loss(&all(predictor.scores_of(&permuted)?), truth.view()));
            for column in columns {
                permuted.column_mut(column).assign(&x.column(column));
            }
        }
        tally.record(chosen.len() as u64, before, losses);
        Ok(())
    }
}

/// The numbers below `n` in an order that the seed chooses (Fisher and Yates; Durstenfeld 1964).
fn shuffled(seed: u64, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for last in (1..n).rev() {
        order.swap(last, rng::below(seed, last as u64, last as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_about_as_likely() {
        let mut seen = std::collections::BTreeMap::new();
        (0..6000).for_each(|seed| *seen.entry(shuffled(seed, 3)).or_insert(0) += 1);
        assert_eq!(seen.len(), 6);
        assert!(seen.values().all(|n: &i32| (n - 1000).abs() < 130), "{seen:?}");
    }

    #[test]
    fn the_work_is_bounded() {
        let share = |rows, features| {
            let dataset = Dataset { rows, columns: Vec::new(), chunks: Vec::new() };
            let splits = [Split::Holdout { seed: 0, fraction: 0.2 }];
            Permuter::new(&dataset, 0, features, &splits).map(|permuter| permuter.share)
        };
        assert_eq!(share(344, 7), Some(1.0));
        assert_eq!(share(1_000_000, 32), Some(65_536.0 / (200_000.0 * 32.0)));
        assert_eq!(share(1_000_000, 2_000), None);
        assert_eq!(share(100, 1_000), None);
    }
}
