//! The elastic net: least squares with penalties on the sizes of the weights and on their squares, so that features that
//! say much the same are left out or kept together (Zou and Hastie 2005, "Regularization and variable selection via the
//! elastic net").
//!
//! Minimises `|errors|² / 2 rows + alpha * (l1_ratio * |w| + (1 - l1_ratio) / 2 * |w|²)`, as scikit-learn does, on
//! standardised features; the intercept is free. One round: see [`super::gram`].

use dml_core::Params;

use super::{
    gram::{self, Affine, LeastSquares, Moments},
    lasso,
};
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
};

/// The kind `elastic_net`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ElasticNet;

impl LeastSquares for ElasticNet {
    fn kind(&self) -> Kind {
        let about =
            "Linear regression that leaves out features that matter little, and keeps like ones together.";
        let [alpha, max_iter, tol] = lasso::params();
        let l1_ratio = Param {
            name: "l1_ratio",
            about: "The part of the penalty that is on sizes; the rest is on squares.",
            domain: Domain::Float { default: 0.5, min: 0.0, max: 1.0 },
        };
        gram::kind("elastic_net", about, vec![alpha, l1_ratio, max_iter, tol])
    }

    fn solve(&self, moments: &Moments, params: &Params) -> Result<Affine, WorkError> {
        let (alpha, ratio) = (params.float("alpha"), params.float("l1_ratio"));
        let (l1, l2) = (alpha * ratio, alpha * (1.0 - ratio));
        moments.shrink(l1, l2, params.float("tol"), params.int("max_iter"))
    }
}
