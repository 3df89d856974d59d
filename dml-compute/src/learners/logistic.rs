//! Logistic regression, for two classes and (softmax) for more, with a penalty on the weights.
//!
//! Minimises `sum of log-losses + |w|² / 2C` (`penalty` l2) or `sum of log-losses + |w| / C` (l1, which makes weights
//! exactly 0), as scikit-learn does; intercepts are free; two classes share one weight vector. Thanks to the penalty,
//! classes that can be told apart perfectly have finite weights too. See [`super::descent`] for the search.

use dml_core::Task;

use super::{
    descent::{self, Descent, Goal, Loss, pairs},
    panel::{Column, ROWS},
    softmax::{Softmax, outputs, softmax},
};
use crate::{
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit},
};

/// The learner of the kind `logistic`.
pub const LOGISTIC: Descent<Softmax> =
    Descent { kind, outputs, start: Softmax::zeros, goal, model: Softmax::of };

/// The logarithm of the probability that a row's class is told not to have, times the class's weight.
struct LogLoss {
    weights: Vec<f64>,
}

/// What the parameters ask for.
fn goal(fit: &Fit) -> Goal {
    let strength = 1.0 / fit.params.float("C");
    let lasso = fit.params.text("penalty") == "l1";
    Goal {
        kind: "logistic",
        loss: Box::new(LogLoss { weights: fit.class_weights() }),
        l1: if lasso { strength } else { 0.0 },
        l2: if lasso { 0.0 } else { strength },
        per_row: false,
        tol: fit.params.float("tol"),
        relative: false,
        max_iter: fit.params.int("max_iter"),
    }
}

/// Its name, tasks, parameters and properties.
fn kind() -> Kind {
    let [max_iter, tol] = descent::params();
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
                name: "penalty",
                about: "l2 keeps weights small, l1 makes those that matter little exactly 0.",
                domain: Domain::Choice { default: "l2", choices: &["l2", "l1"] },
            },
            Param::class_weight(),
            max_iter,
            tol,
        ],
        default: true,
        parallel: true,
        deterministic: true,
        exportable: vec!["native", "json", "onnx"],
        encoding: Encoding::Dense,
    }
}

impl Loss for LogLoss {
    fn outputs(&self) -> usize {
        outputs(self.weights.len())
    }

    fn coupled(&self) -> bool {
        true
    }

    fn at(&self, y: &[f64], found: &mut [Column], curvature: &mut [Column]) -> f64 {
        if let [found] = found {
            return self.of_two(y, found, curvature.first_mut());
        }
        let first = self.weights.len() - found.len();
        let mut p = vec![0.0; self.weights.len()];
        let mut loss = 0.0;
        for (row, class) in y.iter().enumerate() {
            let class = *class as usize;
            let weight = self.weights[class];
            p.fill(0.0);
            p[first..].iter_mut().zip(&*found).for_each(|(p, column)| *p = column[row]);
            let score = p[class];
            loss += weight * (softmax(&mut p) - score);
            for ((a, b), column) in pairs(found.len(), true).zip(&mut *curvature) {
                let (a, b) = (first + a, first + b);
                column[row] = weight * if a == b { p[a] * (1.0 - p[a]) } else { -p[a] * p[b] };
            }
            for (k, column) in found.iter_mut().enumerate() {
                column[row] = weight * (p[first + k] - f64::from(u8::from(first + k == class)));
            }
        }
        loss
    }
}

impl LogLoss {
    /// Of two classes: the output is the log-odds of the second.
    fn of_two(&self, y: &[f64], found: &mut Column, curvature: Option<&mut Column>) -> f64 {
        let mut loss = 0.0;
        let (mut likely, mut weights) = ([0.0; ROWS], [0.0; ROWS]);
        for (row, class) in y.iter().enumerate() {
            let odds = found[row];
            let weight = self.weights[*class as usize];
            // The exponential of what is not above 0 is never too great.
            let small = libm::exp(-odds.abs());
            let p = if odds < 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) };
            let wrong = if *class == 0.0 { odds } else { -odds };
            loss += weight * (wrong.max(0.0) + libm::log1p(small));
            found[row] = weight * (p - class);
            (likely[row], weights[row]) = (p, weight);
        }
        if let Some(curvature) = curvature {
            let rows = curvature.iter_mut().zip(likely.iter().zip(weights));
            rows.for_each(|(curvature, (p, weight))| *curvature = weight * (p * (1.0 - p)));
        }
        loss
    }
}

#[cfg(test)]
mod tests {
    use dml_core::{Params, Plan, Value};
    use ndarray::Array2;

    use super::*;
    use crate::{
        WorkError,
        learner::{Block, Predict, Scores},
        learners::testing,
    };

    fn fit(block: &Block, classes: usize, c: f64) -> Result<Softmax, WorkError> {
        let given = testing::params(&[("C", Value::Float(c)), ("tol", Value::Float(1e-9))]);
        testing::run(&LOGISTIC, block, &given, Task::Classification, classes)
    }

    fn predict(model: &Softmax, block: &Block) -> Array2<f64> {
        match model.predict(&block.x) {
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
            assert!(model.importance().unwrap().len() == width as usize + 3);
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
            let model = testing::run(&LOGISTIC, &block, &given, Task::Classification, classes).unwrap();
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
                    &LOGISTIC,
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
