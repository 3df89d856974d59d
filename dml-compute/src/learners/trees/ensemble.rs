//! Trees that speak together: the model of every kind of tree.

use std::sync::OnceLock;

use dml_core::Task;
use ndarray::Array2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{leaves::Leaves, tree::Tree, walk::Walk};
use crate::{
    error::WorkError,
    learner::{Predict, Scores},
    metrics::is_looked_at,
    onnx,
};

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

/// From so many rows on it is worth to lay trees out for rows side by side.
const MANY_ROWS: usize = 32;

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
    layout: Lazy,
}

/// The trees laid out for prediction, once somebody asks. It follows from the rest, so it makes no two models differ.
#[derive(Debug, Default)]
struct Lazy {
    walk: OnceLock<Walk>,
    leaves: OnceLock<Option<Leaves>>,
}

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
        Ok(Self { link, width, base, trees, layout: Lazy::default() })
    }
}

/// Adds what trees say of the values of some rows, so many a row, to the sums of these rows.
type Say<'a> = dyn Fn(&[f64], usize, &mut [f64]) + Sync + 'a;

impl Ensemble {
    /// Without trees, these numbers.
    pub(crate) fn new(link: Link, width: usize, base: Vec<f64>) -> Self {
        Self { link, width: width as u32, base, trees: Vec::new(), layout: Lazy::default() }
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
        let Self { link, width, base, trees, layout: _ } = self;
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
        let mut sums = self.no_sums(x.nrows());
        let (outputs, layout) = (self.base.len(), &self.layout);
        let leaves = || layout.leaves.get_or_init(|| Leaves::new(&self.trees, outputs)).as_ref();
        match if x.nrows() < MANY_ROWS { None } else { leaves() } {
            Some(leaves) => self.add(&|values, width, sums| leaves.add(values, width, sums), x, &mut sums),
            None => {
                let walk = layout.walk.get_or_init(|| Walk::new(&self.trees, outputs));
                self.add(&|values, width, sums| walk.add(values, width, sums), x, &mut sums);
            }
        }
        sums
    }

    /// The base for each row.
    fn no_sums(&self, rows: usize) -> Array2<f64> {
        Array2::from_shape_fn((rows, self.base.len()), |(_, output)| self.base[output])
    }

    /// Adds what some trees say of encoded rows.
    fn add(&self, say: &Say, x: &Array2<f64>, sums: &mut Array2<f64>) {
        if x.ncols() < self.width() {
            // A feature that the rows lack is blank.
            let value = |(row, column): (usize, usize)| x.get((row, column)).copied().unwrap_or(f64::NAN);
            return self.add(say, &Array2::from_shape_fn((x.nrows(), self.width()), value), sums);
        }
        let (rows, width) = x.dim();
        let outputs = self.base.len();
        let x = x.as_standard_layout();
        let values = x.as_slice().expect("the layout was made standard");
        let sums = sums.as_slice_mut().expect("sums are standard");
        if rows <= ROWS {
            say(values, width, sums);
        } else {
            let blocks = sums.par_chunks_mut(ROWS * outputs).enumerate();
            blocks.for_each(|(block, sums)| say(&values[block * ROWS * width..], width, sums));
        }
    }

    /// The scores that follow from the sums of so many trees.
    fn scores_of(&self, mut sums: Array2<f64>, trees: usize) -> Scores {
        let trees = trees.max(1) as f64;
        match self.link {
            Link::Identity => Scores::Values(sums.column(0).to_owned()),
            Link::Mean => Scores::Values(sums.column(0).mapv(|sum| sum / trees)),
            Link::Shares => Scores::Probabilities(sums.mapv_into(|sum| sum / trees)),
            Link::Logistic => {
                let one = |(row, class): (usize, usize)| {
                    let p = logistic(sums[(row, 0)]);
                    if class == 0 { 1.0 - p } else { p }
                };
                Scores::Probabilities(Array2::from_shape_fn((sums.nrows(), 2), one))
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
}

impl Predict for Ensemble {
    fn predict(&self, x: &Array2<f64>) -> Scores {
        self.scores_of(self.sums(x), self.trees.len())
    }

    /// A step is an iteration, or a tree that knows the whole answer. A model of one step is not built up in steps.
    fn staged(&self, x: &Array2<f64>, each: &mut dyn FnMut(u32, Scores)) {
        let Some(tree) = self.trees.first() else { return };
        let a_step = (self.base.len() / tree.outputs()).max(1);
        let steps = self.trees.len() / a_step;
        if steps == 1 {
            return;
        }
        let mut sums = self.no_sums(x.nrows());
        let mut done = 0;
        for step in (1..=steps).filter(|&step| is_looked_at(step) || step == steps) {
            let trees = &self.trees[done * a_step..step * a_step];
            let walk = Walk::new(trees, self.base.len());
            self.add(&|values, width, sums| walk.add(values, width, sums), x, &mut sums);
            done = step;
            each(step as u32, self.scores_of(sums.clone(), step * a_step));
        }
    }

    /// By how much the splits of each feature lowered the loss, all trees together.
    fn importance(&self) -> Option<Vec<f64>> {
        let mut importance = vec![0.0; self.width as usize];
        for (&feature, gain) in self.trees.iter().flat_map(Tree::gains) {
            let sum = &mut importance[feature as usize];
            *sum = f64::min(*sum + gain, f64::MAX);
        }
        Some(importance)
    }
    fn onnx(&self, graph: &mut onnx::Graph, x: onnx::Value) -> Option<onnx::Value> {
        graph.ensemble(self, x)
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
        assert_eq!(ensemble.importance(), Some(vec![4.0, 2.0]));
        assert_eq!(ensemble.sums(&Array2::zeros((0, 2))).dim(), (0, 2));
    }

    #[test]
    fn stages_are_the_models_that_ended_there() {
        let x = ndarray::array![[0.0, 0.0], [1.0, 0.0], [f64::NAN, 1.0]];
        for (link, base) in
            [(Link::Softmax, vec![0.5, 0.2]), (Link::Mean, vec![0.0]), (Link::Logistic, vec![0.3])]
        {
            let outputs = base.len();
            let of = |steps: usize| {
                let trees = (0..steps * outputs).map(|tree| stump(tree % 2)).collect();
                Ensemble::new(link, 2, base.clone()).with(trees).unwrap()
            };
            let mut stages = Vec::new();
            of(23).staged(&x, &mut |steps, scores| stages.push((steps, scores)));
            assert_eq!(
                stages.iter().map(|(steps, _)| *steps).collect::<Vec<_>>(),
                (1..20).chain([20, 23]).collect::<Vec<_>>()
            );
            of(1).staged(&x, &mut |steps, _| unreachable!("one step is no curve: {steps}"));
            stages.iter().for_each(|(steps, scores)| assert_eq!(*scores, of(*steps as usize).predict(&x)));
        }
    }

    #[test]
    fn features_and_outputs_that_are_not_there_are_refused() {
        for (width, base, refused) in [(2, vec![0.0], false), (1, vec![0.0], true), (2, vec![], true)] {
            let ensemble = Ensemble {
                link: Link::Identity,
                width,
                base,
                trees: vec![stump(1)],
                layout: Lazy::default(),
            };
            let bytes = postcard::to_allocvec(&ensemble).unwrap();
            assert_eq!(postcard::from_bytes::<Ensemble>(&bytes).is_err(), refused);
        }
    }
}
