//! Multinomial naive Bayes: within a class, features are how often things happen, each with a chance of its own (McCallum
//! and Nigam 1998, "A comparison of event models for naive Bayes text classification"). As scikit-learn's
//! `MultinomialNB`.
//!
//! Numbers must not be negative: a column that has a negative one in training is refused by name before the fit begins.
//! They are neither standardised nor imputed: a blank counts as 0. Categories count 1 in the column of their own.

use dml_core::{Params, Plan, Task};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::{
    counts::{self, Counts},
    softmax::Softmax,
};
use crate::{
    error::WorkError,
    kind::Kind,
    learner::{Encoding, Fit, Folded, Learner, Predict, Scores, Shape},
    onnx,
};

/// The kind `multinomial_nb`.
#[derive(Debug, Clone, Copy, Default)]
pub struct MultinomialNb;

/// The logarithms of the chances of features, whose sizes do not say how much a feature contributes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chances(pub Softmax);

impl Learner for MultinomialNb {
    type State = ();
    type Partial = Vec<Counts>;
    type Model = Chances;

    fn kind(&self) -> Kind {
        Kind {
            name: "multinomial_nb",
            about: "Multinomial naive Bayes for features that count something: no negative numbers.",
            tasks: vec![Task::Classification],
            params: counts::params().into(),
            default: false,
            parallel: true,
            deterministic: true,
            exportable: vec!["native", "json", "onnx"],
            encoding: Encoding::Counts,
        }
    }

    fn plan(&self, _: &Params, shape: &Shape) -> Plan {
        counts::plan(shape)
    }

    fn start(&self, fit: &Fit) -> Result<(), WorkError> {
        fit.at_least_two_classes("multinomial_nb")
    }

    fn unit(&self, fit: &Fit, _: u32, index: u32, (): &()) -> Result<Vec<Counts>, WorkError> {
        let negative = |cell| {
            format!("has the negative number {cell}, and multinomial_nb takes counts: choose gaussian_nb")
        };
        counts::unit(fit, index, |cell| if cell >= 0.0 { Ok(cell) } else { Err(negative(cell)) })
    }

    fn fold(
        &self,
        fit: &Fit,
        _: u32,
        (): (),
        partials: Vec<Vec<Counts>>,
    ) -> Result<Folded<(), Chances>, WorkError> {
        let (counts, alpha) = (counts::total(fit, &partials)?, fit.params.float("alpha"));
        let row = |(class, prior): (&Counts, f64)| {
            let all = class.sums.iter().map(|sum| sum + alpha).sum::<f64>();
            let logs = class.sums.iter().map(|sum| libm::log((sum + alpha) / all));
            logs.chain([prior]).collect::<Vec<f64>>()
        };
        let rows = counts.iter().zip(counts::priors(fit, &counts)).map(row).collect();
        Ok(Folded::Done(Chances(Softmax::from_classes(rows))))
    }
}

impl Predict for Chances {
    fn predict(&self, x: &Array2<f64>) -> Scores {
        self.0.predict(x)
    }

    fn onnx(&self, graph: &mut onnx::Graph, x: onnx::Value) -> Option<onnx::Value> {
        self.0.onnx(graph, x)
    }
}
