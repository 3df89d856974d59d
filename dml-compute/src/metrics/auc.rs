//! The area under the ROC curve from counts: how often a positive row scores higher than a negative one, ties counting
//! half (Mann and Whitney 1947; Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve").
//!
//! Scores are sorted into 2^16 levels, finer towards 0 and 1, where good models put them: neighbouring levels differ
//! by a thousandth of the probability (or of its complement), down to 2^-33. Counts per level merge in any order and have
//! a bounded size; scores of one level count as ties.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Levels per halving of the probability, as a power of two.
const FINE_BITS: u32 = 10;

/// How many halvings below 1/2 are told apart.
const HALVINGS: u64 = 32;

/// How many negative and positive rows have a score of each level.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Roc(BTreeMap<u16, [u64; 2]>);

impl Roc {
    /// Counts a row.
    pub(super) fn record(&mut self, score: f64, positive: bool) {
        self.0.entry(level(score)).or_default()[usize::from(positive)] += 1;
    }

    /// Counts the rows that another has counted.
    pub(super) fn add(&mut self, next: Self) {
        for (level, [negatives, positives]) in next.0 {
            let counts = self.0.entry(level).or_default();
            counts[0] += negatives;
            counts[1] += positives;
        }
    }

    /// The area; none unless there are both kinds of rows.
    pub(super) fn area(&self) -> Option<f64> {
        let (mut below, mut positives, mut twice_won) = (0u128, 0u128, 0u128);
        for [n, p] in self.0.values().map(|counts| counts.map(u128::from)) {
            twice_won += p * (2 * below + n);
            below += n;
            positives += p;
        }
        let pairs = below * positives;
        (pairs > 0).then(|| twice_won as f64 / (2.0 * pairs as f64))
    }
}

/// The level of a score in [0, 1]; greater scores never have lower levels.
fn level(score: f64) -> u16 {
    if score < 0.5 || score.is_nan() { lower(score) } else { u16::MAX - lower(1.0 - score) }
}

/// The level of a score of at most 1/2: exponent and first bits of the fraction, as they stand in the float.
fn lower(score: f64) -> u16 {
    let bits = score.max(0.0).to_bits() >> (52 - FINE_BITS);
    let least = (1023 - 1 - HALVINGS) << FINE_BITS;
    bits.saturating_sub(least).min((1 << 15) - 1) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn levels_keep_the_order(a in 0.0..=1.0f64, b in 0.0..=1.0f64, shrink in 0i32..40) {
            let (a, b) = (a * 0.5f64.powi(shrink), b * 0.5f64.powi(shrink));
            prop_assert!(a > b || level(a) <= level(b));
            prop_assert!(1.0 - a > 1.0 - b || level(1.0 - a) <= level(1.0 - b));
            prop_assert!((a - b).abs() < 0.002 * a.max(b) || a.max(b) < 1e-9 || level(a) != level(b));
        }

        #[test]
        fn the_area_is_that_of_all_pairs(
            rows in proptest::collection::vec((0u8..=64, any::<bool>()), 1..60),
            cut in 0usize..60,
        ) {
            let (mut roc, mut rest) = (Roc::default(), Roc::default());
            for (i, (score, positive)) in rows.iter().enumerate() {
                let part = if i < cut { &mut roc } else { &mut rest };
                part.record(f64::from(*score) / 64.0, *positive);
            }
            roc.add(rest);
            let (mut won, mut pairs) = (0.0, 0.0);
            for (high, _) in rows.iter().filter(|row| row.1) {
                for (low, _) in rows.iter().filter(|row| !row.1) {
                    pairs += 1.0;
                    won += if high > low { 1.0 } else if high == low { 0.5 } else { 0.0 };
                }
            }
            match roc.area() {
                Some(area) => prop_assert!((area - won / pairs).abs() < 1e-12),
                None => prop_assert!(pairs == 0.0),
            }
        }
    }

    #[test]
    fn the_ends_are_the_ends() {
        assert_eq!(
            [0.0, -1.0, f64::NAN, 0.499_999_999, 0.5, 1.0].map(level),
            [0, 0, 0, 32_767, 32_768, 65_535]
        );
    }
}
