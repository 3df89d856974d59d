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

/// Points of a curve are so far apart, along both axes together, that a picture shows no corner cut.
const APART: f64 = 0.01;

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

    /// The variance of the area, were it measured on other rows (DeLong, DeLong and Clarke-Pearson 1988, "Comparing the
    /// areas under two or more correlated receiver operating characteristic curves"); none unless there are two rows of
    /// both kinds.
    pub(super) fn variance(&self) -> Option<f64> {
        let area = self.area()?;
        let [negatives, positives] = self.rows().map(|rows| rows as f64);
        let (mut below, mut above) = (0.0, positives);
        let (mut of_positives, mut of_negatives) = (0.0, 0.0);
        for [n, p] in self.0.values().map(|counts| counts.map(|rows| rows as f64)) {
            above -= p;
            let beaten = (below + n / 2.0) / negatives - area;
            let beating = (above + p / 2.0) / positives - area;
            of_positives += p * beaten * beaten;
            of_negatives += n * beating * beating;
            below += n;
        }
        let mean = |sum: f64, rows: f64| sum / (rows * (rows - 1.0));
        (negatives > 1.0 && positives > 1.0)
            .then(|| mean(of_positives, positives) + mean(of_negatives, negatives))
    }

    /// Points of the curve from (0, 0) to (1, 1): rates of false and of true positives at falling thresholds. Those that
    /// are close to the one before are left out, and four decimals are kept. Nothing unless there are both kinds of rows.
    pub(super) fn points(&self) -> Vec<[f64; 2]> {
        let [negatives, positives] = self.rows();
        if negatives == 0 || positives == 0 {
            return Vec::new();
        }
        let short = |part: u64, whole: u64| (part as f64 / whole as f64 * 1e4).round() / 1e4;
        let mut points = vec![[0.0, 0.0]];
        let (mut last, mut before) = ([0.0, 0.0], None);
        let (mut n, mut p) = (0, 0);
        for counts in self.0.values().rev() {
            n += counts[0];
            p += counts[1];
            let point = [short(n, negatives), short(p, positives)];
            if point[0] - last[0] + point[1] - last[1] >= APART {
                // The end of a run of close points is kept too: no chord is longer than the step that it cuts.
                points.extend(before.take());
                points.push(point);
                last = point;
            } else {
                before = Some(point);
            }
        }
        if last != [1.0, 1.0] {
            points.push([1.0, 1.0]);
        }
        points
    }

    /// How many negative and positive rows there are.
    fn rows(&self) -> [u64; 2] {
        self.0.values().fold([0, 0], |sum, counts| [sum[0] + counts[0], sum[1] + counts[1]])
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
                Some(area) => {
                    prop_assert!((area - won / pairs).abs() < 1e-12);
                    let [negatives, positives] = roc.rows();
                    prop_assert_eq!(roc.variance().is_some(), negatives > 1 && positives > 1);
                    prop_assert!(roc.variance().is_none_or(|variance| (0.0..=0.5).contains(&variance)));
                }
                None => prop_assert!(pairs == 0.0),
            }
        }
    }

    #[test]
    fn a_thinned_curve_has_the_same_area() {
        let mut roc = Roc::default();
        assert!(roc.points().is_empty());
        for row in 0..20_000 {
            let score = dml_core::rng::unit(1, row);
            roc.record(score, dml_core::rng::unit(2, row) < score * score);
        }
        let points = roc.points();
        assert!((100..500).contains(&points.len()), "{}", points.len());
        assert_eq!((points[0], points[points.len() - 1]), ([0.0, 0.0], [1.0, 1.0]));
        assert!(points.windows(2).all(|pair| pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1]));
        let area: f64 = points.windows(2).map(|p| (p[1][0] - p[0][0]) * (p[1][1] + p[0][1]) / 2.0).sum();
        assert!((area - roc.area().unwrap()).abs() < 2e-4, "{area}");
    }

    #[test]
    fn the_ends_are_the_ends() {
        assert_eq!(
            [0.0, -1.0, f64::NAN, 0.499_999_999, 0.5, 1.0].map(level),
            [0, 0, 0, 32_767, 32_768, 65_535]
        );
    }
}
