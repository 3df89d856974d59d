//! Loss, gradient and Hessian at one point, summed over rows.

use serde::{Deserialize, Serialize};

use super::{Softmax, extend, outputs, softmax};
use crate::{
    learner::Block,
    learners::symmetric::{LANES, Symmetric, dot},
};

/// Up to so many weights (intercepts among them) the step is Newton's.
pub(super) const MAX_NEWTON: usize = 300;

/// Sums over rows at one point, without the penalty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    pub(super) rows: u64,
    pub(super) loss: f64,
    pub(super) gradient: Vec<f64>,
    /// For each pair of outputs a <= b the matrix of second derivatives; none for L-BFGS.
    pub(super) hessian: Vec<Symmetric>,
}

impl Sums {
    pub(super) fn zero(point: &[f64], classes: usize) -> Self {
        let outputs = outputs(classes);
        let blocks = if point.len() <= MAX_NEWTON { pairs(outputs).count() } else { 0 };
        let hessian = vec![Symmetric::zero(point.len() / outputs); blocks];
        Self { rows: 0, loss: 0.0, gradient: vec![0.0; point.len()], hessian }
    }

    /// Adds the rows of a block.
    pub(super) fn add_block(&mut self, model: &Softmax, block: &Block) {
        let order = block.x.ncols() + 1;
        let first = model.classes - model.outputs.len();
        let mut tile: [Vec<f64>; LANES] = std::array::from_fn(|_| vec![1.0; order]);
        let mut weights = vec![[0.0; LANES]; self.hessian.len()];
        for start in (0..block.y.len()).step_by(LANES) {
            let lanes = (block.y.len() - start).min(LANES);
            weights.iter_mut().for_each(|weights| weights.fill(0.0));
            for lane in 0..lanes {
                extend(&mut tile[lane], block.x.row(start + lane));
                let class = block.y[start + lane] as usize;
                let mut p = model.scores(&tile[lane]);
                let score = p[class];
                self.loss += softmax(&mut p) - score;
                for (a, slice) in self.gradient.chunks_mut(order).enumerate() {
                    let error = p[first + a] - f64::from(u8::from(first + a == class));
                    slice.iter_mut().zip(&tile[lane]).for_each(|(g, x)| *g += error * x);
                }
                for ((a, b), weights) in pairs(model.outputs.len()).zip(&mut weights) {
                    let (a, b) = (first + a, first + b);
                    weights[lane] = if a == b { p[a] * (1.0 - p[a]) } else { -p[a] * p[b] };
                }
            }
            self.hessian
                .iter_mut()
                .zip(&weights)
                .for_each(|(block, weights)| block.add_outer(&tile, weights));
        }
        self.rows += block.y.len() as u64;
    }

    pub(super) fn add(&mut self, next: &Self) {
        self.rows += next.rows;
        self.loss += next.loss;
        self.gradient.iter_mut().zip(&next.gradient).for_each(|(a, b)| *a += b);
        self.hessian.iter_mut().zip(&next.hessian).for_each(|(a, b)| a.add(b));
    }

    /// Adds the penalty `strength / 2 * |weights|²`; the last of each `order` weights is an intercept.
    pub(super) fn add_penalty(&mut self, point: &[f64], order: usize, strength: f64) {
        for (weights, gradient) in point.chunks(order).zip(self.gradient.chunks_mut(order)) {
            let weights = &weights[..order - 1];
            self.loss += 0.5 * strength * dot(weights, weights);
            gradient.iter_mut().zip(weights).for_each(|(g, w)| *g += strength * w);
        }
        for ((a, b), block) in pairs(point.len() / order).zip(&mut self.hessian) {
            (0..order - 1).filter(|_| a == b).for_each(|i| *block.at_mut(i, i) += strength);
        }
    }

    pub(super) fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.gradient.iter().all(|g| g.is_finite())
    }
}

/// The pairs a <= b of outputs.
pub(super) fn pairs(outputs: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..outputs).flat_map(move |a| (a..outputs).map(move |b| (a, b)))
}
