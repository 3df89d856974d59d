//! Coordinate descent for a quadratic function plus a penalty on the sizes of the unknowns (Friedman, Hastie, Tibshirani
//! 2010, "Regularization paths for generalized linear models via coordinate descent"): one unknown after the other gets
//! the best value, the others as they are, in turn and again. Unknowns that do not pay for their penalty are exactly 0.

use super::symmetric::{Symmetric, dot};

/// A point on the way to the least of `slope' d + d' matrix d / 2 + l1' |point|`, where `d` is how far the point went.
#[derive(Debug, Clone)]
pub struct Coordinates {
    order: usize,
    matrix: Vec<f64>,
    slope: Vec<f64>,
    l1: Vec<f64>,
    point: Vec<f64>,
}

impl Coordinates {
    /// Begins at a point where the quadratic function has this slope. `l1` is the penalty of each unknown.
    pub fn new(matrix: &Symmetric, slope: Vec<f64>, l1: Vec<f64>, point: Vec<f64>) -> Self {
        let order = matrix.order();
        let matrix = (0..order).flat_map(|i| (0..order).map(move |j| matrix.at(i, j))).collect();
        Self { order, matrix, slope, l1, point }
    }

    /// Where it is.
    pub fn point(&self) -> &[f64] {
        &self.point
    }

    /// The slope of the quadratic function there.
    pub fn slope(&self) -> &[f64] {
        &self.slope
    }

    /// Gives each unknown its best value in turn. Returns how far that went, in the norm of the matrix' diagonal.
    pub fn sweep(&mut self) -> f64 {
        let mut moved = 0.0;
        for j in 0..self.order {
            let row = &self.matrix[j * self.order..(j + 1) * self.order];
            // An unknown that changes nothing stays where it is.
            if row[j] <= 1e-280 {
                continue;
            }
            let best = soft(self.point[j] - self.slope[j] / row[j], self.l1[j] / row[j]);
            let step = best - self.point[j];
            if step != 0.0 {
                self.point[j] = best;
                self.slope.iter_mut().zip(row).for_each(|(slope, cell)| *slope += step * cell);
                moved += step * step * row[j];
            }
        }
        moved.sqrt()
    }

    /// Sweeps until the last one is tiny beside the first.
    pub fn settle(&mut self, most: usize) {
        let first = self.sweep();
        for _ in 1..most {
            if self.sweep() <= 1e-12 * first {
                return;
            }
        }
    }

    /// The size of the penalty.
    pub fn penalty(&self) -> f64 {
        self.l1.iter().zip(&self.point).map(|(l1, value)| l1 * value.abs()).sum()
    }

    /// The product of the point with another vector.
    pub fn dot(&self, other: &[f64]) -> f64 {
        dot(&self.point, other)
    }
}

/// The number moved towards 0 by so much, but not beyond it.
fn soft(value: f64, by: f64) -> f64 {
    if value > by {
        value - by
    } else if value < -by {
        value + by
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The conditions of Karush, Kuhn and Tucker: zero is in the subdifferential.
        #[test]
        fn no_direction_leads_down(
            rows in proptest::collection::vec(proptest::collection::vec(-3.0..3.0f64, 4), 4..12),
            slope in proptest::collection::vec(-5.0..5.0f64, 4),
            l1 in 0.0..4.0f64,
        ) {
            let mut matrix = Symmetric::zero(4);
            rows.iter().for_each(|row| matrix.add_square(row, 1.0));
            (0..4).for_each(|i| *matrix.at_mut(i, i) += 0.1);
            let mut found = Coordinates::new(&matrix, slope.clone(), vec![l1, l1, l1, 0.0], vec![0.0; 4]);
            found.settle(100_000);
            let there = matrix.times(found.point());
            for j in 0..4 {
                prop_assert!((there[j] + slope[j] - found.slope()[j]).abs() < 1e-6);
                let (l1, slope) = (if j < 3 { l1 } else { 0.0 }, there[j] + slope[j]);
                let value = found.point()[j];
                let off = if value == 0.0 { (slope.abs() - l1).max(0.0) } else { (slope + l1 * value.signum()).abs() };
                prop_assert!(off < 1e-5, "{off}: {:?}", found.point());
            }
        }
    }
}
