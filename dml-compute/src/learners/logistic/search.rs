//! The search for the least loss: from sums at one point to the next point.

use serde::{Deserialize, Serialize};

use super::{Sums, outputs, sums::pairs};
use crate::{
    error::WorkError,
    learner::Fit,
    learners::symmetric::{Symmetric, dot},
};

/// How many steps L-BFGS remembers.
const MEMORY: usize = 10;

/// A step is given up when it was halved so often.
pub(super) const MAX_HALVINGS: u32 = 30;

/// Where the search for the least loss is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// Where loss and gradient are wanted next: all outputs' weights, one after the other.
    pub(super) point: Vec<f64>,
    /// The best point so far; none before the first sums.
    base: Option<Base>,
    /// How often the step from the base was halved.
    halvings: u32,
    /// How many steps were taken.
    steps: u32,
    /// Whether the base is the result.
    finished: bool,
    /// What L-BFGS remembers: the last steps and by how much each changed the gradient.
    memory: Vec<(Vec<f64>, Vec<f64>)>,
}

/// A point, what is known of it, and the step that was tried from there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Base {
    point: Vec<f64>,
    loss: f64,
    gradient: Vec<f64>,
    step: Vec<f64>,
}

impl Search {
    /// Nothing known yet; begins at this point.
    pub(super) fn from(point: Vec<f64>) -> Self {
        Self { point, base: None, halvings: 0, steps: 0, finished: false, memory: vec![] }
    }

    /// Whether the best point is the result.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// The best point so far.
    pub(super) fn best(self) -> Vec<f64> {
        self.base.map_or(self.point, |base| base.point)
    }

    /// Takes the sums at the point, and chooses the next point.
    pub(super) fn advance(&mut self, fit: &Fit, mut sums: Sums) -> Result<(), WorkError> {
        if sums.rows == 0 {
            return Err(WorkError::Input("there are no rows to train on".into()));
        }
        sums.add_penalty(&self.point, fit.rows.width() + 1, 1.0 / fit.params.float("C"));
        let Some(base) = self.base.take() else {
            if !sums.is_finite() {
                return Err(WorkError::Input("the features are too large for logistic regression".into()));
            }
            return self.settle(fit, sums);
        };
        // The condition of Armijo: a part of the decrease that the slope promises.
        let shrink = halved(self.halvings);
        let enough = base.loss + 1e-4 * shrink * dot(&base.gradient, &base.step);
        if sums.is_finite() && sums.loss <= enough {
            self.remember(&base, &sums);
            let decrease = base.loss - sums.loss;
            self.steps += 1;
            self.finished =
                decrease <= 1e-14 * base.loss || i64::from(self.steps) >= fit.params.int("max_iter");
            return self.settle(fit, sums);
        }
        self.halvings += 1;
        self.finished = self.halvings > MAX_HALVINGS;
        let shrink = halved(self.halvings);
        self.point = base.point.iter().zip(&base.step).map(|(p, s)| p + shrink * s).collect();
        self.base = Some(base);
        Ok(())
    }

    /// Makes the point the base, and steps on from there unless the gradient is small.
    fn settle(&mut self, fit: &Fit, sums: Sums) -> Result<(), WorkError> {
        let greatest = sums.gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
        self.finished |= greatest <= fit.params.float("tol") * sums.rows as f64;
        let mut step = vec![];
        if !self.finished {
            step =
                if sums.hessian.is_empty() { self.quasi_newton(&sums.gradient) } else { newton(fit, &sums)? };
            let slope = dot(&sums.gradient, &step);
            // What is left to win is lost in rounding: also when rounding turned the step uphill.
            self.finished = slope >= -1e-14 * (1.0 + sums.loss);
        }
        let next = self.point.iter().zip(&step).map(|(p, s)| p + s).collect();
        let point = std::mem::replace(&mut self.point, next);
        self.halvings = 0;
        self.base = Some(Base { point, loss: sums.loss, gradient: sums.gradient, step });
        Ok(())
    }

    fn remember(&mut self, base: &Base, sums: &Sums) {
        if !sums.hessian.is_empty() {
            return;
        }
        let difference = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
        let (s, y) = (difference(&self.point, &base.point), difference(&sums.gradient, &base.gradient));
        if dot(&s, &y) > 1e-12 * (dot(&s, &s) * dot(&y, &y)).sqrt() {
            self.memory.push((s, y));
        }
        if self.memory.len() > MEMORY {
            self.memory.remove(0);
        }
    }

    /// The two loops of L-BFGS; along the gradient, with length 1, as long as nothing is remembered.
    fn quasi_newton(&self, gradient: &[f64]) -> Vec<f64> {
        let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let mut alphas = vec![];
        for (s, y) in self.memory.iter().rev() {
            let alpha = dot(s, &q) / dot(s, y);
            q.iter_mut().zip(y).for_each(|(q, y)| *q -= alpha * y);
            alphas.push(alpha);
        }
        let scale = match self.memory.last() {
            Some((s, y)) => dot(s, y) / dot(y, y),
            None => 1.0 / dot(&q, &q).sqrt(),
        };
        q.iter_mut().for_each(|q| *q *= scale);
        for ((s, y), alpha) in self.memory.iter().zip(alphas.iter().rev()) {
            let beta = dot(y, &q) / dot(s, y);
            q.iter_mut().zip(s).for_each(|(q, s)| *q += (alpha - beta) * s);
        }
        q
    }
}

/// Newton's step: the solution of `Hessian * step = -gradient`.
fn newton(fit: &Fit, sums: &Sums) -> Result<Vec<f64>, WorkError> {
    let (outputs, order) = (outputs(fit.classes), fit.rows.width() + 1);
    let mut whole = Symmetric::zero(outputs * order);
    for ((a, b), block) in pairs(outputs).zip(&sums.hessian) {
        for i in 0..order {
            for j in 0..order {
                *whole.at_mut(a * order + i, b * order + j) = block.at(i, j);
            }
        }
    }
    let downhill: Vec<f64> = sums.gradient.iter().map(|g| -g).collect();
    let none = || WorkError::Input("the features are too large for logistic regression".into());
    whole.solve(&downhill).ok_or_else(none)
}

/// 1, halved so many times.
fn halved(times: u32) -> f64 {
    (0..times).fold(1.0, |value, _| value * 0.5)
}
