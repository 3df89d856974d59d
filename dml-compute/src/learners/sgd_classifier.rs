//! Linear classification by stochastic gradient descent: a support vector machine (`loss` hinge) or logistic regression
//! (log_loss), a class at a time against the others (two classes share one), the class with the greatest value wins.
//!
//! As scikit-learn's `SGDClassifier` with its `optimal` rates, on standardised features, but for the order of the rows, and
//! the descent of all classes ends together. Values are made into probabilities by the softmax, which keeps their order;
//! for two classes and log_loss it is the logistic function, else they are not calibrated. See [`super::walk`].

use dml_core::{Params, Plan, Task};
use ndarray::Array2;

use super::{
    softmax::{Softmax, outputs},
    walk::{self, RowLoss, Walk},
};
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit, Folded, Learner, Scores, Shape},
    onnx,
};

/// The kind `sgd_classifier`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SgdClassifier;

/// The loss of a margin, times the weight of the row's class.
struct Margin {
    weights: Vec<f64>,
    log: bool,
    alpha: f64,
    /// As if so many rows had been seen before the first.
    ahead: f64,
}

impl Learner for SgdClassifier {
    type State = Walk;
    type Partial = Walk;
    type Model = Softmax;

    fn kind(&self) -> Kind {
        Kind {
            name: "sgd_classifier",
            about: "Linear classifier that learns row by row: from tables of any length, quickly.",
            tasks: vec![Task::Classification],
            params: {
                let mut params = vec![Param {
                    name: "loss",
                    about: "hinge: a support vector machine; log_loss: logistic regression.",
                    domain: Domain::Choice { default: "hinge", choices: &["hinge", "log_loss"] },
                }];
                params.extend(walk::params());
                params.push(Param::class_weight());
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
        fit.at_least_two_classes("sgd_classifier")?;
        Ok(Walk::start(fit, outputs(fit.classes)))
    }

    fn unit(&self, fit: &Fit, _: u32, _: u32, walk: &Walk) -> Result<Walk, WorkError> {
        walk.go_on(fit, &Margin::new(fit))
    }

    fn fold(
        &self,
        fit: &Fit,
        round: u32,
        _: Walk,
        partials: Vec<Walk>,
    ) -> Result<Folded<Walk, Softmax>, WorkError> {
        let none = || WorkError::Input("sgd_classifier has one unit".into());
        let walk = partials.into_iter().next().ok_or_else(none)?;
        if !walk.is_finished() && round + 1 < fit.plan.rounds {
            return Ok(Folded::Next(walk));
        }
        Ok(Folded::Done(Softmax { classes: fit.classes, outputs: walk.outputs }))
    }

    fn so_far(&self, fit: &Fit, walk: Walk) -> Option<Softmax> {
        Some(Softmax { classes: fit.classes, outputs: walk.outputs })
    }

    fn is_gradual(&self) -> bool {
        true
    }

    fn predict(&self, model: &Softmax, x: &Array2<f64>) -> Scores {
        model.predict(x)
    }

    fn importance(&self, model: &Softmax) -> Option<Vec<f64>> {
        model.importance()
    }

    fn onnx(&self, model: &Softmax, graph: &mut onnx::Graph, x: onnx::Value) -> Option<onnx::Value> {
        model.onnx(graph, x)
    }
}

impl Margin {
    fn new(fit: &Fit) -> Self {
        let alpha = fit.params.float("alpha");
        // The first step is as long as weights are wont to be (Bottou's heuristic).
        let first = (1.0 / alpha.sqrt()).sqrt();
        let log = fit.params.text("loss") == "log_loss";
        Self { weights: fit.class_weights(), log, alpha, ahead: 1.0 / (first * alpha) }
    }
}

impl RowLoss for Margin {
    fn at(&self, output: usize, value: f64, y: f64) -> (f64, f64) {
        let (class, first) = (y as usize, self.weights.len() - outputs(self.weights.len()));
        let sign = if class == first + output { 1.0 } else { -1.0 };
        let (margin, weight) = (sign * value, self.weights[class]);
        if !self.log {
            return if margin < 1.0 { (weight * (1.0 - margin), -sign * weight) } else { (0.0, 0.0) };
        }
        // Of the two forms the one whose exponential is at most 1.
        let small = libm::exp(-margin.abs());
        let loss = libm::log1p(small) + (-margin).max(0.0);
        let chance = if margin > 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) };
        (weight * loss, -sign * weight * chance)
    }

    fn rate(&self, step: u64) -> f64 {
        1.0 / (self.alpha * (self.ahead + step as f64 - 1.0))
    }
}
