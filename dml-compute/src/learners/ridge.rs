//! Ridge regression: least squares with a penalty on the size of the weights (Hoerl and Kennard 1970, "Ridge
//! regression: biased estimation for nonorthogonal problems").
//!
//! Numbers are standardised before, and the intercept is not penalised. One round: units sum the moments of their
//! rows, the fold solves. See [`super::gram`].

use dml_core::Params;

use super::gram::{self, Affine, LeastSquares, Moments};
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
};

/// The kind `ridge`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ridge;

/// The penalty of ridge regression.
pub(super) fn alpha() -> Param {
    Param {
        name: "alpha",
        about: "How much the sum of squared weights counts beside the sum of squared errors.",
        domain: Domain::Float { default: 1.0, min: 0.0, max: 1e12 },
    }
}

impl LeastSquares for Ridge {
    fn kind(&self) -> Kind {
        let about = "Linear regression that keeps weights small, for features that say much the same.";
        Kind { default: true, ..gram::kind("ridge", about, vec![alpha()]) }
    }

    fn solve(&self, moments: &Moments, params: &Params) -> Result<Affine, WorkError> {
        moments.solve(params.float("alpha"))
    }
}
