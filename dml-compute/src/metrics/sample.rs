//! Some predictions with their truth, to be looked at: those of the rows whose numbers are drawn lowest. Any cut of the
//! rows gives the same sample (bottom-k; Cohen and Kaplan 2007, "Summarizing data using bottom-k sketches").

use std::collections::BTreeMap;

use dml_core::rng;
use serde::{Deserialize, Serialize};

/// How many rows are kept: enough to see a shape, few enough to draw.
const SIZE: usize = 500;

/// True and predicted values by what was drawn for their row, and its number.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample(BTreeMap<(u64, u64), [f64; 2]>);

impl Sample {
    /// Takes a row, the truth and the prediction. What is not finite cannot be drawn and is left out.
    pub(crate) fn record(&mut self, seed: u64, row: u64, truth: f64, value: f64) {
        let key = (rng::draw(seed, row), row);
        let low = self.0.len() < SIZE || self.0.last_key_value().is_some_and(|(last, _)| key < *last);
        if low && truth.is_finite() && value.is_finite() {
            self.0.insert(key, [truth, value]);
            self.shrink();
        }
    }

    /// Adds the sample of other rows.
    pub(crate) fn add(&mut self, next: Self) {
        self.0.extend(next.0);
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.0.len() > SIZE {
            self.0.pop_last();
        }
    }

    /// True and predicted values, with as many digits as a picture needs.
    pub(crate) fn points(&self) -> Vec<[f64; 2]> {
        self.0.values().map(|point| point.map(short)).collect()
    }
}

/// Six digits of a number.
fn short(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_cut_of_the_rows_gives_the_same(rows in 1u64..1500, cut in 0u64..1500) {
            let sample = |range: std::ops::Range<u64>| {
                let mut sample = Sample::default();
                range.for_each(|row| sample.record(5, row, row as f64, 0.5));
                sample
            };
            let cut = cut.min(rows);
            let mut back = sample(cut..rows);
            back.add(sample(0..cut));
            prop_assert_eq!(&back, &sample(0..rows));
            prop_assert_eq!(back.points().len() as u64, rows.min(SIZE as u64));
        }
    }

    #[test]
    fn numbers_are_short_and_finite() {
        let mut sample = Sample::default();
        sample.record(0, 0, f64::NAN, 1.0);
        sample.record(0, 1, 1.0, f64::INFINITY);
        sample.record(0, 2, 1.0 / 3.0, -123_456_789.0);
        assert_eq!(sample.points(), [[0.333_333, -123_457_000.0]]);
    }
}
