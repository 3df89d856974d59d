//! Bernoulli naive Bayes: within a class, each feature is on or off with a chance of its own (Maron 1961, "Automatic
//! indexing"; McCallum and Nigam 1998). As scikit-learn's `BernoulliNB`.
//!
//! Numbers are standardised before, so the threshold `binarize` of 0 is their mean; one-hot columns are on where they
//! are 1.

use dml_core::{Params, Plan, Task};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::{
    counts::{self, Counts},
    softmax::Softmax,
};
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit, Folded, Learner, Predict, Scores, Shape},
    onnx,
};

/// The kind `bernoulli_nb`.
#[derive(Debug, Clone, Copy, Default)]
pub struct BernoulliNb;

/// A linear classifier of switches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Switches {
    /// A feature above this is on.
    pub threshold: f64,
    /// What being on says.
    pub softmax: Softmax,
}

impl Learner for BernoulliNb {
    type State = ();
    type Partial = Vec<Counts>;
    type Model = Switches;

    fn kind(&self) -> Kind {
        let [alpha, fit_prior] = counts::params();
        let binarize = Param {
            name: "binarize",
            about: "A feature above this is on; numbers are standardised, so 0 is their mean.",
            domain: Domain::Float { default: 0.0, min: -1e12, max: 1e12 },
        };
        Kind {
            name: "bernoulli_nb",
            about: "Bernoulli naive Bayes: the class under which so many features are likeliest on and off.",
            tasks: vec![Task::Classification],
            params: vec![alpha, binarize, fit_prior],
            default: false,
            parallel: true,
            deterministic: true,
            exportable: vec!["native", "json", "onnx"],
            encoding: Encoding::Dense,
        }
    }

    fn plan(&self, _: &Params, shape: &Shape) -> Plan {
        counts::plan(shape)
    }

    fn start(&self, fit: &Fit) -> Result<(), WorkError> {
        fit.at_least_two_classes("bernoulli_nb")
    }

    fn unit(&self, fit: &Fit, _: u32, index: u32, (): &()) -> Result<Vec<Counts>, WorkError> {
        let threshold = fit.params.float("binarize");
        counts::unit(fit, index, |cell| Ok(f64::from(u8::from(cell > threshold))))
    }

    fn fold(
        &self,
        fit: &Fit,
        _: u32,
        (): (),
        partials: Vec<Vec<Counts>>,
    ) -> Result<Folded<(), Switches>, WorkError> {
        let (counts, alpha) = (counts::total(fit, &partials)?, fit.params.float("alpha"));
        let row = |(class, prior): (&Counts, f64)| {
            let rows = class.rows as f64;
            let off = |sum: &f64| libm::log((rows - sum + alpha) / (rows + 2.0 * alpha));
            let on = |sum: &f64| libm::log((sum + alpha) / (rows + 2.0 * alpha));
            let weights = class.sums.iter().map(|sum| on(sum) - off(sum));
            let intercept = prior + class.sums.iter().map(off).sum::<f64>();
            weights.chain([intercept]).collect::<Vec<f64>>()
        };
        let rows = counts.iter().zip(counts::priors(fit, &counts)).map(row).collect();
        let threshold = fit.params.float("binarize");
        Ok(Folded::Done(Switches { threshold, softmax: Softmax::from_classes(rows) }))
    }
}

impl Predict for Switches {
    fn predict(&self, x: &Array2<f64>) -> Scores {
        self.softmax.predict(&x.mapv(|cell| f64::from(u8::from(cell > self.threshold))))
    }

    fn onnx(&self, graph: &mut onnx::Graph, x: onnx::Value) -> Option<onnx::Value> {
        let threshold = graph.doubles(&[], &[self.threshold]);
        let (one, zero) = (graph.doubles(&[], &[1.0]), graph.doubles(&[], &[0.0]));
        let on = graph.node("Greater", &[x, threshold], &[]);
        let switches = graph.node("Where", &[on, one, zero], &[]);
        self.softmax.onnx(graph, switches)
    }
}
