//! Early stopping: rows are held back, and when the loss on them has not fallen for some iterations, the fit ends. All
//! trees stay, as in scikit-learn. Losses are summed up as integers, so that shards of the rows make the same sum.

use dml_core::{Params, rng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    binned::Binned,
    cart::class,
    ensemble::Link,
    objective::{Objective, ROWS, Reach},
    sums::scale,
};
use crate::learner::Fit;

/// Residuals are rounded to so many bits before they are squared.
const BITS: i32 = 25;
/// What 1 stands for in a log-loss, as a power of two.
const UNIT: f64 = 1.0 / (1u64 << 40) as f64;

/// Which of a table's rows are held back: by the hash of their number.
pub(crate) struct HeldBack {
    pub(crate) rows: Vec<bool>,
}

/// The loss on the rows of a shard that are held back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    loss: i128,
    /// How many rows of each class are held back; of a regression, how many rows.
    held: Vec<u64>,
    /// How many are not.
    others: u64,
}

impl HeldBack {
    /// None if the parameters do not ask for it.
    pub(crate) fn of(fit: &Fit, table: &Binned) -> Option<Self> {
        if !fit.params.bool("early_stopping") {
            return None;
        }
        let share = fit.params.float("validation_fraction");
        let seed = rng::draw(fit.seed, u64::MAX);
        Some(Self { rows: table.ids.iter().map(|&id| rng::unit(seed, id) < share).collect() })
    }

    /// The loss of these sums: see [`Objective`].
    pub(crate) fn tally(&self, objective: &Objective, y: &[f64], sums: &[f64], reach: &[Reach]) -> Tally {
        let outputs = objective.outputs;
        let scale = scale(reach[0].first, BITS);
        let blocks = sums.par_chunks(ROWS * outputs).zip(self.rows.par_chunks(ROWS)).zip(y.par_chunks(ROWS));
        let tallies = blocks.map(|((sums, held), y)| {
            let mut tally = Tally { held: vec![0; objective.classes()], ..Tally::default() };
            for ((sums, held), &y) in sums.chunks_exact(outputs).zip(held).zip(y) {
                if !held {
                    tally.others += 1;
                    continue;
                }
                let class = class(y, objective.classes()) as usize;
                tally.held[class] += 1;
                tally.loss += loss(objective, class, sums, y, scale);
            }
            tally
        });
        let nothing = || Tally { held: vec![0; objective.classes()], ..Tally::default() };
        tallies.reduce(nothing, |mut all, more| {
            all.add(&more);
            all
        })
    }
}

/// The loss of one row, as a whole number.
fn loss(objective: &Objective, class: usize, sums: &[f64], y: f64, scale: f64) -> i128 {
    let log_loss = match objective.link {
        Link::Identity | Link::Mean => {
            let residual = (y - sums[0]).clamp(f64::MIN, f64::MAX) * scale;
            return (residual * residual / 2.0).round() as i128;
        }
        Link::Logistic => {
            let wrong = if class == 1 { -sums[0] } else { sums[0] };
            f64::max(wrong, 0.0) + libm::log1p(libm::exp(-wrong.abs()))
        }
        Link::Softmax | Link::Shares => {
            let most = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total = sums.iter().map(|sum| libm::exp(sum - most)).sum::<f64>();
            libm::log(total) + most - sums[class]
        }
    };
    (objective.weight(class) * log_loss / UNIT).round() as i128
}

impl Tally {
    /// Takes the rows of another shard.
    pub(crate) fn add(&mut self, other: &Self) {
        self.loss = self.loss.saturating_add(other.loss);
        self.held.resize(self.held.len().max(other.held.len()), 0);
        self.held.iter_mut().zip(&other.held).for_each(|(to, from)| *to += from);
        self.others += other.others;
    }

    /// Whether there are both rows to learn from and rows to judge by.
    pub(crate) fn tells(&self) -> bool {
        self.others > 0 && self.held.iter().any(|&rows| rows > 0)
    }

    /// The mean loss, with the reach that it was summed up with.
    pub(crate) fn mean(&self, objective: &Objective, reach: &[Reach]) -> f64 {
        let weights =
            self.held.iter().enumerate().map(|(class, &rows)| objective.weight(class) * rows as f64);
        let mean = self.loss as f64 / weights.sum::<f64>();
        match objective.link {
            Link::Identity | Link::Mean => {
                let unit = 1.0 / scale(reach[0].first, BITS);
                mean * unit * unit
            }
            Link::Logistic | Link::Softmax | Link::Shares => mean * UNIT,
        }
    }
}

/// Whether none of the last losses is lower, by the tolerance, than the one before them.
pub(crate) fn is_done(params: &Params, losses: &[f64]) -> bool {
    let patience = params.int("n_iter_no_change").max(1) as usize;
    let Some(reference) = losses.len().checked_sub(patience + 1) else { return false };
    let least = losses[reference] - params.float("tol");
    losses[reference + 1..].iter().all(|&loss| loss >= least)
}
