//! The linear support vector machine with squared hinge loss: a class at a time against the others (two classes share one
//! machine), the class with the greatest value wins.
//!
//! Minimises `|w|² / 2 + C * sum of max(0, 1 - t f)²`, where t is 1 for rows of the class and -1 for others, as
//! scikit-learn's `LinearSVC` does but for the intercept, which is free here. The second derivative of the loss jumps, yet
//! Newton's method with backtracking converges (Keerthi and DeCoste 2005, "A modified finite Newton method for fast
//! solution of large scale linear SVMs"). Values are made into probabilities by the softmax, which keeps their order but
//! is not calibrated. See [`super::descent`].

use dml_core::Task;

use super::{
    descent::{self, Descent, Goal, Loss},
    panel::Column,
    softmax::{Softmax, outputs},
};
use crate::{
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit},
};

/// The learner of the kind `linear_svm`.
pub const LINEAR_SVM: Descent<Softmax> =
    Descent { kind, outputs, start: Softmax::zeros, goal, model: Softmax::of };

/// The squares of what margins lack to 1, each times the weight of the row's class.
struct SquaredHinge {
    weights: Vec<f64>,
}

/// What the parameters ask for.
fn goal(fit: &Fit) -> Goal {
    Goal {
        kind: "linear_svm",
        loss: Box::new(SquaredHinge { weights: fit.class_weights() }),
        l1: 0.0,
        l2: 1.0 / fit.params.float("C"),
        per_row: false,
        tol: fit.params.float("tol"),
        relative: false,
        max_iter: fit.params.int("max_iter"),
    }
}

/// The inverse of the penalty.
pub(super) fn c() -> Param {
    Param {
        name: "C",
        about: "The inverse of the penalty on the size of the weights: greater trusts the data more.",
        domain: Domain::Float { default: 1.0, min: 1e-9, max: 1e9 },
    }
}

/// Its name, tasks, parameters and properties.
fn kind() -> Kind {
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
