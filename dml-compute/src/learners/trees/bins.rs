//! Where each feature is cut into bins.
//!
//! Cut points come from the sample that all workers share, so that they do not depend on how rows were spread. A value
//! `x` is in the bin of the first cut with `x <= cut`; blanks have a bin of their own behind the others.

use ndarray::Array2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The most bins that hold values: with the one for blanks, a bin fits a byte.
pub const MAX_BINS: usize = 255;

/// The cut points of every feature, ascending.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<f64>>", into = "Vec<Vec<f64>>")]
pub struct Bins(Vec<Vec<f64>>);

impl TryFrom<Vec<Vec<f64>>> for Bins {
    type Error = &'static str;

    fn try_from(cuts: Vec<Vec<f64>>) -> Result<Self, Self::Error> {
        let ascending = |cuts: &Vec<f64>| cuts.windows(2).all(|pair| pair[0] < pair[1]);
        if cuts.iter().any(|cuts| cuts.len() >= MAX_BINS || !ascending(cuts)) {
            return Err("cut points are not ascending, or too many");
        }
        Ok(Self(cuts))
    }
}

impl From<Bins> for Vec<Vec<f64>> {
    fn from(bins: Bins) -> Self {
        bins.0
    }
}

impl Bins {
    /// At most `max_bins` bins a feature: between neighbouring values if there are few, else of about equal weight.
    pub fn of(sample: &Array2<f64>, max_bins: usize) -> Self {
        let max_bins = max_bins.clamp(2, MAX_BINS);
        let cuts = (0..sample.ncols()).into_par_iter().map(|feature| {
            let mut values =
                sample.column(feature).iter().copied().filter(|v| !v.is_nan()).collect::<Vec<_>>();
            values.sort_by(f64::total_cmp);
            cuts(&values, max_bins)
        });
        Self(cuts.collect())
    }

    /// How many features there are.
    pub fn width(&self) -> usize {
        self.0.len()
    }

    /// The bin of blanks: one behind the last that holds values.
    pub(crate) fn missing(&self, feature: usize) -> usize {
        self.0[feature].len() + 1
    }

    /// The greatest number of a bin: what `x <= threshold` compares with. The last bin has no end.
    pub(crate) fn threshold(&self, feature: usize, bin: usize) -> f64 {
        self.0[feature].get(bin).copied().unwrap_or(f64::MAX)
    }

    /// The bin of a value; for a threshold, the bin that ends with it.
    pub(crate) fn bin(&self, feature: usize, value: f64) -> u8 {
        if value.is_nan() {
            self.missing(feature) as u8
        } else {
            self.0[feature].partition_point(|&cut| cut < value) as u8
        }
    }

    /// The cuts of a feature, for many values.
    pub(crate) fn cutter(&self, feature: usize) -> Cutter {
        let mut cuts = [f64::INFINITY; 256];
        cuts[..self.0[feature].len()].copy_from_slice(&self.0[feature]);
        Cutter { cuts, missing: self.missing(feature) as u8 }
    }
}

/// The cut points for values in ascending order.
fn cuts(values: &[f64], max_bins: usize) -> Vec<f64> {
    let groups = values.chunk_by(|a, b| a == b).map(|group| (group[0], group.len())).collect::<Vec<_>>();
    let mut cuts = Vec::new();
    // Each bin takes its share of what is left; a value that would fill a bin by more than half of itself starts
    // the next one, so that frequent values get bins of their own.
    let (mut left, mut held) = (values.len(), 0);
    for (i, pair) in groups.windows(2).enumerate() {
        let ((value, count), (next, next_count)) = (pair[0], pair[1]);
        held += count;
        let bins_left = max_bins - cuts.len();
        let values_left = groups.len() - i;
        let share = left / bins_left.max(1);
        if values_left <= bins_left || held + next_count / 2 >= share {
            cuts.push(between(value, next));
            left -= held;
            held = 0;
        }
        if cuts.len() + 1 == max_bins {
            break;
        }
    }
    cuts
}

/// A number `m` with `a <= m < b`, in the middle if there is one.
fn between(a: f64, b: f64) -> f64 {
    let middle = a / 2.0 + b / 2.0;
    if a <= middle && middle < b { middle } else { a }
}

/// The cuts of one feature, for many values one after the other: the search takes eight steps without a branch.
pub(crate) struct Cutter {
    /// Infinite behind the last cut.
    cuts: [f64; 256],
    missing: u8,
}

impl Cutter {
    /// The bin of a value.
    #[inline]
    pub(crate) fn bin(&self, value: f64) -> u8 {
        let mut bin = 0;
        for step in [128, 64, 32, 16, 8, 4, 2, 1] {
            let below = self.cuts[(bin + step - 1) & 255] < value;
            bin += if below { step } else { 0 };
        }
        if value.is_nan() { self.missing } else { bin as u8 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_values_are_cut_in_the_middle() {
        assert_eq!(cuts(&[1.0, 1.0, 2.0, 4.0], 255), [1.5, 3.0]);
        assert_eq!(cuts(&[7.0; 9], 255), [0.0; 0]);
        assert_eq!(cuts(&[], 255), [0.0; 0]);
    }

    #[test]
    fn neighbours_in_the_number_line_are_told_apart() {
        let (a, b) = (1.0, 1.0f64.next_up());
        assert_eq!(cuts(&[a, b], 255), [a]);
        assert_eq!(cuts(&[f64::MIN, f64::MAX], 255), [0.0]);
    }

    #[test]
    fn a_frequent_value_has_its_own_bin() {
        let mut values = (0..1000).map(f64::from).collect::<Vec<_>>();
        values.extend([500.0; 3000]);
        values.sort_by(f64::total_cmp);
        let cuts = cuts(&values, 16);
        assert!(cuts.contains(&499.5) && cuts.contains(&500.5), "{cuts:?}");
        assert!(cuts.len() > 12 && cuts.len() < 16, "{}", cuts.len());
    }

    proptest! {
        #[test]
        fn bins_are_even_and_in_order(mut values in prop::collection::vec(-1e3..1e3f64, 1..2000), max in 2..255usize) {
            values.sort_by(f64::total_cmp);
            let cuts = cuts(&values, max);
            prop_assert!(cuts.len() < max);
            prop_assert!(cuts.windows(2).all(|pair| pair[0] < pair[1]));
            let bins = Bins(vec![cuts]);
            let mut counts = vec![0; max];
            for &value in &values {
                let bin = bins.bin(0, value) as usize;
                counts[bin] += 1;
                prop_assert!(value <= bins.threshold(0, bin));
                prop_assert!(bin == 0 || value > bins.threshold(0, bin - 1));
            }
            let cutter = bins.cutter(0);
            for value in values.iter().copied().chain([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX]) {
                prop_assert_eq!(cutter.bin(value), bins.bin(0, value));
            }
            prop_assert!(counts.iter().all(|&count| count <= values.len().div_ceil(max) + 2), "{:?}", counts);
            prop_assert_eq!(bins.bin(0, f64::NAN) as usize, bins.missing(0));
        }
    }
}
