//! The lasso: least squares with a penalty on the sizes of the weights, which makes those that matter little exactly 0
//! (Tibshirani 1996, "Regression shrinkage and selection via the lasso").
//!
//! Minimises `|errors|² / 2 rows + alpha * |w|`, as scikit-learn does, on standardised features; the intercept is free.
//! One round: units sum the moments of their rows, the fold goes down coordinate by coordinate. See [`super::gram`].

use dml_core::Params;

use super::gram::{self, Affine, LeastSquares, Moments};
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
};

/// The kind `lasso`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lasso;

/// How much the sizes of the weights count, and when the search for them ends.
pub(super) fn params() -> [Param; 3] {
    [
        Param {
            name: "alpha",
            about: "How much the sizes of the weights count beside half the mean squared error.",
            domain: Domain::Float { default: 1.0, min: 0.0, max: 1e12 },
        },
        Param {
            name: "max_iter",
            about: "The most times that every weight is improved.",
            domain: Domain::Int { default: 1000, min: 1, max: 1_000_000 },
        },
        Param {
            name: "tol",
            about: "Done when the dual gap is this part of the target's sum of squares.",
            domain: Domain::Float { default: 1e-4, min: 1e-15, max: 1.0 },
        },
    ]
}

impl LeastSquares for Lasso {
    fn kind(&self) -> Kind {
        let about = "Linear regression that leaves out features that matter little.";
        gram::kind("lasso", about, params().into())
    }

    fn solve(&self, moments: &Moments, params: &Params) -> Result<Affine, WorkError> {
        moments.shrink(params.float("alpha"), 0.0, params.float("tol"), params.int("max_iter"))
    }
}
