//! Statistics that merge: of numbers, and of the target beside a category.
//!
//! Within a chunk the mean comes first and then the squared deviations from it, in sums that lie side by side; chunks are
//! brought together by the update of Chan, Golub and LeVeque (1979, "Updating formulae and a pairwise algorithm for
//! computing sample variances"). They depend on how rows are grouped in the last bits, and so a job's plan is a
//! function of the data alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many sums lie side by side, so that none waits for the one before.
const LANES: usize = 8;

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
    /// Of these numbers.
    pub fn of(values: &[f64]) -> Self {
        let Some(&first) = values.first() else { return Self::default() };
        let mut moments = Self { count: values.len() as u64, ..Self::default() };
        // From the first number on, so that a mean far from zero costs no precision.
        let (mut sums, mut least, mut most) = ([0.0; LANES], [first; LANES], [first; LANES]);
        by_lane(values, |lane, value| {
            sums[lane] += value - first;
            least[lane] = if value < least[lane] { value } else { least[lane] };
            most[lane] = if value > most[lane] { value } else { most[lane] };
        });
        moments.mean = first + sums.iter().sum::<f64>() / moments.count as f64;
        let (mean, mut squares) = (moments.mean, [0.0; LANES]);
        by_lane(values, |lane, value| squares[lane] += (value - mean) * (value - mean));
        moments.m2 = squares.iter().sum();
        least.into_iter().zip(most).for_each(|(least, most)| moments.widen(least, most));
        moments
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

/// Each value and its lane: the first to the first, and so on around.
#[inline]
fn by_lane(values: &[f64], mut take: impl FnMut(usize, f64)) {
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        (0..LANES).for_each(|lane| take(lane, block[lane]));
    }
    rest.iter().enumerate().for_each(|(lane, value)| take(lane, *value));
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

    /// The same sort of targets in these rows: numbers, or codes of classes.
    pub(crate) fn of(&self, targets: &[f64]) -> Self {
        match self {
            Self::Numbers(_) => Self::Numbers(Moments::of(targets)),
            Self::Classes(_) => {
                let mut counts = Vec::new();
                for code in targets.iter().map(|code| *code as usize) {
                    if code >= counts.len() {
                        counts.resize(code + 1, 0);
                    }
                    counts[code] += 1;
                }
                Self::Classes((0..).zip(counts).filter(|(_, rows)| *rows > 0).collect())
            }
        }
    }

    /// Takes the rows of another part with the same codes.
    pub(crate) fn add(&mut self, other: &Self) {
        self.merge(other, &[]);
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
            let of = Moments::of;
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
        let mut targets = Targets::Classes(BTreeMap::new()).of(&[0.0, 1.0, 1.0, 1.0]);
        assert_eq!(targets.mean(&[1, 0]), 0.25);
        let other = targets.of(&[0.0]);
        targets.merge(&other, &[1]);
        assert_eq!((targets.rows(), targets.mean(&[1, 0])), (5, 0.2));
    }
}
