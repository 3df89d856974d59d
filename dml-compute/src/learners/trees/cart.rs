//! A tree that knows the whole answer by itself, as single trees and forests are made of: means in the leaves for
//! regression, shares of classes for classification (Breiman et al. 1984, "Classification and Regression Trees").

use dml_core::Task;

use super::{
    binned::Binned,
    bins::Bins,
    grow::{Choice, Grower, Limits},
    sums::{FewClasses, ManyClasses, Moments, magnitude},
    tree::Tree,
};
use crate::learner::Fit;

/// What the trees of a fit learn.
pub(crate) enum Target {
    /// The mean of all rows, and how far each row is from it.
    Number { mean: f64, residuals: Vec<f64> },
    /// How many classes there are, and that of each row.
    Class { count: usize, rows: Vec<u32> },
}

impl Target {
    pub(crate) fn new(fit: &Fit, table: &Binned) -> Self {
        match fit.task {
            Task::Regression => {
                let mean = mean(&table.y);
                Self::Number { mean, residuals: table.y.iter().map(|y| y - mean).collect() }
            }
            Task::Classification => {
                let count = fit.classes.max(1);
                Self::Class { count, rows: table.y.iter().map(|&y| class(y, count)).collect() }
            }
        }
    }

    /// The tree of the rows that have a weight. `threads` says whether they share the work on it.
    pub(crate) fn grow(
        &self,
        bins: &Bins,
        table: &Binned,
        limits: Limits,
        choice: Choice,
        weights: Option<&[u32]>,
        threads: bool,
    ) -> Tree {
        let weight = |row: usize| weights.map_or(1, |weights| weights[row]);
        let rows = (0..table.rows() as u32).filter(|&row| weight(row as usize) > 0).collect();
        match self {
            Self::Number { mean, residuals } => {
                let sums = Moments::squared(residuals, weight).around(*mean);
                Grower { bins, table, sums: &sums, limits, choice, threads }.grow(rows).tree
            }
            Self::Class { count, rows: classes } => {
                let weighted = classes.iter().enumerate().map(|(row, &class)| (class, weight(row)));
                match count {
                    2 => {
                        let sums = FewClasses::<2>::new(weighted);
                        Grower { bins, table, sums: &sums, limits, choice, threads }.grow(rows).tree
                    }
                    3 => {
                        let sums = FewClasses::<3>::new(weighted);
                        Grower { bins, table, sums: &sums, limits, choice, threads }.grow(rows).tree
                    }
                    _ => {
                        let sums = ManyClasses::new(*count, weighted);
                        Grower { bins, table, sums: &sums, limits, choice, threads }.grow(rows).tree
                    }
                }
            }
        }
    }
}

/// The class that a target stands for.
pub(crate) fn class(y: f64, count: usize) -> u32 {
    (y as u32).min(count as u32 - 1)
}

/// The mean, also where the sum would be too great for a float.
pub(crate) fn mean(values: &[f64]) -> f64 {
    let magnitude = magnitude(values.iter().copied());
    if magnitude == 0.0 {
        return 0.0;
    }
    let (_, exponent) = libm::frexp(magnitude.min(f64::MAX));
    let sum = values.iter().map(|&value| libm::ldexp(value, -exponent)).sum::<f64>();
    libm::ldexp(sum / values.len() as f64, exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_do_not_overflow() {
        assert_eq!(mean(&[1.0, 2.0, 6.0]), 3.0);
        assert_eq!(mean(&[f64::MAX, f64::MAX]), f64::MAX);
        assert_eq!(mean(&[1e-320, 3e-320]), 2e-320);
        assert_eq!(mean(&[0.0, -0.0]), 0.0);
    }
}
