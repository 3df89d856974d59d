//! The ridge classifier: ridge regression of 1 for rows of a class and -1 for others, a class at a time (two classes share
//! one regression); the class with the greatest value wins. As scikit-learn's `RidgeClassifier`, on standardised features.
//!
//! The values are made into probabilities by the softmax, which keeps their order but is not calibrated. One round: see
//! [`super::gram`].

use dml_core::{Params, Plan, Task};

use super::{
    gram::{self, Affine, Moments, Targets},
    ridge,
    softmax::Softmax,
};
use crate::{
    error::WorkError,
    kind::{Kind, Param},
    learner::{Fit, Folded, Learner, Shape},
};

/// The kind `ridge_classifier`.
#[derive(Debug, Clone, Copy, Default)]
pub struct RidgeClassifier;

impl Learner for RidgeClassifier {
    type State = ();
    type Partial = Moments;
    type Model = Softmax;

    fn kind(&self) -> Kind {
        let about = "Ridge regression of which class a row is of: quick, and best if it need not be sure.";
        let params = vec![ridge::alpha(), Param::class_weight()];
        Kind { tasks: vec![Task::Classification], ..gram::kind("ridge_classifier", about, params) }
    }

    fn plan(&self, _: &Params, shape: &Shape) -> Plan {
        gram::plan(shape)
    }

    fn start(&self, fit: &Fit) -> Result<(), WorkError> {
        fit.at_least_two_classes("ridge_classifier")
    }

    fn unit(&self, fit: &Fit, _: u32, index: u32, (): &()) -> Result<Moments, WorkError> {
        gram::unit(fit, index, Targets::Classes(&fit.class_weights()))
    }

    fn fold(
        &self,
        fit: &Fit,
        _: u32,
        (): (),
        partials: Vec<Moments>,
    ) -> Result<Folded<(), Softmax>, WorkError> {
        let found = Moments::sum(&partials)?.solve_all(fit.params.float("alpha"))?;
        let row = |Affine { intercept, mut weights }| {
            weights.push(intercept);
            weights
        };
        Ok(Folded::Done(Softmax::of(fit, found.into_iter().map(row).collect())))
    }
}
