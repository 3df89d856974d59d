//! Which rows a model learns from and which it is judged by: a function of the seed and of the row's number in the
//! dataset, so that it never depends on who reads the rows in which order.

use serde::{Deserialize, Serialize};

use crate::rng;

/// A division of the rows into a training part and a test part.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Every row is for training, none for testing.
    All,
    /// Each row is for testing with this probability.
    Holdout {
        /// Chooses among the divisions.
        seed: u64,
        /// The expected part of the test rows, in (0, 1).
        fraction: f64,
    },
    /// The rows are dealt to `folds` parts of about equal size; part `fold` is for testing.
    Fold {
        /// Chooses among the divisions.
        seed: u64,
        /// How many parts there are, at least 2.
        folds: u32,
        /// Which part is left out.
        fold: u32,
    },
}

impl Split {
    /// Whether the row with this number is for testing.
    pub fn is_test(&self, row: u64) -> bool {
        match *self {
            Self::All => false,
            Self::Holdout { seed, fraction } => rng::unit(seed, row) < fraction,
            Self::Fold { seed, folds, fold } => rng::below(seed, row, u64::from(folds)) == u64::from(fold),
        }
    }

    /// About which share of the rows is for training.
    pub fn training_share(&self) -> f64 {
        match *self {
            Self::All => 1.0,
            Self::Holdout { fraction, .. } => 1.0 - fraction,
            Self::Fold { folds, .. } => 1.0 - 1.0 / f64::from(folds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_share_the_rows_out() {
        for row in 0..1000 {
            let hits = (0..5).filter(|&fold| Split::Fold { seed: 9, folds: 5, fold }.is_test(row)).count();
            assert_eq!(hits, 1);
        }
    }

    #[test]
    fn a_holdout_has_about_its_size() {
        let split = Split::Holdout { seed: 1, fraction: 0.2 };
        let tests = (0..10_000).filter(|&row| split.is_test(row)).count();
        assert!((1_850..2_150).contains(&tests), "{tests}");
        assert!((0..10_000).all(|row| !Split::All.is_test(row)));
        assert_eq!((split.training_share(), Split::All.training_share()), (0.8, 1.0));
        assert_eq!(Split::Fold { seed: 9, folds: 5, fold: 2 }.training_share(), 0.8);
    }
}
