//! Loss, gradient and Hessian at one point, summed over rows.

use serde::{Deserialize, Serialize};

use super::{Goal, pairs};
use crate::{
    error::WorkError,
    learner::Block,
    learners::{
        panel::{Panel, ROWS},
        symmetric::Symmetric,
    },
};

/// Up to so many weights (intercepts among them) the step is Newton's.
pub(super) const MAX_NEWTON: usize = 300;

/// Up to so many weights there may be an L1 penalty, whose steps need the Hessian.
pub(super) const MAX_LASSO: usize = 2000;

/// No weighted sum of features counts for more, on either side.
pub(crate) const GREATEST: f64 = 1e300;

/// Sums over rows at one point, without the penalty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    pub(super) rows: u64,
    pub(super) loss: f64,
    pub(super) gradient: Vec<f64>,
    /// For each pair of outputs the matrix of second derivatives; none for L-BFGS.
    pub(super) hessian: Vec<Symmetric>,
}

impl Sums {
    /// The sums over no rows, for so many weights.
    pub(super) fn zero(weights: usize, goal: &Goal) -> Self {
        let outputs = goal.loss.outputs();
        let wanted = weights <= if goal.l1 > 0.0 { MAX_LASSO } else { MAX_NEWTON };
        let blocks = if wanted { pairs(outputs, goal.loss.coupled()).count() } else { 0 };
        let hessian = vec![Symmetric::zero(weights / outputs); blocks];
        Self { rows: 0, loss: 0.0, gradient: vec![0.0; weights], hessian }
    }

    /// The sums over the rows of a block at a point: all outputs' weights, one after the other.
    pub(super) fn of(block: &Block, point: &[f64], goal: &Goal) -> Result<Self, WorkError> {
        let mut sums = Self::zero(point.len(), goal);
        let (width, order) = (block.x.ncols(), block.x.ncols() + 1);
        let (cells, y) = block.cells();
        let refused = y.iter().zip(&block.rows).find_map(|(y, row)| Some((row, y, goal.loss.refuses(*y)?)));
        if let Some((row, y, wanted)) = refused {
            let row = row + 1;
            return Err(WorkError::Input(format!("the target in row {row} of the table is {y}: {wanted}")));
        }
        let (mut panel, mut weighted) = (Panel::new(order), Panel::new(order));
        let mut outputs = vec![[0.0; ROWS]; goal.loss.outputs()];
        let mut curvature = vec![[0.0; ROWS]; sums.hessian.len()];
        for (i, y) in y.chunks(ROWS).enumerate() {
            let cells = &cells[i * ROWS * width..];
            panel.fill(y.len(), |i, row| {
                row[..width].copy_from_slice(&cells[i * width..(i + 1) * width]);
                row[width] = 1.0;
            });
            for (output, weights) in outputs.iter_mut().zip(point.chunks(order)) {
                panel.weighted_sums(weights, output);
                output.iter_mut().for_each(|sum| *sum = bounded(*sum));
            }
            sums.loss += goal.loss.at(y, &mut outputs, &mut curvature);
            for (slice, slopes) in sums.gradient.chunks_mut(order).zip(&outputs) {
                panel.add_weighted(slopes, slice);
            }
            for (hessian, weights) in sums.hessian.iter_mut().zip(&curvature) {
                weighted.fill_weighted(&panel, weights);
                Panel::add_products(&panel, &weighted, hessian);
            }
        }
        sums.rows = y.len() as u64;
        Ok(sums)
    }

    pub(super) fn add(&mut self, next: &Self) {
        self.rows += next.rows;
        self.loss += next.loss;
        self.gradient.iter_mut().zip(&next.gradient).for_each(|(a, b)| *a += b);
        self.hessian.iter_mut().zip(&next.hessian).for_each(|(a, b)| a.add(b));
    }

    /// Adds `l2 / 2 * |w|²`, and to the loss `l1 * |w|`; the last of each `order` weights is an intercept.
    pub(super) fn add_penalty(&mut self, point: &[f64], order: usize, l1: f64, l2: f64, coupled: bool) {
        for (weights, gradient) in point.chunks(order).zip(self.gradient.chunks_mut(order)) {
            let weights = &weights[..order - 1];
            self.loss += weights.iter().map(|w| l1 * w.abs() + 0.5 * l2 * w * w).sum::<f64>();
            gradient.iter_mut().zip(weights).for_each(|(g, w)| *g += l2 * w);
        }
        for ((a, b), block) in pairs(point.len() / order, coupled).zip(&mut self.hessian) {
            (0..order - 1).filter(|_| a == b).for_each(|i| *block.at_mut(i, i) += l2);
        }
    }

    pub(super) fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.gradient.iter().all(|g| g.is_finite())
    }
}

/// Values far outside of what was learned from must not make infinities cancel out.
pub(crate) fn bounded(sum: f64) -> f64 {
    if sum.is_nan() { 0.0 } else { sum.clamp(-GREATEST, GREATEST) }
}
