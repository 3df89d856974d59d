//! The normal equations of least squares: moments of the rows that add up over units, and the weights that follow
//! from them. Shared by [`linear`](super::linear), [`ridge`](super::ridge) and [`linfa_linear`](super::linfa_linear).
//!
//! Moments are taken about the mean of each chunk and brought together by the update of Chan, Golub and LeVeque 1983
//! ("Algorithms for computing the sample variance"), so that a target far from zero costs no precision.

use dml_core::Plan;
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use super::symmetric::{LANES, Symmetric, dot};
use crate::{
    error::WorkError,
    learner::{Block, Fit, Scores, Shape},
};

/// The most encoded columns that a fit by normal equations takes: the matrix has the square of that many elements.
pub const MAX_WIDTH: usize = 4096;

/// Count, means and centred products of the columns of `x` and, last, of `y`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    rows: u64,
    mean: Vec<f64>,
    products: Symmetric,
}

/// A linear function of the encoded features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Affine {
    /// The value where all features are zero.
    pub intercept: f64,
    /// What one unit of each encoded feature adds.
    pub weights: Vec<f64>,
}

/// One round; a unit is about a second of multiplications.
pub fn plan(shape: &Shape) -> Plan {
    Plan::over_chunks(1, shape.rows, shape.chunks, (1 << 24) / shape.columns.max(1) as u64)
}

/// The moments of a unit's share of the rows.
pub fn unit(fit: &Fit, index: u32) -> Result<Moments, WorkError> {
    let width = fit.rows.width();
    if width > MAX_WIDTH {
        return Err(WorkError::Input(format!(
            "the features are {width} columns once encoded, but this kind takes at most {MAX_WIDTH}: leave out text \
             columns with many values, or choose a kind of tree"
        )));
    }
    let mut moments = Moments::new(width);
    for chunk in fit.plan.share(index, fit.rows.chunks()) {
        moments.merge(&Moments::of(&fit.rows.block(chunk)?, width));
    }
    Ok(moments)
}

impl Moments {
    /// The moments of no rows.
    pub fn new(width: usize) -> Self {
        Self { rows: 0, mean: vec![0.0; width + 1], products: Symmetric::zero(width + 1) }
    }

    /// The moments of a block's rows.
    pub fn of(block: &Block, width: usize) -> Self {
        let mut moments = Self::new(width);
        let rows = block.y.len();
        if rows == 0 {
            return moments;
        }
        for (x, y) in block.x.rows().into_iter().zip(&block.y) {
            moments.mean.iter_mut().zip(x.iter().chain([y])).for_each(|(m, v)| *m += v);
        }
        moments.mean.iter_mut().for_each(|m| *m /= rows as f64);
        moments.rows = rows as u64;
        let mut tile: [Vec<f64>; LANES] = std::array::from_fn(|_| vec![0.0; width + 1]);
        for start in (0..rows).step_by(LANES) {
            let lanes = (rows - start).min(LANES);
            for (lane, buffer) in tile.iter_mut().enumerate().take(lanes) {
                let row = block.x.row(start + lane);
                let values = row.iter().chain([&block.y[start + lane]]);
                buffer.iter_mut().zip(values.zip(&moments.mean)).for_each(|(b, (v, m))| *b = v - m);
            }
            tile[lanes..].iter_mut().for_each(|buffer| buffer.fill(0.0));
            moments.products.add_outer(&tile, &[1.0; LANES]);
        }
        moments
    }

    /// Adds the moments of the rows that follow.
    pub fn merge(&mut self, next: &Self) {
        if next.rows == 0 {
            return;
        }
        let (n, m) = (self.rows as f64, next.rows as f64);
        let delta: Vec<f64> = next.mean.iter().zip(&self.mean).map(|(b, a)| b - a).collect();
        self.products.add(&next.products);
        if self.rows > 0 {
            let zero = vec![0.0; delta.len()];
            self.mean.iter_mut().zip(&delta).for_each(|(mean, d)| *mean += d * (m / (n + m)));
            self.products
                .add_outer(&[delta, zero.clone(), zero.clone(), zero], &[n * (m / (n + m)), 0.0, 0.0, 0.0]);
        } else {
            self.mean.clone_from(&next.mean);
        }
        self.rows += next.rows;
    }

    /// All moments together, in the order of their units; an error when there are no rows or their numbers are too
    /// great to be multiplied.
    pub fn sum(partials: &[Self]) -> Result<Self, WorkError> {
        let width = partials.first().map_or(0, Self::width);
        let mut sum = Self::new(width);
        partials.iter().for_each(|partial| sum.merge(partial));
        if sum.rows == 0 {
            return Err(WorkError::Input("there are no rows to train on".into()));
        }
        // The square of the target alone may overflow: nothing depends on it.
        *sum.products.at_mut(width, width) = 0.0;
        if !(sum.products.is_finite() && sum.mean.iter().all(|m| m.is_finite())) {
            return Err(WorkError::Input(
                "the numbers are too large to be multiplied with each other: divide the target or the features by a \
                 power of ten"
                    .into(),
            ));
        }
        Ok(sum)
    }

    /// The weights that make the sum of squared errors plus `alpha` times the sum of squared weights least. The
    /// intercept is free. Without full rank and with `alpha` 0, the weights are (nearly) those of least norm.
    pub fn solve(&self, alpha: f64) -> Result<Affine, WorkError> {
        let width = self.width();
        let mut matrix = self.features();
        for j in (0..width).filter(|&j| !self.is_constant(j)) {
            *matrix.at_mut(j, j) += alpha;
        }
        let b: Vec<f64> = (0..width).map(|j| self.products.at(j, width)).collect();
        let weights = matrix.solve(&b).ok_or_else(|| {
            WorkError::Input("the normal equations of these numbers have no finite solution".into())
        })?;
        Ok(Affine { intercept: self.mean[width] - dot(&weights, &self.mean), weights })
    }

    /// Encoded columns that are not (nearly) constant or combinations of those before them.
    pub fn independent(&self) -> Vec<usize> {
        self.features().independent(self.rows.saturating_sub(1).try_into().unwrap_or(usize::MAX))
    }

    fn width(&self) -> usize {
        self.mean.len() - 1
    }

    /// The products of the features among each other, without those that are rounding errors.
    fn features(&self) -> Symmetric {
        let mut matrix = Symmetric::zero(self.width());
        for i in (0..self.width()).filter(|&i| !self.is_constant(i)) {
            for j in (i..self.width()).filter(|&j| !self.is_constant(j)) {
                *matrix.at_mut(i, j) = self.products.at(i, j);
            }
        }
        matrix
    }

    /// Whether a column varies by no more than rounding errors.
    fn is_constant(&self, column: usize) -> bool {
        let noise = 1e-12 * self.mean[column].abs();
        self.products.at(column, column) <= self.rows as f64 * noise * noise
    }
}

impl Affine {
    /// The function's value for each row.
    pub fn predict(&self, x: &Array2<f64>) -> Scores {
        let value = |row: ndarray::ArrayView1<f64>| {
            let sum = row
                .as_slice()
                .map_or_else(|| dot(&self.weights, &row.to_vec()), |row| dot(&self.weights, row));
            // Values far outside of what was learned from must not make infinities cancel out.
            if sum.is_nan() { self.intercept } else { (self.intercept + sum).clamp(f64::MIN, f64::MAX) }
        };
        Scores::Values(Array1::from_iter(x.rows().into_iter().map(value)))
    }

    /// The size of each weight: features are standardised, so they compare.
    pub fn importance(&self) -> Vec<f64> {
        self.weights.iter().map(|w| w.abs()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(rows: &[Vec<f64>], width: usize) -> Block {
        let x = Array2::from_shape_fn((rows.len(), width), |(i, j)| rows[i][j]);
        let y = rows.iter().map(|row| row[width]).collect();
        Block { x, y, rows: (0..rows.len() as u64).collect() }
    }

    proptest! {
        #[test]
        fn moments_do_not_depend_on_how_rows_are_cut(
            rows in proptest::collection::vec(proptest::collection::vec(-9.0..9.0f64, 4), 1..40),
            cut in 0usize..40,
        ) {
            let (left, right) = rows.split_at(cut.min(rows.len()));
            let parts = [Moments::of(&block(left, 3), 3), Moments::of(&block(right, 3), 3)];
            let (sum, whole) = (Moments::sum(&parts).unwrap(), Moments::of(&block(&rows, 3), 3));
            prop_assert_eq!(sum.rows, whole.rows);
            for i in 0..4 {
                prop_assert!((sum.mean[i] - whole.mean[i]).abs() < 1e-12);
                for j in 0..3 {
                    prop_assert!((sum.products.at(i, j) - whole.products.at(i, j)).abs() < 1e-9);
                }
            }
        }
    }

    #[test]
    fn overflow_and_no_rows_are_errors() {
        let huge = Moments::of(&block(&[vec![1e200, 1e200], vec![-1e200, -1e200]], 1), 1);
        for partials in [vec![], vec![Moments::new(2)], vec![huge]] {
            assert!(matches!(Moments::sum(&partials), Err(WorkError::Input(_))));
        }
    }
}
