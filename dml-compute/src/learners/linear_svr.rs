//! Linear support vector regression with squared loss: errors up to `epsilon` are free.
//!
//! Minimises `|w|² / 2 + C * sum of max(0, |error| - epsilon)²`, as scikit-learn's `LinearSVR` does with the loss
//! `squared_epsilon_insensitive`, but for the intercept, which is free here. Newton's method converges although the
//! second derivative jumps (Ho and Lin 2012, "Large-scale linear support vector regression"). See [`super::descent`].

use dml_core::{Params, Plan, Task};
use ndarray::Array2;

use super::{
    descent::{self, Found, Goal, Loss, Search},
    gram::Affine,
    linear_svm,
    panel::Column,
};
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit, Folded, Learner, Scores, Shape},
    onnx,
};

/// The kind `linear_svr`.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinearSvr;

/// The squares of what errors exceed a threshold by.
struct SquaredExcess {
    epsilon: f64,
}

fn with_goal<T>(fit: &Fit, then: impl FnOnce(&Goal) -> Result<T, WorkError>) -> Result<T, WorkError> {
    then(&Goal {
        kind: "linear_svr",
        loss: &SquaredExcess { epsilon: fit.params.float("epsilon") },
        l1: 0.0,
        l2: 1.0 / fit.params.float("C"),
        per_row: false,
        tol: fit.params.float("tol"),
        relative: true,
        max_iter: fit.params.int("max_iter"),
    })
}

impl Learner for LinearSvr {
    type State = Search;
    type Partial = Found;
    type Model = Affine;

    fn kind(&self) -> Kind {
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

    fn plan(&self, params: &Params, shape: &Shape) -> Plan {
        descent::plan(1, params, shape)
    }

    fn start(&self, fit: &Fit) -> Result<Search, WorkError> {
        let sample = fit.rows.sample()?.y;
        let mut point = vec![0.0; fit.rows.width() + 1];
        // From the mean of some rows, however far from 0 it is.
        point[fit.rows.width()] = sample.mean().filter(|mean| mean.is_finite()).unwrap_or(0.0);
        Ok(Search::from(point))
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
    ) -> Result<Folded<Search, Affine>, WorkError> {
        let folded = with_goal(fit, |goal| descent::fold(fit, round, search, partials, goal))?;
        Ok(folded.map(Affine::from_outputs))
    }

    fn predict(&self, model: &Affine, x: &Array2<f64>) -> Scores {
        model.predict(x)
    }

    fn importance(&self, model: &Affine) -> Option<Vec<f64>> {
        Some(model.importance())
    }

    fn onnx(&self, model: &Affine, graph: &mut onnx::Graph, x: onnx::Value) -> Option<onnx::Value> {
        Some(model.onnx(graph, x))
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
