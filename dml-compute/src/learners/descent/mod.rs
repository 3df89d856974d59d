//! The search for the weights with the least loss: for every kind whose loss is convex and smooth in weighted sums of
//! the features, with a penalty on the weights.
//!
//! Each round sums loss, gradient and Hessian at one point over all rows; the step from there is Newton's with
//! backtracking (Nocedal and Wright 2006, "Numerical Optimization", 3.1 and 3.3), or L-BFGS (Nocedal 1980; 7.2 there)
//! when there are so many weights that their Hessian would be large. With an L1 penalty the step is that of the proximal
//! Newton method: the quadratic model and the penalty are minimised together, by coordinate descent (Yuan, Ho, Lin 2012,
//! "An improved GLMNET for L1-regularized logistic regression"). A table that is one unit takes several steps a round.
//! One of several units begins where the search among a sample of its rows ended: few steps are left from there.

mod search;
mod sums;

use std::sync::Arc;

use dml_core::{Params, Plan, Task};
use rayon::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use search::Search;
pub use sums::Sums;
pub(crate) use sums::{GREATEST, bounded};

use search::MAX_HALVINGS;
use sums::{MAX_LASSO, MAX_NEWTON};

use super::panel::Column;
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
    learner::{Block, Fit, Folded, Learner, Predict, Shape},
};

/// About how many multiplications a unit does.
const UNIT_WORK: u64 = 1 << 30;

/// About how many numbers a unit holds in memory.
const UNIT_CELLS: u64 = 1 << 23;

/// How many rows of the sample a thread takes at a time.
const SAMPLE_ROWS: usize = 2048;

/// The loss of rows as a function of their outputs, which are weighted sums of their features.
pub trait Loss: Sync {
    /// How many outputs a row has.
    fn outputs(&self) -> usize;

    /// Whether a second derivative by two different outputs may be other than 0.
    fn coupled(&self) -> bool;

    /// The loss of the rows with the targets `y`. `outputs` has a column an output, and gets the first derivatives;
    /// `curvature` gets the second ones (or some that are not less than 0 in their place), one column for each of
    /// [`pairs`] of outputs. It is empty when they are not wanted.
    fn at(&self, y: &[f64], outputs: &mut [Column], curvature: &mut [Column]) -> f64;

    /// What a target must be, if this one is not so.
    fn refuses(&self, _: f64) -> Option<String> {
        None
    }
}

/// The learner of a kind whose models are the weights with the least loss.
#[derive(Debug, Clone, Copy)]
pub struct Descent<M> {
    /// Its name, tasks, parameters and properties.
    pub(super) kind: fn() -> Kind,
    /// How many outputs a row has when there are so many classes.
    pub(super) outputs: fn(usize) -> usize,
    /// Where the search begins: all outputs' weights, one after the other, of each its intercept last.
    pub(super) start: fn(&Fit) -> Result<Vec<f64>, WorkError>,
    /// What the parameters ask for.
    pub(super) goal: fn(&Fit) -> Goal,
    /// The model of these weights of each output, its intercept behind them.
    pub(super) model: fn(&Fit, Vec<Vec<f64>>) -> M,
}

/// What is sought: the least of the losses' sum plus `l1 * |w| + l2 / 2 * |w|²`, the intercepts apart.
pub struct Goal {
    /// The kind, for messages.
    pub kind: &'static str,
    /// The loss of a row.
    pub loss: Box<dyn Loss>,
    /// What the sum of the weights' sizes counts.
    pub l1: f64,
    /// What half the sum of the squared weights counts.
    pub l2: f64,
    /// Whether the penalties count once for each row, as beside the mean of the losses.
    pub per_row: bool,
    /// Done when no component of the mean gradient is greater.
    pub tol: f64,
    /// Whether `tol` is a part of the greatest component at the beginning: for losses whose scale is the target's.
    pub relative: bool,
    /// The most steps.
    pub max_iter: i64,
}

/// What a unit hands to the fold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Found {
    /// The sums over its share of the rows.
    Sums(Sums),
    /// It went on by itself.
    Went(Search),
}

/// The parameters of every search.
pub fn params() -> [Param; 2] {
    [
        Param {
            name: "max_iter",
            about: "The most steps towards the least loss.",
            domain: Domain::Int { default: 100, min: 1, max: 10_000 },
        },
        Param {
            name: "tol",
            about: "Done when no component of the mean gradient is greater.",
            domain: Domain::Float { default: 1e-4, min: 1e-12, max: 1.0 },
        },
    ]
}

impl<M: Predict + Serialize + DeserializeOwned> Learner for Descent<M> {
    type State = Search;
    type Partial = Found;
    type Model = M;

    fn kind(&self) -> Kind {
        (self.kind)()
    }

    /// Rounds of units of about a second.
    fn plan(&self, params: &Params, shape: &Shape) -> Plan {
        // Encoding is taken to double the columns. Halvings are rare, yet have rounds of their own.
        let weights = ((self.outputs)(shape.classes) * (2 * shape.columns + 1)) as u64;
        let rows = (UNIT_WORK / work_per_row(weights)).min(UNIT_CELLS / shape.columns.max(1) as u64);
        let rounds = params.int("max_iter").clamp(1, 10_000) as u32 + MAX_HALVINGS + 2;
        Plan::over_chunks(rounds, shape.rows, shape.chunks, rows.max(1024))
    }

    fn start(&self, fit: &Fit) -> Result<Search, WorkError> {
        if fit.task == Task::Classification {
            fit.at_least_two_classes(self.kind().name)?;
        }
        (self.start)(fit).map(Search::from)
    }

    fn unit(&self, fit: &Fit, round: u32, index: u32, search: &Search) -> Result<Found, WorkError> {
        let goal = &(self.goal)(fit);
        if goal.l1 > 0.0 && search.point.len() > MAX_LASSO {
            let (kind, weights) = (goal.kind, search.point.len());
            return Err(WorkError::Input(format!(
                "the penalty l1 of {kind} takes at most {MAX_LASSO} weights, and these features and classes have \
                 {weights}: leave out text columns with many values, or choose the penalty l2"
            )));
        }
        let nothing = || Sums::zero(search.point.len(), goal);
        if fit.plan.units == 1 {
            let chunks = 0..fit.rows.chunks();
            let blocks = chunks.map(|chunk| fit.rows.block(chunk)).collect::<Result<Vec<_>, _>>()?;
            return Ok(Found::Went(descend(search.clone(), &blocks, goal)?));
        }
        if round > 0 {
            let mut sums = nothing();
            let chunks = fit.plan.share(index, fit.rows.chunks());
            fit.each_block(chunks, |block| Sums::of(block, &search.point, goal), |part| sums.add(&part))?;
            return Ok(Found::Sums(sums));
        }
        if index > 0 {
            return Ok(Found::Sums(nothing()));
        }
        let sample = fit.rows.sample()?;
        if sample.y.is_empty() {
            return Ok(Found::Sums(nothing()));
        }
        let parts: Vec<Arc<Block>> = sample.parts(SAMPLE_ROWS).map(Arc::new).collect();
        let found = descend(search.clone(), &parts, goal)?;
        Ok(Found::Went(Search::from(found.best())))
    }

    fn fold(
        &self,
        fit: &Fit,
        round: u32,
        mut search: Search,
        partials: Vec<Found>,
    ) -> Result<Folded<Search, M>, WorkError> {
        let goal = &(self.goal)(fit);
        let mut sums = Sums::zero(search.point.len(), goal);
        for partial in partials {
            match partial {
                Found::Sums(partial) => sums.add(&partial),
                Found::Went(further) => search = further,
            }
        }
        if fit.plan.units > 1 && round > 0 {
            search.advance(goal, sums)?;
        }
        if !search.is_finished() && round + 1 < fit.plan.rounds {
            return Ok(Folded::Next(search));
        }
        let outputs = search.best().chunks(fit.rows.width() + 1).map(<[f64]>::to_vec).collect();
        Ok(Folded::Done((self.model)(fit, outputs)))
    }
}

/// Where the search for one output's weights may begin: all 0, but for an intercept that follows from the mean target of
/// some rows.
pub fn from_mean(fit: &Fit, intercept: impl Fn(f64) -> f64) -> Result<Vec<f64>, WorkError> {
    let mean = fit.rows.sample()?.y.mean().unwrap_or(f64::NAN);
    let mut point = vec![0.0; fit.rows.width() + 1];
    point[fit.rows.width()] = intercept(mean);
    Ok(point)
}

/// The pairs a <= b of outputs that have second derivatives.
pub fn pairs(outputs: usize, coupled: bool) -> impl Iterator<Item = (usize, usize)> {
    (0..outputs).flat_map(move |a| (a..if coupled { outputs } else { a + 1 }).map(move |b| (a, b)))
}

/// Steps towards the least loss until it is found, or a unit's work was done.
fn descend(mut search: Search, blocks: &[Arc<Block>], goal: &Goal) -> Result<Search, WorkError> {
    let mut work = 0;
    while work < UNIT_WORK && !search.is_finished() {
        let parts: Vec<_> = blocks.par_iter().map(|block| Sums::of(block, &search.point, goal)).collect();
        let mut sums = Sums::zero(search.point.len(), goal);
        for part in parts {
            sums.add(&part?);
        }
        work += sums.rows.max(1) * work_per_row(search.point.len() as u64);
        search.advance(goal, sums)?;
    }
    Ok(search)
}

/// About how many multiplications a row costs with so many weights.
fn work_per_row(weights: u64) -> u64 {
    if weights <= MAX_NEWTON as u64 { weights * weights / 2 + 50 } else { 4 * weights }
}
