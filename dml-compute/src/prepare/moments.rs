//! Statistics that merge: of numbers, and of the target beside a category.
//!
//! Means and variances are Welford's within a unit (1962, "Note on a method for calculating corrected sums of squares
//! and products"), and Chan's across units (Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for
//! computing sample variances"). They depend on how rows are grouped in the last bits, and so a job's plan is a
//! function of the data alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Count, mean, spread and range of some numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// How many numbers.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// The sum of squared deviations from the mean.
    pub m2: f64,
    /// The least; infinity if there is none.
    pub min: f64,
    /// The greatest; minus infinity if there is none.
    pub max: f64,
}

impl Default for Moments {
    fn default() -> Self {
        Self { count: 0, mean: 0.0, m2: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl Moments {
    /// Takes one more number.
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        let delta = value - self.mean;
        self.mean += delta / self.count as f64;
        self.m2 += delta * (value - self.mean);
        self.widen(value, value);
    }

    /// By comparison, as `f64::min` may choose either zero.
    fn widen(&mut self, min: f64, max: f64) {
        if min < self.min {
            self.min = min;
        }
        if max > self.max {
            self.max = max;
        }
    }

    /// Takes the numbers of another part.
    pub fn merge(&mut self, other: &Self) {
        if self.count == 0 || other.count == 0 {
            if self.count == 0 {
                *self = *other;
            }
            return;
        }
        let (a, b) = (self.count as f64, other.count as f64);
        let delta = other.mean - self.mean;
        self.count += other.count;
        self.mean += delta * (b / (a + b));
        self.m2 += other.m2 + delta * delta * (a * b / (a + b));
        self.widen(other.min, other.max);
    }

    /// The population standard deviation; 0 if all numbers are equal.
    pub fn std(&self) -> f64 {
        if self.count == 0 || self.min == self.max { 0.0 } else { (self.m2 / self.count as f64).sqrt() }
    }

    /// Whether mean and spread are numbers: beyond about 1e150 they overflow.
    pub fn is_finite(&self) -> bool {
        self.mean.is_finite() && self.m2.is_finite()
    }
}

/// The target of one row; a class by its code in the profile.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Target {
    Number(f64),
    Class(u32),
}

/// The target in some rows: all training rows, or those of one category.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Targets {
    /// Regression: statistics of the numbers.
    Numbers(Moments),
    /// Classification: rows by the class's code, which is its place in the order of first appearance.
    Classes(BTreeMap<u32, u64>),
}

impl Targets {
    /// Nothing yet, of the same sort.
    pub(crate) fn empty(&self) -> Self {
        match self {
            Self::Numbers(_) => Self::Numbers(Moments::default()),
            Self::Classes(_) => Self::Classes(BTreeMap::new()),
        }
    }

    /// How many rows.
    pub fn rows(&self) -> u64 {
        match self {
            Self::Numbers(moments) => moments.count,
            Self::Classes(counts) => counts.values().sum(),
        }
    }

    pub(crate) fn add(&mut self, target: Target) {
        match (self, target) {
            (Self::Numbers(moments), Target::Number(value)) => moments.add(value),
            (Self::Classes(counts), Target::Class(code)) => *counts.entry(code).or_default() += 1,
            (Self::Numbers(_), Target::Class(_)) | (Self::Classes(_), Target::Number(_)) => {}
        }
    }

    /// Takes the rows of another part, whose class `c` is `codes[c]` here.
    pub(crate) fn merge(&mut self, other: &Self, codes: &[u32]) {
        match (self, other) {
            (Self::Numbers(mine), Self::Numbers(theirs)) => mine.merge(theirs),
            (Self::Classes(mine), Self::Classes(theirs)) => {
                for (code, rows) in theirs {
                    let code = codes.get(*code as usize).copied().unwrap_or(*code);
                    *mine.entry(code).or_default() += rows;
                }
            }
            (Self::Numbers(_), Self::Classes(_)) | (Self::Classes(_), Self::Numbers(_)) => {}
        }
    }

    /// The mean of the numbers, or of the classes' places in their final order; for two classes that is the share of
    /// the second.
    pub(crate) fn mean(&self, places: &[u32]) -> f64 {
        match self {
            Self::Numbers(moments) => moments.mean,
            Self::Classes(counts) => {
                let place = |code: &u32| u64::from(places.get(*code as usize).copied().unwrap_or(0));
                let sum: u64 = counts.iter().map(|(code, rows)| place(code) * rows).sum();
                sum as f64 / self.rows().max(1) as f64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_merge_to_the_whole(values in prop::collection::vec(-1e6..1e6f64, 1..60), cut in 0usize..60) {
            let of = |values: &[f64]| {
                let mut moments = Moments::default();
                values.iter().for_each(|v| moments.add(*v));
                moments
            };
            let cut = cut.min(values.len());
            let mut merged = of(&values[..cut]);
            merged.merge(&of(&values[cut..]));
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let std = (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt();
            prop_assert_eq!(merged.count, values.len() as u64);
            prop_assert!((merged.mean - mean).abs() < 1e-8);
            prop_assert!((merged.std() - std).abs() < 1e-6);
            prop_assert_eq!(merged.min, values.iter().copied().fold(f64::INFINITY, f64::min));
        }
    }

    #[test]
    fn the_mean_of_classes_goes_by_their_final_places() {
        let mut targets = Targets::Classes(BTreeMap::new());
        [0, 1, 1, 1].into_iter().for_each(|code| targets.add(Target::Class(code)));
        assert_eq!(targets.mean(&[1, 0]), 0.25);
        let mut other = targets.empty();
        other.add(Target::Class(0));
        targets.merge(&other, &[1]);
        assert_eq!((targets.rows(), targets.mean(&[1, 0])), (5, 0.2));
    }
}
