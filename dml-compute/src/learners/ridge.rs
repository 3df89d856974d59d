//! Ridge regression: least squares with a penalty on the size of the weights (Hoerl and Kennard 1970, "Ridge
//! regression: biased estimation for nonorthogonal problems").
//!
//! Numbers are standardised before, and the intercept is not penalised. One round: units sum the moments of their
//! rows, the fold solves. See [`super::gram`].

use dml_core::{Params, Plan, Task};
use ndarray::Array2;

use super::gram::{self, Affine, Moments};
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit, Folded, Learner, Scores, Shape},
};

/// The kind `ridge`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ridge;

impl Learner for Ridge {
    type State = ();
    type Partial = Moments;
    type Model = Affine;

    fn kind(&self) -> Kind {
        Kind {
            name: "ridge",
            about: "Linear regression that keeps weights small, for features that say much the same.",
            tasks: vec![Task::Regression],
            params: vec![Param {
                name: "alpha",
                about: "How much the sum of squared weights counts beside the sum of squared errors.",
                domain: Domain::Float { default: 1.0, min: 0.0, max: 1e12 },
            }],
            default: true,
            parallel: true,
            deterministic: true,
            exportable: vec!["native", "json"],
            encoding: Encoding::Dense,
        }
    }

    fn plan(&self, _: &Params, shape: &Shape) -> Plan {
        gram::plan(shape)
    }

    fn start(&self, _: &Fit) -> Result<(), WorkError> {
        Ok(())
    }

    fn unit(&self, fit: &Fit, _: u32, index: u32, (): &()) -> Result<Moments, WorkError> {
        gram::unit(fit, index)
    }

    fn fold(
        &self,
        fit: &Fit,
        _: u32,
        (): (),
        partials: Vec<Moments>,
    ) -> Result<Folded<(), Affine>, WorkError> {
        Moments::sum(&partials)?.solve(fit.params.float("alpha")).map(Folded::Done)
    }

    fn predict(&self, model: &Affine, x: &Array2<f64>) -> Scores {
        model.predict(x)
    }

    fn importance(&self, model: &Affine) -> Option<Vec<f64>> {
        Some(model.importance())
    }
}
