//! Linear support vector regression with squared loss: errors up to `epsilon` are free.
//!
//! Minimises `|w|² / 2 + C * sum of max(0, |error| - epsilon)²`, as scikit-learn's `LinearSVR` does with the loss
//! `squared_epsilon_insensitive`, but for the intercept, which is free here. Newton's method converges although the
//! second derivative jumps (Ho and Lin 2012, "Large-scale linear support vector regression"). See [`super::descent`].

use dml_core::Task;

use super::{
    descent::{self, Descent, Goal, Loss},
    gram::Affine,
    linear_svm,
    panel::Column,
};
use crate::{
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit},
};

/// The learner of the kind `linear_svr`.
pub const LINEAR_SVR: Descent<Affine> = Descent {
    kind,
    outputs: |_| 1,
    // However far from 0 the targets are.
    start: |fit| descent::from_mean(fit, |mean| if mean.is_finite() { mean } else { 0.0 }),
    goal,
    model: |_, outputs| Affine::from_outputs(outputs),
};

/// The squares of what errors exceed a threshold by.
struct SquaredExcess {
    epsilon: f64,
}

/// What the parameters ask for.
fn goal(fit: &Fit) -> Goal {
    Goal {
        kind: "linear_svr",
        loss: Box::new(SquaredExcess { epsilon: fit.params.float("epsilon") }),
        l1: 0.0,
        l2: 1.0 / fit.params.float("C"),
        per_row: false,
        tol: fit.params.float("tol"),
        relative: true,
        max_iter: fit.params.int("max_iter"),
    }
}

/// Its name, tasks, parameters and properties.
fn kind() -> Kind {
    let [max_iter, tol] = descent::params();
    Kind {
        name: "linear_svr",
        about: "Linear support vector regression: errors up to a threshold are free, greater ones count squared.",
        tasks: vec![Task::Regression],
        params: vec![
            linear_svm::c(),
            Param {
                name: "epsilon",
                about: "Errors up to this size are free, in the target's unit.",
                domain: Domain::Float { default: 0.0, min: 0.0, max: 1e12 },
            },
            max_iter,
            tol,
        ],
        default: false,
        parallel: true,
        deterministic: true,
        exportable: vec!["native", "json", "onnx"],
        encoding: Encoding::Dense,
    }
}

impl Loss for SquaredExcess {
    fn outputs(&self) -> usize {
        1
    }

    fn coupled(&self) -> bool {
        false
    }

    fn at(&self, y: &[f64], found: &mut [Column], curvature: &mut [Column]) -> f64 {
        let mut loss = 0.0;
        for (row, y) in y.iter().enumerate() {
            let error = found[0][row] - y;
            let excess = (error.abs() - self.epsilon).max(0.0);
            loss += excess * excess;
            found[0][row] = 2.0 * excess * error.signum();
            if let Some(curvature) = curvature.first_mut() {
                curvature[row] = if excess > 0.0 { 2.0 } else { 0.0 };
            }
        }
        loss
    }
}
