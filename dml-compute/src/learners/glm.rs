//! Generalised linear models with a logarithmic link, for targets that are counts, times or amounts (Nelder and Wedderburn
//! 1972, "Generalized linear models"; Jorgensen 1987, "Exponential dispersion models"): the logarithm of the expected
//! target is a weighted sum of the features.
//!
//! The variance is proportional to a `power` of the expected value: 1 is Poisson, 2 is gamma, between them is Tweedie's
//! compound of both, 3 is the inverse Gaussian. Minimises `mean of deviances / 2 + alpha / 2 * |w|²`, as scikit-learn's
//! `TweedieRegressor` does, on standardised features; the intercept is free. Beyond power 2 the deviance is not convex,
//! and its expected second derivative takes the place of the observed one (Fisher scoring). See [`super::descent`].

use dml_core::Task;
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use super::{
    descent::{self, Descent, Goal, Loss},
    gram::Affine,
    panel::Column,
};
use crate::{
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit, Predict, Scores},
    onnx,
};

/// The logarithm of the greatest and of the least prediction, so that none is infinite or 0.
const FARTHEST: f64 = 700.0;

/// The learner of the kind `glm`.
pub const GLM: Descent<Exponential> = Descent {
    kind,
    outputs: |_| 1,
    // Without features the best prediction is the mean.
    start: |fit| {
        descent::from_mean(fit, |mean| if mean.is_finite() && mean > 0.0 { libm::log(mean) } else { 0.0 })
    },
    goal,
    model: |_, outputs| Exponential { log: Affine::from_outputs(outputs) },
};

/// The exponential function of a linear one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exponential {
    /// The logarithm of the expected target.
    pub log: Affine,
}

/// Half the deviance, but for what depends on the target alone.
struct Deviance {
    power: f64,
}

/// What the parameters ask for.
fn goal(fit: &Fit) -> Goal {
    Goal {
        kind: "glm",
        loss: Box::new(Deviance { power: fit.params.float("power") }),
        l1: 0.0,
        l2: fit.params.float("alpha"),
        per_row: true,
        tol: fit.params.float("tol"),
        relative: false,
        max_iter: fit.params.int("max_iter"),
    }
}

/// Its name, tasks, parameters and properties.
fn kind() -> Kind {
    let [max_iter, tol] = descent::params();
    Kind {
        name: "glm",
        about: "Generalised linear model of counts, times or amounts: features multiply the expected target.",
        tasks: vec![Task::Regression],
        params: vec![
            Param {
                name: "power",
                about: "How the variance grows with the expected value: 1 Poisson, 2 gamma, between them Tweedie.",
                domain: Domain::Float { default: 1.0, min: 1.0, max: 3.0 },
            },
            Param {
                name: "alpha",
                about: "How much half the sum of squared weights counts beside half the mean deviance.",
                domain: Domain::Float { default: 1.0, min: 0.0, max: 1e12 },
            },
            max_iter,
            tol,
        ],
        default: false,
        parallel: true,
        deterministic: true,
        exportable: vec!["native", "json", "onnx"],
        encoding: Encoding::Dense,
    }
}

impl Predict for Exponential {
    fn predict(&self, x: &Array2<f64>) -> Scores {
        let values = self.log.values(x).into_iter().map(|log| libm::exp(log.clamp(-FARTHEST, FARTHEST)));
        Scores::Values(Array1::from_iter(values))
    }

    fn importance(&self) -> Option<Vec<f64>> {
        self.log.importance()
    }

    fn onnx(&self, graph: &mut onnx::Graph, x: onnx::Value) -> Option<onnx::Value> {
        let sums = graph.affine(x, &[&self.log.weights], &[self.log.intercept]);
        let logs = graph.tame(sums, &[self.log.intercept.clamp(-FARTHEST, FARTHEST)], FARTHEST);
        Some(graph.node("Exp", &[logs], &[]))
    }
}

impl Loss for Deviance {
    fn outputs(&self) -> usize {
        1
    }

    fn coupled(&self) -> bool {
        false
    }

    /// With m the expected value, the exponential of the output: `m^(2-p) / (2-p) - y m^(1-p) / (1-p)`, and its limits where
    /// a denominator is 0.
    fn at(&self, y: &[f64], found: &mut [Column], curvature: &mut [Column]) -> f64 {
        let (above, below) = (2.0 - self.power, 1.0 - self.power);
        let mut loss = 0.0;
        for (row, y) in y.iter().enumerate() {
            let log = found[0][row];
            let (mass, share) = (libm::exp(above * log), y * libm::exp(below * log));
            loss += if above == 0.0 { log } else { mass / above };
            loss -= if below == 0.0 { y * log } else { share / below };
            found[0][row] = mass - share;
            if let Some(curvature) = curvature.first_mut() {
                curvature[row] = if above < 0.0 { mass } else { above * mass - below * share };
            }
        }
        loss
    }

    fn refuses(&self, y: f64) -> Option<String> {
        let power = self.power;
        if self.power >= 2.0 {
            (y <= 0.0).then(|| {
                format!("glm with power {power} takes targets above 0; lower the power, or leave the row out")
            })
        } else {
            (y < 0.0).then(|| format!("glm with power {power} takes targets from 0 on; choose another kind"))
        }
    }
}
