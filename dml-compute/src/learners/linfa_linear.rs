//! Linear regression by the crate `linfa-linear`: a QR decomposition of the whole matrix, in one unit on one worker.
//!
//! An alternative to [`linear`](super::linear) for those who know linfa, and a check of it. It is not in the default
//! set and not called deterministic: its multiplications choose instructions by the CPU that runs them, so the last
//! bits may differ between machines. linfa wants columns that do not depend on each other, which one-hot columns do:
//! those that are combinations of earlier ones get the weight 0.

use dml_core::{Params, Plan, Task};
use linfa::{Dataset, traits::Fit as _};
use linfa_linear::LinearRegression;
use ndarray::Axis;

use super::gram::{self, Affine, Moments, Targets};
use crate::{
    error::WorkError,
    kind::Kind,
    learner::{Encoding, Fit, Folded, Learner, Shape},
};

/// The kind `linfa_linear`.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinfaLinear;

impl Learner for LinfaLinear {
    type State = ();
    type Partial = Affine;
    type Model = Affine;

    fn kind(&self) -> Kind {
        Kind {
            name: "linfa_linear",
            about: "Linear regression by the linfa-linear crate: the whole table on one worker.",
            tasks: vec![Task::Regression],
            params: vec![],
            default: false,
            parallel: false,
            deterministic: false,
            exportable: vec!["native", "json", "onnx"],
            encoding: Encoding::Dense,
        }
    }

    fn plan(&self, _: &Params, _: &Shape) -> Plan {
        Plan::sequential(1)
    }

    fn start(&self, _: &Fit) -> Result<(), WorkError> {
        Ok(())
    }

    fn unit(&self, fit: &Fit, _: u32, index: u32, (): &()) -> Result<Affine, WorkError> {
        let kept = Moments::sum(&[gram::unit(fit, index, Targets::Number)?])?.independent();
        let block = fit.all_rows()?;
        if block.x.iter().chain(&block.y).any(|v| !v.is_finite()) {
            return Err(WorkError::Input("linfa_linear takes finite numbers only".into()));
        }
        let data = Dataset::new(block.x.select(Axis(1), &kept), block.y);
        let fitted = LinearRegression::new()
            .fit(&data)
            .map_err(|error| WorkError::Input(format!("linfa_linear cannot fit these rows: {error}")))?;
        let mut weights = vec![0.0; fit.rows.width()];
        kept.iter().zip(fitted.params()).for_each(|(&column, weight)| weights[column] = *weight);
        let model = Affine { intercept: fitted.intercept(), weights };
        if !(model.intercept.is_finite() && model.weights.iter().all(|w| w.is_finite())) {
            return Err(WorkError::Input("linfa_linear found no finite weights for these rows".into()));
        }
        Ok(model)
    }

    fn fold(&self, _: &Fit, _: u32, (): (), partials: Vec<Affine>) -> Result<Folded<(), Affine>, WorkError> {
        let missing = || WorkError::Input("linfa_linear has one unit".into());
        partials.into_iter().next().map(Folded::Done).ok_or_else(missing)
    }
}
