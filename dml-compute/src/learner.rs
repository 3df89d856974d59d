//! What a kind of model is: how its fit is cut into rounds of units, what a unit and a fold compute, and how the
//! finished model predicts. One learner a file in [`crate::learners`]; anyone may add their own to a
//! [`Registry`](crate::Registry).

use std::{any::Any, ops::Range, sync::Arc};

use dml_core::{Digest, Params, Plan, Task};
use ndarray::{Array1, Array2, Axis};
use rayon::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

use crate::{error::WorkError, kind::Kind, onnx, prepare::Moments};

/// How a table becomes the matrix that a learner sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// No blanks: numbers imputed by the mean and standardised, categories one-hot. For linear models.
    Dense,
    /// No blanks and nothing negative: numbers as they are, blanks as 0, categories one-hot. For kinds that count.
    Counts,
    /// One column a feature: numbers as they are, categories as codes ordered by their mean target, blanks as NaN.
    /// For trees.
    Codes,
}

/// What is known of a table before it is read: enough to cut a job.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// How many rows.
    pub rows: u64,
    /// How many feature columns, before encoding.
    pub columns: usize,
    /// How many chunks.
    pub chunks: usize,
    /// How many classes at most; 0 for regression.
    pub classes: usize,
}

/// Encoded rows that take part in training, in the order of the table.
#[derive(Debug, Clone)]
pub struct Block {
    /// Row-major: one row a row, one column an encoded feature.
    pub x: Array2<f64>,
    /// The target: the number, or the index of the class.
    pub y: Array1<f64>,
    /// The number of each row in the dataset: what randomness about a row is drawn from.
    pub rows: Vec<u64>,
}

/// What a learner made of a table, in a type of its own.
pub type Kept = Arc<dyn Any + Send + Sync>;

/// The training rows of a fit, as the learner's encoding shows them.
pub trait Rows: Sync {
    /// How many chunks the table has.
    fn chunks(&self) -> usize;

    /// The training rows of one chunk; possibly none.
    fn block(&self, chunk: usize) -> Result<Arc<Block>, WorkError>;

    /// The same, for who reads the table once and keeps what was made of it: the block itself is not kept.
    fn block_once(&self, chunk: usize) -> Result<Arc<Block>, WorkError> {
        self.block(chunk)
    }

    /// Training rows chosen by the hash of their number, in the order of the table: for quantiles. All of them if
    /// there are few.
    fn sample(&self) -> Result<Block, WorkError>;

    /// How many encoded features there are.
    fn width(&self) -> usize;

    /// How many training rows each class has; nothing for regression.
    fn class_rows(&self) -> Vec<u64>;

    /// Count, mean, spread and range of the target in all training rows; none for classification.
    fn target(&self) -> Option<Moments>;

    /// What was kept under that name of the same rows in the same encoding, by any fit, if it is there still. The name
    /// says all else that it is a function of, so that no result depends on whether it is there.
    fn recall(&self, _name: Digest) -> Option<Kept> {
        None
    }

    /// Keeps what was made of the rows for units to come on the same machine, while there is room. `bytes` is about how
    /// much memory it takes.
    fn keep(&self, _name: Digest, _bytes: usize, _value: Kept) {}

    /// Gives up what was kept under that name.
    fn forget(&self, _name: Digest) {}
}

/// What a unit or a fold of a fit has to work with.
pub struct Fit<'a> {
    /// Regression or classification.
    pub task: Task,
    /// How many classes; 0 for regression.
    pub classes: usize,
    /// Complete and checked parameters.
    pub params: &'a Params,
    /// The source of everything random: see [`dml_core::rng`].
    pub seed: u64,
    /// How the job is cut: [`Plan::share`] tells a unit its part.
    pub plan: Plan,
    /// The training rows.
    pub rows: &'a dyn Rows,
}

impl Block {
    /// The cells of `x` row by row, and `y`.
    pub(crate) fn cells(&self) -> (&[f64], &[f64]) {
        let cells = self.x.as_slice().zip(self.y.as_slice());
        cells.expect("a block is made of whole vectors, rows one after the other")
    }

    /// Its rows, so many at a time.
    pub(crate) fn parts(&self, rows: usize) -> impl Iterator<Item = Self> {
        (0..self.y.len()).step_by(rows).map(move |first| {
            let part = first..self.y.len().min(first + rows);
            Self {
                x: self.x.slice_axis(Axis(0), part.clone().into()).to_owned(),
                y: self.y.slice_axis(Axis(0), part.clone().into()).to_owned(),
                rows: self.rows[part].to_vec(),
            }
        })
    }
}

/// How many blocks are in memory at a time for each thread that works on them.
const BLOCKS_AHEAD: usize = 2;

impl Fit<'_> {
    /// Makes something of each of some chunks, on all threads, and takes it in the order of the chunks. A block and what
    /// is made of it are dropped before many others are read; for rounds to come, blocks are kept while there is room.
    pub fn each_block<T: Send>(
        &self,
        chunks: Range<usize>,
        make: impl Fn(&Block) -> Result<T, WorkError> + Sync,
        mut take: impl FnMut(T),
    ) -> Result<(), WorkError> {
        let ahead = rayon::current_num_threads() * BLOCKS_AHEAD;
        let block = |chunk| match self.plan.rounds {
            1 => self.rows.block_once(chunk),
            _ => self.rows.block(chunk),
        };
        for start in chunks.clone().step_by(ahead) {
            let made = (start..chunks.end.min(start + ahead)).into_par_iter();
            let made: Vec<Result<T, WorkError>> = made.map(|chunk| make(&*block(chunk)?)).collect();
            for part in made {
                take(part?);
            }
        }
        Ok(())
    }

    /// How much a row of each class counts by the parameter `class_weight`: 1, or if it is `balanced` so much that every
    /// class that has rows counts the same (King and Zeng 2001, "Logistic regression in rare events data").
    pub fn class_weights(&self) -> Vec<f64> {
        if self.params.text("class_weight") != "balanced" {
            return vec![1.0; self.classes];
        }
        let rows = self.rows.class_rows();
        let (all, classes) = (rows.iter().sum::<u64>(), rows.iter().filter(|rows| **rows > 0).count());
        let weight = |rows: &u64| all as f64 / (classes as f64 * (*rows).max(1) as f64);
        rows.iter().map(weight).collect()
    }

    /// An error for a classifier that was given nothing to tell apart.
    pub fn at_least_two_classes(&self, kind: &str) -> Result<(), WorkError> {
        match self.classes {
            0 | 1 => Err(WorkError::Input(format!("{kind} needs a target with at least two classes"))),
            _ => Ok(()),
        }
    }

    /// All training rows in one block: for learners that need the whole table at once.
    pub fn all_rows(&self) -> Result<Block, WorkError> {
        let blocks = (0..self.rows.chunks()).map(|c| self.rows.block(c)).collect::<Result<Vec<_>, _>>()?;
        let rows = blocks.iter().flat_map(|block| block.rows.iter().copied()).collect::<Vec<_>>();
        let mut x = Vec::with_capacity(rows.len() * self.rows.width());
        let mut y = Vec::with_capacity(rows.len());
        for block in blocks {
            x.extend(&block.x);
            y.extend(&block.y);
        }
        let x = Array2::from_shape_vec((rows.len(), self.rows.width()), x).expect("blocks have equal widths");
        Ok(Block { x, y: Array1::from_vec(y), rows })
    }
}

/// How a round ended.
pub enum Folded<S, M> {
    /// The state that the next round begins with.
    Next(S),
    /// The model: the fit is finished, also when rounds are left.
    Done(M),
}

impl<S, M> Folded<S, M> {
    /// The same with another model.
    pub fn map<N>(self, model: impl FnOnce(M) -> N) -> Folded<S, N> {
        match self {
            Self::Next(state) => Folded::Next(state),
            Self::Done(done) => Folded::Done(model(done)),
        }
    }
}

/// What a model says of some rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Scores {
    /// Regression: a number a row.
    Values(Array1<f64>),
    /// Classification: a row of class probabilities a row, each summing to 1.
    Probabilities(Array2<f64>),
}

/// What a fit makes of a table.
pub trait Predict: Send + Sync + 'static {
    /// Scores for encoded rows.
    fn predict(&self, x: &Array2<f64>) -> Scores;

    /// What the model would say of encoded rows had it been stopped earlier: calls `each` with a number of steps and the
    /// scores after so many, in rising order and the last included. Nothing if the model is not built up in steps.
    fn staged(&self, _x: &Array2<f64>, _each: &mut dyn FnMut(u32, Scores)) {}

    /// How much each encoded feature contributes, not negative, in any unit; none if the kind cannot tell.
    fn importance(&self) -> Option<Vec<f64>> {
        None
    }

    /// Adds nodes to a graph that make of the encoded matrix `x`, `[N, width]`, what [`Predict::predict`] does: numbers,
    /// `[N, 1]`, or class probabilities, `[N, classes]`, in double precision. None if the kind cannot be told so. A kind
    /// that can says "onnx" in [`Kind::exportable`].
    fn onnx(&self, _graph: &mut onnx::Graph, _x: onnx::Value) -> Option<onnx::Value> {
        None
    }
}

/// A kind of model.
///
/// Every function is deterministic: the same arguments give the same bytes on any machine with any number of threads.
/// Hence sums in fixed order (or of integers), `libm` for transcendental functions, randomness from
/// [`Fit::seed`] alone, and no iteration over hash maps.
pub trait Learner: Send + Sync + 'static {
    /// What a fold hands to the next round.
    type State: Serialize + DeserializeOwned;
    /// What a unit hands to the fold.
    type Partial: Serialize + DeserializeOwned;
    /// What predicts.
    type Model: Predict + Serialize + DeserializeOwned;

    /// Its name, tasks, parameters and properties.
    fn kind(&self) -> Kind;

    /// How a fit on such a table is cut.
    fn plan(&self, params: &Params, shape: &Shape) -> Plan;

    /// The state that the first round begins with.
    fn start(&self, fit: &Fit) -> Result<Self::State, WorkError>;

    /// One unit of a round.
    fn unit(
        &self,
        fit: &Fit,
        round: u32,
        index: u32,
        state: &Self::State,
    ) -> Result<Self::Partial, WorkError>;

    /// The end of a round: the partials of all its units, in index order. The last round gives the model.
    fn fold(
        &self,
        fit: &Fit,
        round: u32,
        state: Self::State,
        partials: Vec<Self::Partial>,
    ) -> Result<Folded<Self::State, Self::Model>, WorkError>;

    /// The model if the fit ended with this state, after any round: for searches that give up early what does not
    /// promise. None if there is none before the last round.
    fn so_far(&self, _fit: &Fit, _state: Self::State) -> Option<Self::Model> {
        None
    }

    /// Whether [`Learner::so_far`] gives a model.
    fn is_gradual(&self) -> bool {
        false
    }
}
