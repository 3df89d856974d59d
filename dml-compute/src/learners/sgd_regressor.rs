//! Linear regression by stochastic gradient descent on squared errors.
//!
//! As scikit-learn's `SGDRegressor` with its `invscaling` rates, `eta0 / step^power_t`, on standardised features, but for
//! the order of the rows. `tol` is in the square of the target's unit. See [`super::walk`].

use dml_core::{Params, Plan, Task};
use ndarray::Array2;

use super::{
    gram::Affine,
    walk::{self, RowLoss, Walk},
};
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit, Folded, Learner, Scores, Shape},
    onnx,
};

/// The kind `sgd_regressor`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SgdRegressor;

/// Half the squared error.
struct SquaredError {
    eta0: f64,
    power_t: f64,
}

impl Learner for SgdRegressor {
    type State = Walk;
    type Partial = Walk;
    type Model = Affine;

    fn kind(&self) -> Kind {
        Kind {
            name: "sgd_regressor",
            about: "Linear regression that learns row by row: from tables of any length, quickly.",
            tasks: vec![Task::Regression],
            params: {
                let mut params = walk::params();
                params.push(Param {
                    name: "eta0",
                    about: "The length of the first step.",
                    domain: Domain::Float { default: 0.01, min: 1e-12, max: 1e3 },
                });
                params.push(Param {
                    name: "power_t",
                    about: "How quickly steps become shorter.",
                    domain: Domain::Float { default: 0.25, min: 0.0, max: 10.0 },
                });
                params
            },
            default: false,
            parallel: false,
            deterministic: true,
            exportable: vec!["native", "json", "onnx"],
            encoding: Encoding::Dense,
        }
    }

    fn plan(&self, params: &Params, shape: &Shape) -> Plan {
        walk::plan(params, shape)
    }

    fn start(&self, fit: &Fit) -> Result<Walk, WorkError> {
        Ok(Walk::start(fit, 1))
    }

    fn unit(&self, fit: &Fit, _: u32, _: u32, walk: &Walk) -> Result<Walk, WorkError> {
        walk.go_on(fit, &SquaredError::new(fit))
    }

    fn fold(
        &self,
        fit: &Fit,
        round: u32,
        _: Walk,
        partials: Vec<Walk>,
    ) -> Result<Folded<Walk, Affine>, WorkError> {
        let none = || WorkError::Input("sgd_regressor has one unit".into());
        let walk = partials.into_iter().next().ok_or_else(none)?;
        if !walk.is_finished() && round + 1 < fit.plan.rounds {
            return Ok(Folded::Next(walk));
        }
        Ok(Folded::Done(Affine::from_outputs(walk.outputs)))
    }

    fn so_far(&self, _: &Fit, walk: Walk) -> Option<Affine> {
        Some(Affine::from_outputs(walk.outputs))
    }

    fn is_gradual(&self) -> bool {
        true
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

impl SquaredError {
    fn new(fit: &Fit) -> Self {
        Self { eta0: fit.params.float("eta0"), power_t: fit.params.float("power_t") }
    }
}

impl RowLoss for SquaredError {
    fn at(&self, _: usize, value: f64, y: f64) -> (f64, f64) {
        let error = value - y;
        (0.5 * error * error, error)
    }

    fn rate(&self, step: u64) -> f64 {
        self.eta0 / libm::pow(step as f64, self.power_t)
    }
}
