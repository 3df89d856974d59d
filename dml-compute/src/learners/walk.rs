//! Stochastic gradient descent: a step after every row, along the slope of that row's loss (Robbins and Monro 1951, "A
//! stochastic approximation method"; Bottou 2010, "Large-scale machine learning with stochastic gradient descent"). Shared
//! by [`sgd_classifier`](super::sgd_classifier) and [`sgd_regressor`](super::sgd_regressor).
//!
//! It is sequential: a round has one unit, which takes the next chunks where the round before stopped, and hands its state
//! on. In each epoch the chunks have another order, and the rows in each chunk too; both follow from the seed. It ends
//! when the loss of an epoch was not less by `tol` a row than the best before, several epochs in a row.

use dml_core::{Params, Plan, Task, rng};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::symmetric::dot;
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
    learner::{Block, Fit, Folded, Learner, Predict, Shape},
};

/// About how many multiplications a unit does.
const UNIT_WORK: u64 = 1 << 28;

/// No slope of a row's loss counts for more, as in scikit-learn.
const STEEPEST: f64 = 1e12;

/// Where the descent is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Walk {
    /// The weights of each output, its intercept behind them.
    outputs: Vec<Vec<f64>>,
    /// How many rows were seen, those of all epochs.
    steps: u64,
    /// How many epochs are done.
    epoch: u32,
    /// How many chunks of this epoch are done.
    chunk: u32,
    /// The loss and the rows of this epoch so far.
    loss: f64,
    rows: u64,
    /// The least loss of an epoch, and how many epochs in a row were not better.
    best: Option<f64>,
    idle: u32,
    finished: bool,
}

/// The learner of a kind that takes a step after every row.
#[derive(Debug, Clone, Copy)]
pub struct Stepwise<M> {
    /// Its name, tasks, parameters and properties.
    pub(super) kind: fn() -> Kind,
    /// How many outputs a row has when there are so many classes.
    pub(super) outputs: fn(usize) -> usize,
    /// The loss of a row.
    pub(super) loss: fn(&Fit) -> Box<dyn RowLoss>,
    /// The model of these weights of each output, its intercept behind them.
    pub(super) model: fn(&Fit, Vec<Vec<f64>>) -> M,
}

/// The loss of a row and its slope, for each output.
pub trait RowLoss {
    /// The loss of an output with this value in a row with the target `y`, and the slope.
    fn at(&self, output: usize, value: f64, y: f64) -> (f64, f64);

    /// The length of the step after so many rows, the first being 1.
    fn rate(&self, step: u64) -> f64;
}

/// The parameters of both kinds, but for losses and rates.
pub fn params() -> Vec<Param> {
    vec![
        Param {
            name: "alpha",
            about: "How much half the sum of squared weights counts beside the loss of a row.",
            domain: Domain::Float { default: 1e-4, min: 1e-12, max: 1e3 },
        },
        Param {
            name: "max_iter",
            about: "The most epochs.",
            domain: Domain::Int { default: 1000, min: 1, max: 100_000 },
        },
        Param {
            name: "tol",
            about: "An epoch is better when the loss of a row fell by more, on average.",
            domain: Domain::Float { default: 1e-3, min: 0.0, max: 1e6 },
        },
        Param {
            name: "n_iter_no_change",
            about: "Done when so many epochs in a row were not better.",
            domain: Domain::Int { default: 5, min: 1, max: 100_000 },
        },
    ]
}

impl<M: Predict + Serialize + DeserializeOwned> Learner for Stepwise<M> {
    type State = Walk;
    type Partial = Walk;
    type Model = M;

    fn kind(&self) -> Kind {
        (self.kind)()
    }

    /// A round takes at least a chunk.
    fn plan(&self, params: &Params, shape: &Shape) -> Plan {
        let rounds = (shape.chunks.max(1) as u64).saturating_mul(params.int("max_iter").max(1) as u64);
        Plan::sequential(rounds.min(u64::from(u32::MAX)) as u32)
    }

    fn start(&self, fit: &Fit) -> Result<Walk, WorkError> {
        if fit.task == Task::Classification {
            fit.at_least_two_classes(self.kind().name)?;
        }
        Ok(Walk::start(fit, (self.outputs)(fit.classes)))
    }

    fn unit(&self, fit: &Fit, _: u32, _: u32, walk: &Walk) -> Result<Walk, WorkError> {
        walk.go_on(fit, &*(self.loss)(fit))
    }

    fn fold(
        &self,
        fit: &Fit,
        round: u32,
        _: Walk,
        partials: Vec<Walk>,
    ) -> Result<Folded<Walk, M>, WorkError> {
        let none = || WorkError::Input(format!("{} has one unit", self.kind().name));
        let walk = partials.into_iter().next().ok_or_else(none)?;
        if !walk.finished && round + 1 < fit.plan.rounds {
            return Ok(Folded::Next(walk));
        }
        Ok(Folded::Done((self.model)(fit, walk.outputs)))
    }

    fn so_far(&self, fit: &Fit, walk: Walk) -> Option<M> {
        Some((self.model)(fit, walk.outputs))
    }

    fn is_gradual(&self) -> bool {
        true
    }
}

impl Walk {
    /// Zeros.
    fn start(fit: &Fit, outputs: usize) -> Self {
        Self {
            outputs: vec![vec![0.0; fit.rows.width() + 1]; outputs],
            steps: 0,
            epoch: 0,
            chunk: 0,
            loss: 0.0,
            rows: 0,
            best: None,
            idle: 0,
            finished: false,
        }
    }

    /// The state after a unit's work.
    fn go_on(&self, fit: &Fit, loss: &dyn RowLoss) -> Result<Self, WorkError> {
        let (mut walk, chunks) = (self.clone(), fit.rows.chunks());
        let width = (fit.rows.width() + 1) as u64 * walk.outputs.len() as u64 * 4;
        let mut work = 0;
        while !walk.finished && work < UNIT_WORK {
            let seed = rng::draw(fit.seed, u64::from(walk.epoch));
            let order = shuffled(chunks, seed);
            let chunk = order.get(walk.chunk as usize).copied();
            if let Some(chunk) = chunk {
                let block = fit.rows.block(chunk)?;
                walk.take(&block, fit.params.float("alpha"), rng::draw(seed, chunk as u64), loss);
                work += block.y.len() as u64 * width + 1;
                walk.chunk += 1;
            }
            if walk.chunk as usize >= chunks {
                walk.end_epoch(fit.params)?;
            }
        }
        Ok(walk)
    }

    fn take(&mut self, block: &Block, alpha: f64, seed: u64, loss: &dyn RowLoss) {
        let (cells, y) = block.cells();
        let width = block.x.ncols();
        for i in shuffled(y.len(), seed) {
            let (x, y) = (&cells[i * width..(i + 1) * width], y[i]);
            self.steps += 1;
            let rate = loss.rate(self.steps);
            let keep = (1.0 - rate * alpha).max(0.0);
            for (k, weights) in self.outputs.iter_mut().enumerate() {
                let (weights, intercept) = weights.split_at_mut(width);
                let (lost, slope) = loss.at(k, dot(weights, x) + intercept[0], y);
                self.loss += lost;
                let step = -rate * slope.clamp(-STEEPEST, STEEPEST);
                weights.iter_mut().zip(x).for_each(|(w, x)| *w = keep * *w + step * x);
                intercept[0] += step;
            }
        }
        self.rows += y.len() as u64;
    }

    fn end_epoch(&mut self, params: &Params) -> Result<(), WorkError> {
        if self.rows == 0 {
            return Err(WorkError::Input("there are no rows to train on".into()));
        }
        if !(self.loss.is_finite() && self.outputs.iter().flatten().all(|w| w.is_finite())) {
            return Err(WorkError::Input(
                "stochastic gradient descent went to infinity: choose a smaller eta0 or a greater alpha, or divide \
                 the target"
                    .into(),
            ));
        }
        let better = self.best.is_none_or(|best| self.loss <= best - params.float("tol") * self.rows as f64);
        self.idle = if better { 0 } else { self.idle + 1 };
        self.best = Some(self.best.map_or(self.loss, |best| best.min(self.loss)));
        self.epoch += 1;
        (self.chunk, self.loss, self.rows) = (0, 0.0, 0);
        self.finished = i64::from(self.idle) >= params.int("n_iter_no_change")
            || i64::from(self.epoch) >= params.int("max_iter");
        Ok(())
    }
}

/// The numbers below `n` in an order that follows from the seed (Durstenfeld 1964, "Algorithm 235: random permutation").
fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, rng::below(seed, i as u64, i as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_everything_once() {
        for n in [0, 1, 2, 50] {
            let mut order = shuffled(n, 7);
            assert_eq!(order, shuffled(n, 7));
            assert!(n < 50 || order != shuffled(n, 8) && order != (0..n).collect::<Vec<_>>());
            order.sort_unstable();
            assert_eq!(order, (0..n).collect::<Vec<_>>());
        }
    }
}
