//! Linear classification by stochastic gradient descent: a support vector machine (`loss` hinge) or logistic regression
//! (log_loss), a class at a time against the others (two classes share one), the class with the greatest value wins.
//!
//! As scikit-learn's `SGDClassifier` with its `optimal` rates, on standardised features, but for the order of the rows, and
//! the descent of all classes ends together. Values are made into probabilities by the softmax, which keeps their order;
//! for two classes and log_loss it is the logistic function, else they are not calibrated. See [`super::walk`].

use dml_core::Task;

use super::{
    softmax::{Softmax, outputs},
    walk::{self, RowLoss, Stepwise},
};
use crate::{
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit},
};

/// The learner of the kind `sgd_classifier`.
pub const SGD_CLASSIFIER: Stepwise<Softmax> =
    Stepwise { kind, outputs, loss: |fit| Box::new(Margin::new(fit)), model: Softmax::of };

/// The loss of a margin, times the weight of the row's class.
struct Margin {
    weights: Vec<f64>,
    log: bool,
    alpha: f64,
    /// As if so many rows had been seen before the first.
    ahead: f64,
}

/// Its name, tasks, parameters and properties.
fn kind() -> Kind {
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
