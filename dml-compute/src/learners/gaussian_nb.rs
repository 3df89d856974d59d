//! Gaussian naive Bayes: within a class, each feature is normal and independent of the others (Maron 1961, "Automatic
//! indexing"; Duda and Hart 1973, "Pattern Classification and Scene Analysis").
//!
//! One round: units take count, mean and squared deviations of each class, brought together by the update of Chan,
//! Golub and LeVeque 1983. Variances are smoothed by a part of the greatest, as in scikit-learn, but by a tenth unless
//! told otherwise: with almost none, the tiny variances of one-hot columns drown what the numbers say. Columns
//! that never vary in a class do not divide by zero either.

use dml_core::{Params, Plan, Task};
use ndarray::{Array2, ArrayView1};
use serde::{Deserialize, Serialize};

use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
    learner::{Block, Encoding, Fit, Folded, Learner, Predict, Scores, Shape},
    onnx,
};

/// No squared deviation counts for more, so that sums of values far out are finite.
const FARTHEST: f64 = 1e290;

/// The kind `gaussian_nb`.
#[derive(Debug, Clone, Copy, Default)]
pub struct GaussianNb;

/// Count, means and sums of squared deviations of the features of some rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    rows: u64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

/// The normal distribution of each feature in one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// The part of the training rows that are of the class.
    pub prior: f64,
    /// The mean of each feature.
    pub mean: Vec<f64>,
    /// The smoothed variance of each feature, never zero.
    pub variance: Vec<f64>,
}

/// The classes, in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Classes(pub Vec<Class>);

impl Learner for GaussianNb {
    type State = ();
    type Partial = Vec<Spread>;
    type Model = Classes;

    fn kind(&self) -> Kind {
        Kind {
            name: "gaussian_nb",
            about: "Gaussian naive Bayes: the class under whose bell curves the features are likeliest.",
            tasks: vec![Task::Classification],
            params: vec![Param {
                name: "var_smoothing",
                about: "The part of the greatest variance that is added to every variance.",
                domain: Domain::Float { default: 0.1, min: 1e-15, max: 1e6 },
            }],
            default: true,
            parallel: true,
            deterministic: true,
            exportable: vec!["native", "json", "onnx"],
            encoding: Encoding::Dense,
        }
    }

    fn plan(&self, _: &Params, shape: &Shape) -> Plan {
        Plan::over_chunks(1, shape.rows, shape.chunks, (1 << 27) / shape.columns.max(1) as u64)
    }

    fn start(&self, fit: &Fit) -> Result<(), WorkError> {
        if fit.classes == 0 {
            return Err(WorkError::Input("gaussian_nb needs a target with classes".into()));
        }
        Ok(())
    }

    fn unit(&self, fit: &Fit, _: u32, index: u32, (): &()) -> Result<Vec<Spread>, WorkError> {
        let width = fit.rows.width();
        let mut classes = vec![Spread::new(width); fit.classes];
        fit.each_block(
            fit.plan.share(index, fit.rows.chunks()),
            |block| Ok(Spread::by_class(block, fit.classes)),
            |part| classes.iter_mut().zip(&part).for_each(|(class, next)| class.merge(next)),
        )?;
        Ok(classes)
    }

    fn fold(
        &self,
        fit: &Fit,
        _: u32,
        (): (),
        partials: Vec<Vec<Spread>>,
    ) -> Result<Folded<(), Classes>, WorkError> {
        let width = fit.rows.width();
        let mut classes = vec![Spread::new(width); fit.classes];
        for partial in partials {
            classes.iter_mut().zip(&partial).for_each(|(class, next)| class.merge(next));
        }
        let mut whole = Spread::new(width);
        classes.iter().for_each(|class| whole.merge(class));
        if whole.rows == 0 {
            return Err(WorkError::Input("there are no rows to train on".into()));
        }
        let greatest = whole.squares.iter().fold(0.0f64, |m, s| m.max(s / whole.rows as f64));
        if !(greatest.is_finite() && whole.mean.iter().all(|m| m.is_finite())) {
            return Err(WorkError::Input("the features are too large to be squared: divide them".into()));
        }
        // Where nothing varies, any variance tells as little.
        let smoothing = if greatest > 0.0 { fit.params.float("var_smoothing") * greatest } else { 1.0 };
        let floor = smoothing.max(f64::MIN_POSITIVE);
        let model = classes.into_iter().map(|class| {
            let n = class.rows.max(1) as f64;
            let variance = class.squares.iter().map(|s| s / n + floor).collect();
            Class { prior: class.rows as f64 / whole.rows as f64, mean: class.mean, variance }
        });
        Ok(Folded::Done(Classes(model.collect())))
    }
}

impl Predict for Classes {
    fn predict(&self, x: &Array2<f64>) -> Scores {
        let constants: Vec<f64> = self.0.iter().map(Class::constant).collect();
        let mut out = Array2::zeros((x.nrows(), self.0.len()));
        for (x, mut out) in x.rows().into_iter().zip(out.rows_mut()) {
            for ((out, class), constant) in out.iter_mut().zip(&self.0).zip(&constants) {
                *out = constant - 0.5 * class.distance(x);
            }
            let top = out.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            out.mapv_inplace(|log| libm::exp(log - top));
            let sum: f64 = out.iter().sum();
            out.mapv_inplace(|p| p / sum);
        }
        Scores::Probabilities(out)
    }

    fn onnx(&self, graph: &mut onnx::Graph, x: onnx::Value) -> Option<onnx::Value> {
        let part = |part: fn(&Class) -> &[f64]| self.0.iter().map(part).collect::<Vec<_>>();
        let (means, variances) = (part(|class| &class.mean), part(|class| &class.variance));
        let constants: Vec<f64> = self.0.iter().map(Class::constant).collect();
        let logs = graph.gaussian(x, &means, &variances, &constants, FARTHEST);
        Some(graph.softmax(logs))
    }
}

impl Spread {
    fn new(width: usize) -> Self {
        Self { rows: 0, mean: vec![0.0; width], squares: vec![0.0; width] }
    }

    /// The spread of each class in a block: first the means, then the deviations from them.
    fn by_class(block: &Block, classes: usize) -> Vec<Self> {
        let width = block.x.ncols();
        let mut all = vec![Self::new(width); classes];
        let (cells, y) = block.cells();
        let row = |i: usize| &cells[i * width..(i + 1) * width];
        for (i, class) in y.iter().enumerate() {
            let class = &mut all[*class as usize];
            class.rows += 1;
            class.mean.iter_mut().zip(row(i)).for_each(|(m, x)| *m += x);
        }
        for class in all.iter_mut().filter(|class| class.rows > 0) {
            class.mean.iter_mut().for_each(|m| *m /= class.rows as f64);
        }
        for (i, class) in y.iter().enumerate() {
            let Self { mean, squares, .. } = &mut all[*class as usize];
            squares.iter_mut().zip(row(i).iter().zip(mean)).for_each(|(s, (x, m))| *s += (x - *m) * (x - *m));
        }
        all
    }

    /// Adds the spread of the rows that follow.
    fn merge(&mut self, next: &Self) {
        if next.rows == 0 {
            return;
        }
        let (n, m) = (self.rows as f64, next.rows as f64);
        for j in 0..self.mean.len() {
            let delta = next.mean[j] - self.mean[j];
            self.mean[j] += delta * (m / (n + m));
            self.squares[j] += next.squares[j] + delta * delta * (n * (m / (n + m)));
        }
        self.rows += next.rows;
    }
}

impl Class {
    /// The logarithm of prior and normalising factors; minus infinity for a class without rows.
    fn constant(&self) -> f64 {
        let spread: f64 = self.variance.iter().map(|v| libm::log(2.0 * std::f64::consts::PI * v)).sum();
        if self.prior > 0.0 { libm::log(self.prior) - 0.5 * spread } else { f64::NEG_INFINITY }
    }

    /// The sum of squared deviations in units of the variance, kept finite for values far out.
    fn distance(&self, x: ArrayView1<f64>) -> f64 {
        let terms = x.iter().zip(self.mean.iter().zip(&self.variance));
        terms.map(|(x, (m, v))| ((x - m) * (x - m) / v).min(FARTHEST)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learners::testing;

    fn fit(block: &Block, classes: usize) -> Result<Classes, WorkError> {
        testing::run(&GaussianNb, block, &Params::default(), Task::Classification, classes)
    }

    fn predict(model: &Classes, block: &Block) -> Array2<f64> {
        match model.predict(&block.x) {
            Scores::Probabilities(p) => p,
            Scores::Values(_) => unreachable!("a classification"),
        }
    }

    fn table() -> Block {
        testing::block(90, |row| {
            let class = (row % 3) as f64;
            (vec![class + testing::noise(row, 0), 1000.0 - class * testing::noise(row, 1)], class)
        })
    }

    #[test]
    fn probabilities_are_those_of_the_definition() {
        let block = table();
        let p = predict(&fit(&block, 3).unwrap(), &block);
        let of = |class: usize, j: usize| {
            let rows = (0..90).filter(move |i| i % 3 == class);
            rows.map(|i| block.x[[i, j]]).collect::<Vec<f64>>()
        };
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let variance = |v: &[f64]| v.iter().map(|x| (x - mean(v)).powi(2)).sum::<f64>() / v.len() as f64;
        let greatest = (0..2).map(|j| variance(&block.x.column(j).to_vec())).fold(0.0, f64::max);
        for i in 0..90 {
            let density = |class: usize| {
                let factor = |j: usize| {
                    let (v, d) =
                        (variance(&of(class, j)) + 0.1 * greatest, block.x[[i, j]] - mean(&of(class, j)));
                    (-d * d / (2.0 * v)).exp() / (2.0 * std::f64::consts::PI * v).sqrt()
                };
                factor(0) * factor(1)
            };
            let sum: f64 = (0..3).map(density).sum();
            for class in 0..3 {
                assert!((p[[i, class]] - density(class) / sum).abs() < 1e-6, "row {i}, class {class}");
            }
        }
    }

    #[test]
    fn chunks_change_nothing_but_the_last_digits() {
        let block = table();
        let run = |chunks, units| {
            let plan = Plan { rounds: 1, units, fold: true };
            let given = Params::default();
            testing::run_cut(&GaussianNb, &block, &given, Task::Classification, 3, chunks, Some(plan))
                .unwrap()
        };
        let (one, many) = (run(1, 1), run(100, 17));
        for (a, b) in one.0.iter().zip(&many.0) {
            let pairs = a.mean.iter().zip(&b.mean).chain(a.variance.iter().zip(&b.variance));
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-9));
            assert_eq!(a.prior, b.prior);
        }
    }

    #[test]
    fn odd_tables_have_finite_models_or_clear_errors() {
        let constant = testing::block(6, |row| (vec![2.0, 0.0], (row % 2) as f64));
        let missing = testing::block(6, |row| (vec![testing::noise(row, 0)], (row % 2) as f64));
        let single = testing::block(1, |_| (vec![3.0], 2.0));
        let bare = testing::block(4, |row| (vec![], (row % 3) as f64));
        let far = testing::block(2, |row| (vec![[1e308, -1e308][row as usize]], 0.0));
        for (block, classes) in [(&constant, 2), (&missing, 4), (&single, 3), (&bare, 3)] {
            let model = fit(block, classes).unwrap();
            for rows in [block, &far].into_iter().filter(|rows| rows.x.ncols() == block.x.ncols()) {
                let p = predict(&model, rows);
                assert!(p.rows().into_iter().all(|row| (row.sum() - 1.0).abs() < 1e-9), "{p}");
            }
        }
        assert!(predict(&fit(&constant, 2).unwrap(), &constant).iter().all(|p| (p - 0.5).abs() < 1e-12));
        assert!(predict(&fit(&missing, 4).unwrap(), &missing).column(3).iter().all(|p| *p == 0.0));
        let none = testing::block(0, |_| (vec![], 0.0));
        for (block, classes) in [(&none, 2), (&far, 1), (&missing, 0)] {
            assert!(matches!(fit(block, classes), Err(WorkError::Input(_))));
        }
    }
}
