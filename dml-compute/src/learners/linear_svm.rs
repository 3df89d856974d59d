//! The linear support vector machine with squared hinge loss: a class at a time against the others (two classes share one
//! machine), the class with the greatest value wins.
//!
//! Minimises `|w|² / 2 + C * sum of max(0, 1 - t f)²`, where t is 1 for rows of the class and -1 for others, as
//! scikit-learn's `LinearSVC` does but for the intercept, which is free here. The second derivative of the loss jumps, yet
//! Newton's method with backtracking converges (Keerthi and DeCoste 2005, "A modified finite Newton method for fast
//! solution of large scale linear SVMs"). Values are made into probabilities by the softmax, which keeps their order but
//! is not calibrated. See [`super::descent`].

use dml_core::{Params, Plan, Task};
use ndarray::Array2;

use super::{
    descent::{self, Found, Goal, Loss, Search},
    panel::Column,
    softmax::{Softmax, outputs},
};
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit, Folded, Learner, Scores, Shape},
    onnx,
};

/// The kind `linear_svm`.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinearSvm;

/// The squares of what margins lack to 1, each times the weight of the row's class.
struct SquaredHinge {
    weights: Vec<f64>,
}

fn with_goal<T>(fit: &Fit, then: impl FnOnce(&Goal) -> Result<T, WorkError>) -> Result<T, WorkError> {
    then(&Goal {
        kind: "linear_svm",
        loss: &SquaredHinge { weights: fit.class_weights() },
        l1: 0.0,
        l2: 1.0 / fit.params.float("C"),
        per_row: false,
        tol: fit.params.float("tol"),
        relative: false,
        max_iter: fit.params.int("max_iter"),
    })
}

/// The inverse of the penalty.
pub(super) fn c() -> Param {
    Param {
        name: "C",
        about: "The inverse of the penalty on the size of the weights: greater trusts the data more.",
        domain: Domain::Float { default: 1.0, min: 1e-9, max: 1e9 },
    }
}

impl Learner for LinearSvm {
    type State = Search;
    type Partial = Found;
    type Model = Softmax;

    fn kind(&self) -> Kind {
        let [max_iter, tol] = descent::params();
        Kind {
            name: "linear_svm",
            about: "Linear support vector machine: the plane that keeps classes apart with the widest margin.",
            tasks: vec![Task::Classification],
            params: vec![c(), Param::class_weight(), max_iter, tol],
            default: false,
            parallel: true,
            deterministic: true,
            exportable: vec!["native", "json", "onnx"],
            encoding: Encoding::Dense,
        }
    }

    fn plan(&self, params: &Params, shape: &Shape) -> Plan {
        descent::plan(outputs(shape.classes), params, shape)
    }

    fn start(&self, fit: &Fit) -> Result<Search, WorkError> {
        fit.at_least_two_classes("linear_svm")?;
        Ok(Search::from(vec![0.0; outputs(fit.classes) * (fit.rows.width() + 1)]))
    }

    fn unit(&self, fit: &Fit, round: u32, index: u32, search: &Search) -> Result<Found, WorkError> {
        with_goal(fit, |goal| descent::unit(fit, round, index, search, goal))
    }

    fn fold(
        &self,
        fit: &Fit,
        round: u32,
        search: Search,
        partials: Vec<Found>,
    ) -> Result<Folded<Search, Softmax>, WorkError> {
        let folded = with_goal(fit, |goal| descent::fold(fit, round, search, partials, goal))?;
        Ok(folded.map(|outputs| Softmax { classes: fit.classes, outputs }))
    }

    fn predict(&self, model: &Softmax, x: &Array2<f64>) -> Scores {
        model.predict(x)
    }

    fn importance(&self, model: &Softmax) -> Option<Vec<f64>> {
        model.importance()
    }

    fn onnx(&self, model: &Softmax, graph: &mut onnx::Graph, x: onnx::Value) -> Option<onnx::Value> {
        model.onnx(graph, x)
    }
}

impl Loss for SquaredHinge {
    fn outputs(&self) -> usize {
        outputs(self.weights.len())
    }

    fn coupled(&self) -> bool {
        false
    }

    fn at(&self, y: &[f64], found: &mut [Column], curvature: &mut [Column]) -> f64 {
        let first = self.weights.len() - found.len();
        let mut loss = 0.0;
        for (k, column) in found.iter_mut().enumerate() {
            for (row, class) in y.iter().enumerate() {
                let (sign, weight) =
                    (if *class as usize == first + k { 1.0 } else { -1.0 }, self.weights[*class as usize]);
                let lack = (1.0 - sign * column[row]).max(0.0);
                loss += weight * lack * lack;
                column[row] = -2.0 * sign * weight * lack;
                if let Some(curvature) = curvature.get_mut(k) {
                    curvature[row] = if lack > 0.0 { 2.0 * weight } else { 0.0 };
                }
            }
        }
        loss
    }
}
