//! Logistic regression, for two classes and (softmax) for more, with an L2 penalty on the weights.
//!
//! Minimises `sum of log-losses + |weights|² / 2C`, as scikit-learn does; intercepts are free; two classes share one
//! weight vector. Each round sums loss, gradient and Hessian at one point over all rows; the step from there is
//! Newton's with backtracking (Nocedal and Wright 2006, "Numerical Optimization", 3.1 and 3.3), or L-BFGS (Nocedal
//! 1980; 7.2 there) when there are so many weights that their Hessian would be large. Thanks to the penalty, classes
//! that can be told apart perfectly have finite weights too. A table that is one unit takes several steps a round.

mod search;
mod sums;

use dml_core::{Params, Plan, Task};
use ndarray::{Array2, ArrayView1};
use serde::{Deserialize, Serialize};

pub use search::Search;
pub use sums::Sums;

use search::MAX_HALVINGS;
use sums::MAX_NEWTON;

use super::symmetric::dot;
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit, Folded, Learner, Scores, Shape},
};

/// About how many multiplications a unit does.
const UNIT_WORK: u64 = 1 << 30;

/// About how many numbers a unit holds in memory.
const UNIT_CELLS: u64 = 1 << 23;

/// The kind `logistic`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Logistic;

/// The fitted weights: a row an output, each with a weight a feature and, last, the intercept. Two classes have one
/// output (the second class against the first), more have one a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Softmax {
    /// How many classes.
    pub classes: usize,
    /// The weights of each output.
    pub outputs: Vec<Vec<f64>>,
}

/// What a unit hands to the fold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Found {
    /// The sums over its share of the rows.
    Sums(Sums),
    /// The only unit went on by itself.
    Went(Search),
}

impl Learner for Logistic {
    type State = Search;
    type Partial = Found;
    type Model = Softmax;

    fn kind(&self) -> Kind {
        Kind {
            name: "logistic",
            about: "Logistic regression: each class has a weighted sum of the features, the sums make probabilities.",
            tasks: vec![Task::Classification],
            params: vec![
                Param {
                    name: "C",
                    about: "The inverse of the penalty on the size of the weights: greater trusts the data more.",
                    domain: Domain::Float { default: 1.0, min: 1e-9, max: 1e9 },
                },
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
            ],
            default: true,
            parallel: true,
            deterministic: true,
            exportable: vec!["native", "json"],
            encoding: Encoding::Dense,
        }
    }

    fn plan(&self, params: &Params, shape: &Shape) -> Plan {
        // Encoding is taken to double the columns. Halvings are rare, yet have rounds of their own.
        let weights = (outputs(shape.classes) * (2 * shape.columns + 1)) as u64;
        let rows = (UNIT_WORK / work_per_row(weights)).min(UNIT_CELLS / shape.columns.max(1) as u64);
        let rounds = params.int("max_iter").clamp(1, 10_000) as u32 + MAX_HALVINGS + 1;
        Plan::over_chunks(rounds, shape.rows, shape.chunks, rows.max(1024))
    }

    fn start(&self, fit: &Fit) -> Result<Search, WorkError> {
        if fit.classes < 2 {
            return Err(WorkError::Input("logistic needs a target with at least two classes".into()));
        }
        Ok(Search::from(vec![0.0; outputs(fit.classes) * (fit.rows.width() + 1)]))
    }

    fn unit(&self, fit: &Fit, _: u32, index: u32, search: &Search) -> Result<Found, WorkError> {
        if fit.plan.units > 1 {
            let mut sums = Sums::zero(&search.point, fit.classes);
            let model = Softmax::at(fit, &search.point);
            for chunk in fit.plan.share(index, fit.rows.chunks()) {
                sums.add_block(&model, &fit.rows.block(chunk)?);
            }
            return Ok(Found::Sums(sums));
        }
        let blocks = (0..fit.rows.chunks()).map(|c| fit.rows.block(c)).collect::<Result<Vec<_>, _>>()?;
        let mut search = search.clone();
        let mut work = 0;
        while work < UNIT_WORK && !search.is_finished() {
            let mut sums = Sums::zero(&search.point, fit.classes);
            let model = Softmax::at(fit, &search.point);
            blocks.iter().for_each(|block| sums.add_block(&model, block));
            work += sums.rows.max(1) * work_per_row(search.point.len() as u64);
            search.advance(fit, sums)?;
        }
        Ok(Found::Went(search))
    }

    fn fold(
        &self,
        fit: &Fit,
        round: u32,
        mut search: Search,
        partials: Vec<Found>,
    ) -> Result<Folded<Search, Softmax>, WorkError> {
        let mut sums = Sums::zero(&search.point, fit.classes);
        for partial in partials {
            match partial {
                Found::Sums(partial) => sums.add(&partial),
                Found::Went(further) => search = further,
            }
        }
        if fit.plan.units > 1 {
            search.advance(fit, sums)?;
        }
        if !search.is_finished() && round + 1 < fit.plan.rounds {
            return Ok(Folded::Next(search));
        }
        Ok(Folded::Done(Softmax::at(fit, &search.best())))
    }

    fn predict(&self, model: &Softmax, x: &Array2<f64>) -> Scores {
        let mut out = Array2::zeros((x.nrows(), model.classes));
        let mut row = vec![1.0; x.ncols() + 1];
        for (x, mut out) in x.rows().into_iter().zip(out.rows_mut()) {
            extend(&mut row, x);
            let mut scores = model.scores(&row);
            softmax(&mut scores);
            out.iter_mut().zip(scores).for_each(|(o, p)| *o = p);
        }
        Scores::Probabilities(out)
    }

    fn importance(&self, model: &Softmax) -> Option<Vec<f64>> {
        let width = model.outputs.first()?.len() - 1;
        let mean =
            |j: usize| model.outputs.iter().map(|w| w[j].abs()).sum::<f64>() / model.outputs.len() as f64;
        Some((0..width).map(mean).collect())
    }
}

impl Softmax {
    /// The model with these weights, one output after the other.
    fn at(fit: &Fit, point: &[f64]) -> Self {
        let outputs = point.chunks(fit.rows.width() + 1).map(<[f64]>::to_vec).collect();
        Self { classes: fit.classes, outputs }
    }

    /// The weighted sum of each class for a row that ends with 1.
    fn scores(&self, row: &[f64]) -> Vec<f64> {
        let mut scores = vec![0.0; self.classes];
        let first = self.classes - self.outputs.len();
        for (score, weights) in scores[first..].iter_mut().zip(&self.outputs) {
            let sum = dot(weights, row);
            // Values far outside of what was learned from must not make infinities cancel out.
            *score = if sum.is_nan() { 0.0 } else { sum.clamp(-1e300, 1e300) };
        }
        scores
    }
}

/// How many weight vectors so many classes have.
fn outputs(classes: usize) -> usize {
    if classes > 2 { classes } else { 1 }
}

/// About how many multiplications a row costs with so many weights.
fn work_per_row(weights: u64) -> u64 {
    if weights <= MAX_NEWTON as u64 { weights * weights / 2 + 50 } else { 4 * weights }
}

/// Copies features into a row that ends with 1.
fn extend(row: &mut [f64], x: ArrayView1<f64>) {
    row.iter_mut().zip(x).for_each(|(r, x)| *r = *x);
}

/// Turns scores into probabilities; returns the logarithm of the sum of their exponentials.
fn softmax(scores: &mut [f64]) -> f64 {
    let top = scores.iter().copied().fold(f64::MIN, f64::max);
    scores.iter_mut().for_each(|s| *s = libm::exp(*s - top));
    let sum: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|s| *s /= sum);
    top + libm::log(sum)
}

#[cfg(test)]
mod tests {
    use dml_core::Value;

    use super::*;
    use crate::{learner::Block, learners::testing};

    fn fit(block: &Block, classes: usize, c: f64) -> Result<Softmax, WorkError> {
        let given = testing::params(&[("C", Value::Float(c)), ("tol", Value::Float(1e-9))]);
        testing::run(&Logistic, block, &given, Task::Classification, classes)
    }

    fn predict(model: &Softmax, block: &Block) -> Array2<f64> {
        match Logistic.predict(model, &block.x) {
            Scores::Probabilities(p) => p,
            Scores::Values(_) => unreachable!("a classification"),
        }
    }

    /// Noisy classes along two features, a one-hot pair and a constant.
    fn table(rows: usize, width: u64, classes: usize) -> Block {
        testing::block(rows, |row| {
            let mut x: Vec<f64> = (0..width).map(|j| testing::noise(row, j)).collect();
            let pair = f64::from(u8::from(testing::noise(row, 50) > 0.0));
            let score = x[0] - 0.5 * x[1] + pair + 0.4 * testing::noise(row, 51);
            x.extend([pair, 1.0 - pair, 1.0]);
            (x, ((score + 1.5).max(0.0) / 4.0 * classes as f64).floor().min(classes as f64 - 1.0))
        })
    }

    /// The greatest component of the objective's gradient, computed from predictions alone.
    fn greatest_slope(model: &Softmax, block: &Block, c: f64) -> f64 {
        let p = predict(model, block);
        let first = model.classes - model.outputs.len();
        let mut greatest = 0.0f64;
        for (k, weights) in model.outputs.iter().enumerate() {
            for (j, weight) in weights.iter().enumerate() {
                let mut slope = if j < block.x.ncols() { weight / c } else { 0.0 };
                for i in 0..block.y.len() {
                    let x = if j < block.x.ncols() { block.x[[i, j]] } else { 1.0 };
                    let is = if block.y[i] == (first + k) as f64 { 1.0 } else { 0.0 };
                    slope += (p[[i, first + k]] - is) * x;
                }
                greatest = greatest.max(slope.abs());
            }
        }
        greatest
    }

    #[test]
    fn the_gradient_vanishes_for_few_and_many_weights() {
        for (width, classes, c) in
            [(2, 2, 1.0), (2, 3, 1.0), (3, 4, 100.0), (2, 3, 0.01), (310, 2, 1.0), (90, 5, 1.0)]
        {
            let block = table(120, width, classes);
            let model = fit(&block, classes, c).unwrap();
            let slope = greatest_slope(&model, &block, c);
            assert!(slope < 1e-3, "{width} features, {classes} classes, C {c}: {slope}");
            assert!(Logistic.importance(&model).unwrap().len() == width as usize + 3);
        }
    }

    #[test]
    fn one_dimension_is_that_of_a_naive_search() {
        // Minimise log(1 + e^-w) * 2 + log(1 + e^w) + w²/2 with features ±1: bisection on the derivative.
        let block = testing::block(6, |row| {
            (
                vec![if row % 2 == 0 { 1.0 } else { -1.0 }],
                f64::from(u8::from([0, 1, 1, 0, 1, 0][row as usize] == 1)),
            )
        });
        let model = fit(&block, 2, 1.0).unwrap();
        let slope = |w: f64| {
            let p = |x: f64| 1.0 / (1.0 + (-w * x).exp());
            let rows = block.x.iter().zip(&block.y);
            w + rows.map(|(x, y)| (p(*x) - y) * x).sum::<f64>()
        };
        let (mut low, mut high) = (-5.0, 5.0);
        for _ in 0..80 {
            let middle = (low + high) / 2.0;
            if slope(middle) > 0.0 { high = middle } else { low = middle }
        }
        assert!((model.outputs[0][0] - low).abs() < 1e-7, "{model:?} {low}");
        assert!(model.outputs[0][1].abs() < 1e-7, "as many of each class: {model:?}");
    }

    #[test]
    fn perfectly_separable_classes_have_finite_weights() {
        for (classes, c) in [(2, 1.0), (3, 1.0), (3, 1e9), (2, 1e9)] {
            let block = testing::block(60, |row| {
                let class = row % classes as u64;
                (
                    vec![class as f64 * 2.0 + 0.1 * testing::noise(row, 0), testing::noise(row, 1)],
                    class as f64,
                )
            });
            let given = testing::params(&[("C", Value::Float(c))]);
            let model = testing::run(&Logistic, &block, &given, Task::Classification, classes).unwrap();
            assert!(model.outputs.iter().flatten().all(|w| w.is_finite()), "{model:?}");
            let p = predict(&model, &block);
            assert!((0..60).all(|i| p[[i, block.y[i] as usize]] > 0.5), "{classes} {c}");
        }
    }

    #[test]
    fn any_cut_gives_nearly_the_same_and_each_cut_the_same() {
        for (width, classes) in [(3, 3), (310, 2)] {
            let block = table(100, width, classes);
            let run = |chunks, units| {
                let plan = Plan { rounds: 131, units, fold: true };
                testing::run_cut(
                    &Logistic,
                    &block,
                    &Params::default(),
                    Task::Classification,
                    classes,
                    chunks,
                    Some(plan),
                )
                .unwrap()
            };
            let (one, many) = (predict(&run(1, 1), &block), predict(&run(7, 3), &block));
            assert!(one.iter().zip(&many).all(|(a, b)| (a - b).abs() < 1e-3));
            assert_eq!(run(120, 50), run(120, 50));
            assert!(one.rows().into_iter().all(|row| (row.sum() - 1.0).abs() < 1e-12));
        }
    }

    #[test]
    fn odd_tables_have_finite_models_or_clear_errors() {
        let one_class = testing::block(9, |row| (vec![testing::noise(row, 0), 1.0], 1.0));
        let single = testing::block(1, |_| (vec![3.0], 2.0));
        let bare = testing::block(5, |row| (vec![], (row % 2) as f64));
        let great = testing::block(9, |row| (vec![1e9 * testing::noise(row, 0), 1e-9], (row % 3) as f64));
        for (block, classes) in [(&one_class, 2), (&one_class, 4), (&single, 3), (&bare, 2), (&great, 3)] {
            let model = fit(block, classes, 1.0).unwrap();
            assert!(model.outputs.iter().flatten().all(|w| w.is_finite()));
            assert!(predict(&model, block).iter().all(|p| p.is_finite()));
        }
        let likely = predict(&fit(&one_class, 2, 1.0).unwrap(), &one_class);
        assert!(likely.column(1).iter().all(|p| *p > 0.99));
        let endless = testing::block(4, |row| (vec![1e300 * row as f64], (row % 2) as f64));
        let none = testing::block(0, |_| (vec![], 0.0));
        for (block, classes) in [(&endless, 2), (&none, 2), (&one_class, 1), (&one_class, 0)] {
            assert!(matches!(fit(block, classes, 1.0), Err(WorkError::Input(_))), "{classes}");
        }
    }

    #[test]
    fn probabilities_are_finite_far_outside() {
        let model = fit(&table(40, 2, 3), 3, 1.0).unwrap();
        let far = testing::block(3, |row| {
            (
                [1.0, -1.0, 0.5, 1.0, 1.0].iter().map(|v| v * [1e308, -1e308, 1e200][row as usize]).collect(),
                0.0,
            )
        });
        for row in predict(&model, &far).rows() {
            assert!((row.sum() - 1.0).abs() < 1e-9, "{row}");
        }
    }
}
