//! Trees that speak together: the model of every kind of tree.

use std::sync::OnceLock;

use dml_core::Task;
use ndarray::Array2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{tree::Tree, walk::Walk};
use crate::{error::WorkError, learner::Scores};

/// How the sums of an [`Ensemble`] become scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// The sum is the predicted number.
    Identity,
    /// The sum, divided by the number of trees, is the predicted number.
    Mean,
    /// The sums, divided by the number of trees, are the probabilities of the classes.
    Shares,
    /// The sum is the log-odds of the second of two classes.
    Logistic,
    /// The sums are the logarithms of the classes' probabilities, but for a constant.
    Softmax,
}

/// How many rows a thread answers at a time.
const ROWS: usize = 256;

/// Trees whose answers are added to a base, one number an output.
///
/// A tree may have a value for each output; with one value alone, the trees serve the outputs in turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Ensemble {
    link: Link,
    width: u32,
    base: Vec<f64>,
    trees: Vec<Tree>,
    #[serde(skip)]
    walk: Lazy,
}

/// The trees laid out for prediction, once somebody asks. It follows from the rest, so it makes no two models differ.
#[derive(Debug, Default)]
struct Lazy(OnceLock<Walk>);

impl Clone for Lazy {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Lazy {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// An ensemble as read, before anything of it is believed.
#[derive(Deserialize)]
struct Raw {
    link: Link,
    width: u32,
    base: Vec<f64>,
    trees: Vec<Tree>,
}

impl TryFrom<Raw> for Ensemble {
    type Error = &'static str;

    fn try_from(raw: Raw) -> Result<Self, Self::Error> {
        let Raw { link, width, base, trees } = raw;
        let sound = |tree: &Tree| {
            tree.width() <= width as usize && (tree.outputs() == base.len() || tree.outputs() == 1)
        };
        if base.is_empty() || width > u32::MAX / 2 || !trees.iter().all(sound) {
            return Err("a tree asks for a feature or has an output that the model lacks");
        }
        Ok(Self { link, width, base, trees, walk: Lazy::default() })
    }
}

impl Ensemble {
    /// Without trees, these numbers.
    pub(crate) fn new(link: Link, width: usize, base: Vec<f64>) -> Self {
        Self { link, width: width as u32, base, trees: Vec::new(), walk: Lazy::default() }
    }

    /// Trees that each know the whole answer, to be asked for their mean.
    pub(crate) fn of_trees(task: Task, width: usize, trees: Vec<Tree>) -> Result<Self, WorkError> {
        let link = match task {
            Task::Regression => Link::Mean,
            Task::Classification => Link::Shares,
        };
        let outputs = trees.first().map_or(1, Tree::outputs);
        Self::new(link, width, vec![0.0; outputs]).with(trees)
    }

    /// The same with more trees behind the others, if they fit.
    pub(crate) fn with(mut self, trees: Vec<Tree>) -> Result<Self, WorkError> {
        self.trees.extend(trees);
        let Self { link, width, base, trees, walk: _ } = self;
        Self::try_from(Raw { link, width, base, trees })
            .map_err(|why| WorkError::Corrupt { what: "a part of the trees", why: why.into() })
    }

    /// The trees, in the order in which they are added up.
    pub fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// How sums become scores.
    pub fn link(&self) -> Link {
        self.link
    }

    /// What the trees' answers are added to: a number an output.
    pub fn base(&self) -> &[f64] {
        &self.base
    }

    /// How many encoded features it was trained on.
    pub fn width(&self) -> usize {
        self.width as usize
    }

    /// The first of the outputs that a tree adds to.
    pub(crate) fn output(&self, tree: usize) -> usize {
        tree * self.trees[tree].outputs() % self.base.len()
    }

    /// The base and all trees, added up in order: a row a row, a column an output.
    pub fn sums(&self, x: &Array2<f64>) -> Array2<f64> {
        if x.ncols() < self.width() {
            // A feature that the rows lack is blank.
            let value = |(row, column): (usize, usize)| x.get((row, column)).copied().unwrap_or(f64::NAN);
            return self.sums(&Array2::from_shape_fn((x.nrows(), self.width()), value));
        }
        let (rows, width) = x.dim();
        let outputs = self.base.len();
        let x = x.as_standard_layout();
        let values = x.as_slice().expect("the layout was made standard");
        let mut sums = self.base.repeat(rows);
        let walk = self.walk.0.get_or_init(|| Walk::new(&self.trees, outputs));
        if rows <= ROWS {
            walk.add(values, width, &mut sums);
        } else {
            let blocks = sums.par_chunks_mut(ROWS * outputs).enumerate();
            blocks.for_each(|(block, sums)| walk.add(&values[block * ROWS * width..], width, sums));
        }
        Array2::from_shape_vec((rows, outputs), sums).expect("a base was put down for each row")
    }

    /// What the model says of encoded rows.
    pub fn scores(&self, x: &Array2<f64>) -> Scores {
        let trees = self.trees.len().max(1) as f64;
        let mut sums = self.sums(x);
        match self.link {
            Link::Identity => Scores::Values(sums.column(0).to_owned()),
            Link::Mean => Scores::Values(sums.column(0).mapv(|sum| sum / trees)),
            Link::Shares => Scores::Probabilities(sums.mapv_into(|sum| sum / trees)),
            Link::Logistic => {
                let one = |(row, class): (usize, usize)| {
                    let p = logistic(sums[(row, 0)]);
                    if class == 0 { 1.0 - p } else { p }
                };
                Scores::Probabilities(Array2::from_shape_fn((x.nrows(), 2), one))
            }
            Link::Softmax => {
                sums.as_slice_mut()
                    .expect("sums are standard")
                    .chunks_exact_mut(self.base.len())
                    .for_each(softmax);
                Scores::Probabilities(sums)
            }
        }
    }

    /// By how much the splits of each feature lowered the loss, all trees together.
    pub fn importance(&self) -> Vec<f64> {
        let mut importance = vec![0.0; self.width as usize];
        for (&feature, gain) in self.trees.iter().flat_map(Tree::gains) {
            let sum = &mut importance[feature as usize];
            *sum = f64::min(*sum + gain, f64::MAX);
        }
        importance
    }
}

/// The probability of these log-odds.
pub(crate) fn logistic(sum: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-sum))
}

/// Makes log-probabilities, known but for a constant, into probabilities.
pub(crate) fn softmax(sums: &mut [f64]) {
    let most = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    sums.iter_mut().for_each(|sum| *sum = libm::exp(*sum - most));
    let total = sums.iter().sum::<f64>();
    sums.iter_mut().for_each(|sum| *sum /= total);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learners::trees::tree::Writer;

    fn stump(feature: usize) -> Tree {
        let mut writer = Writer::new(1);
        let split = writer.split(feature, 0.5, false, 2.0);
        writer.leaf(&[-1.0]);
        writer.right(split);
        writer.leaf(&[1.0]);
        writer.finish()
    }

    #[test]
    fn trees_serve_outputs_in_turn() {
        let ensemble = Ensemble::new(Link::Softmax, 2, vec![10.0, 20.0]);
        let ensemble = ensemble.with(vec![stump(0), stump(1), stump(0)]).unwrap();
        let x = ndarray::array![[0.0, 0.0], [1.0, 0.0], [f64::NAN, 1.0]];
        assert_eq!(ensemble.sums(&x), ndarray::array![[8.0, 19.0], [12.0, 19.0], [12.0, 21.0]]);
        assert_eq!(ensemble.importance(), [4.0, 2.0]);
        assert_eq!(ensemble.sums(&Array2::zeros((0, 2))).dim(), (0, 2));
    }

    #[test]
    fn features_and_outputs_that_are_not_there_are_refused() {
        for (width, base, refused) in [(2, vec![0.0], false), (1, vec![0.0], true), (2, vec![], true)] {
            let ensemble =
                Ensemble { link: Link::Identity, width, base, trees: vec![stump(1)], walk: Lazy::default() };
            let bytes = postcard::to_allocvec(&ensemble).unwrap();
            assert_eq!(postcard::from_bytes::<Ensemble>(&bytes).is_err(), refused);
        }
    }
}
