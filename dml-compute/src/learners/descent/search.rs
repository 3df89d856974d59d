//! The search for the least loss: from sums at one point to the next point.

use serde::{Deserialize, Serialize};

use super::{Goal, Sums, pairs};
use crate::{
    error::WorkError,
    learners::{
        coordinate::Coordinates,
        symmetric::{Symmetric, dot},
    },
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
    /// The greatest component of the gradient at the beginning.
    first: Option<f64>,
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
    /// How fast the objective falls where the step begins, penalty included: not above 0.
    slope: f64,
}

impl Search {
    /// Nothing known yet; begins at this point.
    pub fn from(point: Vec<f64>) -> Self {
        Self { point, base: None, halvings: 0, steps: 0, finished: false, first: None, memory: vec![] }
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
    pub(super) fn advance(&mut self, goal: &Goal, mut sums: Sums) -> Result<(), WorkError> {
        if sums.rows == 0 {
            return Err(WorkError::Input("there are no rows to train on".into()));
        }
        let rows = if goal.per_row { sums.rows as f64 } else { 1.0 };
        let (l1, order) = (goal.l1 * rows, self.point.len() / goal.loss.outputs());
        sums.add_penalty(&self.point, order, l1, goal.l2 * rows, goal.loss.coupled());
        let Some(base) = self.base.take() else {
            if !sums.is_finite() {
                return Err(too_large(goal));
            }
            return self.settle(goal, sums, l1);
        };
        // The condition of Armijo: a part of the decrease that the slope promises.
        let enough = base.loss + 1e-4 * halved(self.halvings) * base.slope;
        if sums.is_finite() && sums.loss <= enough {
            self.remember(&base, &sums);
            let decrease = base.loss - sums.loss;
            self.steps += 1;
            self.finished = decrease <= 1e-14 * base.loss.abs() || i64::from(self.steps) >= goal.max_iter;
            return self.settle(goal, sums, l1);
        }
        self.halvings += 1;
        self.finished = self.halvings > MAX_HALVINGS;
        let shrink = halved(self.halvings);
        self.point = base.point.iter().zip(&base.step).map(|(p, s)| p + shrink * s).collect();
        self.base = Some(base);
        Ok(())
    }

    /// Makes the point the base, and steps on from there unless the gradient is small.
    fn settle(&mut self, goal: &Goal, sums: Sums, l1: f64) -> Result<(), WorkError> {
        let order = self.point.len() / goal.loss.outputs();
        let penalties: Vec<f64> =
            (0..self.point.len()).map(|i| if i % order + 1 < order { l1 } else { 0.0 }).collect();
        let off =
            self.point.iter().zip(&sums.gradient).zip(&penalties).map(|((w, g), l1)| off_by(*w, *g, *l1));
        let greatest = off.fold(0.0f64, f64::max);
        let first = *self.first.get_or_insert(greatest);
        let enough = if goal.relative { goal.tol * first } else { goal.tol * sums.rows as f64 };
        self.finished |= greatest <= enough;
        let (mut step, mut slope) = (vec![], 0.0);
        if !self.finished {
            step = if sums.hessian.is_empty() {
                self.quasi_newton(&sums.gradient)
            } else {
                newton(goal, &sums, &self.point, &penalties)?
            };
            slope = dot(&sums.gradient, &step) + gained(&self.point, &step, &penalties);
            // What is left to win is lost in rounding: also when rounding turned the step uphill.
            self.finished = slope >= -1e-14 * (1.0 + sums.loss.abs());
        }
        let next = self.point.iter().zip(&step).map(|(p, s)| p + s).collect();
        let point = std::mem::replace(&mut self.point, next);
        self.halvings = 0;
        self.base = Some(Base { point, loss: sums.loss, gradient: sums.gradient, step, slope });
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

/// Newton's step: the least of the quadratic model, and of the penalty on the sizes of the weights if there is one. Outputs
/// that do not depend on each other have steps of their own.
fn newton(goal: &Goal, sums: &Sums, point: &[f64], penalties: &[f64]) -> Result<Vec<f64>, WorkError> {
    let (outputs, coupled) = (goal.loss.outputs(), goal.loss.coupled());
    let order = point.len() / outputs;
    let least = |hessian: &Symmetric, at: std::ops::Range<usize>| {
        let (gradient, point) = (&sums.gradient[at.clone()], &point[at.clone()]);
        if goal.l1 > 0.0 {
            let mut found =
                Coordinates::new(hessian, gradient.to_vec(), penalties[at].to_vec(), point.to_vec());
            found.settle(1000);
            return Some(found.point().iter().zip(point).map(|(to, from)| to - from).collect::<Vec<f64>>())
                .filter(|step| step.iter().all(|s| s.is_finite()));
        }
        hessian.solve(&gradient.iter().map(|g| -g).collect::<Vec<f64>>())
    };
    if !coupled {
        let each =
            sums.hessian.iter().enumerate().map(|(i, hessian)| least(hessian, i * order..(i + 1) * order));
        return each.collect::<Option<Vec<_>>>().map(|steps| steps.concat()).ok_or_else(|| too_large(goal));
    }
    let mut whole = Symmetric::zero(point.len());
    for ((a, b), block) in pairs(outputs, coupled).zip(&sums.hessian) {
        for i in 0..order {
            for j in 0..order {
                *whole.at_mut(a * order + i, b * order + j) = block.at(i, j);
            }
        }
    }
    least(&whole, 0..point.len()).ok_or_else(|| too_large(goal))
}

fn too_large(goal: &Goal) -> WorkError {
    let kind = goal.kind;
    WorkError::Input(format!(
        "the features or targets are too large for {kind}: divide them by a power of ten"
    ))
}

/// How far the slope is from what the penalty on the weight's size can hold.
fn off_by(weight: f64, gradient: f64, l1: f64) -> f64 {
    if weight == 0.0 { (gradient.abs() - l1).max(0.0) } else { (gradient + l1 * weight.signum()).abs() }
}

/// By how much a step changes the penalty on the weights' sizes.
fn gained(point: &[f64], step: &[f64], penalties: &[f64]) -> f64 {
    let terms = point.iter().zip(step).zip(penalties).filter(|(_, l1)| **l1 > 0.0);
    terms.map(|((w, s), l1)| l1 * ((w + s).abs() - w.abs())).sum()
}

/// 1, halved so many times.
fn halved(times: u32) -> f64 {
    (0..times).fold(1.0, |value, _| value * 0.5)
}
