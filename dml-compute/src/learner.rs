//! What a kind of model is: how its fit is cut into rounds of units, what a unit and a fold compute, and how the
//! finished model predicts. One learner a file in [`crate::learners`]; anyone may add their own to a
//! [`Registry`](crate::Registry).

use dml_core::{Params, Plan, Task};
use ndarray::{Array1, Array2};
use serde::{Serialize, de::DeserializeOwned};

use crate::{error::WorkError, kind::Kind};

/// How a table becomes the matrix that a learner sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// No blanks: numbers imputed by the mean and standardised, categories one-hot. For linear models.
    Dense,
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

/// The training rows of a fit, as the learner's encoding shows them.
pub trait Rows: Sync {
    /// How many chunks the table has.
    fn chunks(&self) -> usize;

    /// The training rows of one chunk; possibly none.
    fn block(&self, chunk: usize) -> Result<Block, WorkError>;

    /// Training rows chosen by the hash of their number, in the order of the table: for quantiles. All of them if
    /// there are few.
    fn sample(&self) -> Result<Block, WorkError>;

    /// How many encoded features there are.
    fn width(&self) -> usize;
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

impl Fit<'_> {
    /// All training rows in one block: for learners that need the whole table at once.
    pub fn all_rows(&self) -> Result<Block, WorkError> {
        let blocks = (0..self.rows.chunks()).map(|c| self.rows.block(c)).collect::<Result<Vec<_>, _>>()?;
        let rows = blocks.iter().flat_map(|block| block.rows.iter().copied()).collect::<Vec<_>>();
        let mut x = Vec::with_capacity(rows.len() * self.rows.width());
        let mut y = Vec::with_capacity(rows.len());
        for block in blocks {
            x.extend(block.x.iter());
            y.extend(block.y);
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

/// What a model says of some rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Scores {
    /// Regression: a number a row.
    Values(Array1<f64>),
    /// Classification: a row of class probabilities a row, each summing to 1.
    Probabilities(Array2<f64>),
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
    type Model: Serialize + DeserializeOwned;

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

    /// Scores for encoded rows.
    fn predict(&self, model: &Self::Model, x: &Array2<f64>) -> Scores;

    /// How much each encoded feature contributes, not negative, in any unit; none if the kind cannot tell.
    fn importance(&self, _: &Self::Model) -> Option<Vec<f64>> {
        None
    }
}
