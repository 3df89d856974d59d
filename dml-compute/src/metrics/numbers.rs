//! The tally of a regression: how far predictions are from the truth, and how much the truth varies.

use serde::{Deserialize, Serialize};

use super::{Metrics, interval};

/// Count, errors, and mean and squared deviations of the target (Welford 1962; brought together as Chan, Golub and
/// LeVeque 1983 do). Higher powers tell how far the metrics may be off (Pébay 2008, "Formulas for robust, one-pass
/// parallel computation of covariances and arbitrary-order statistical moments").
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NumberTally {
    rows: u64,
    absolute: f64,
    squared: f64,
    mean: f64,
    deviations: f64,
    cubes: f64,
    fourths: f64,
    /// The fourth powers of the errors.
    errors_fourth: f64,
    /// The squared errors, each times the deviation of the target.
    squared_by_deviation: f64,
    /// The squared errors, each times the squared deviation.
    squared_by_squared: f64,
}

impl NumberTally {
    /// Takes a prediction and the truth.
    pub(super) fn record(&mut self, value: f64, truth: f64) {
        if !truth.is_finite() {
            return;
        }
        let error = value - truth;
        self.add(Self {
            rows: 1,
            absolute: error.abs(),
            squared: error * error,
            mean: truth,
            errors_fourth: error * error * error * error,
            ..Self::default()
        });
    }

    pub(super) fn add(&mut self, next: Self) {
        if next.rows == 0 {
            return;
        }
        let (n, m) = (self.rows as f64, next.rows as f64);
        let delta = next.mean - self.mean;
        let mean = self.mean + delta * (m / (n + m));
        let deviations = self.deviations + (next.deviations + delta * delta * (n * (m / (n + m))));
        let (mine, next) = (self.about(mean), next.about(mean));
        *self = Self {
            rows: mine.rows + next.rows,
            absolute: mine.absolute + next.absolute,
            squared: mine.squared + next.squared,
            mean,
            deviations,
            cubes: mine.cubes + next.cubes,
            fourths: mine.fourths + next.fourths,
            errors_fourth: mine.errors_fourth + next.errors_fourth,
            squared_by_deviation: mine.squared_by_deviation + next.squared_by_deviation,
            squared_by_squared: mine.squared_by_squared + next.squared_by_squared,
        };
    }

    /// The same rows, their higher powers taken about another value than their mean.
    fn about(&self, other: f64) -> Self {
        let (n, g) = (self.rows as f64, self.mean - other);
        Self {
            cubes: self.cubes + g * (3.0 * self.deviations + n * g * g),
            fourths: self.fourths + g * (4.0 * self.cubes + g * (6.0 * self.deviations + n * g * g)),
            squared_by_deviation: self.squared_by_deviation + g * self.squared,
            squared_by_squared: self.squared_by_squared
                + g * (2.0 * self.squared_by_deviation + g * self.squared),
            ..self.clone()
        }
    }

    pub(super) fn metrics(&self) -> Metrics {
        let mut metrics = Metrics { rows: self.rows, ..Metrics::default() };
        let n = self.rows as f64;
        let (mse, mae) = (self.squared / n, self.absolute / n);
        metrics.set("rmse", mse.sqrt());
        let variance = (self.errors_fourth / n - mse * mse) / (4.0 * mse * (n - 1.0));
        metrics.set_interval("rmse", interval::normal("rmse", mse.sqrt(), variance));
        metrics.set("mae", mae);
        metrics.set_interval("mae", interval::normal("mae", mae, (mse - mae * mae) / (n - 1.0)));
        // A target that varies by rounding errors alone is constant.
        let noise = 1e-12 * self.mean.abs();
        if self.deviations > n * noise * noise {
            let left = self.squared / self.deviations;
            metrics.set("r2", 1.0 - left);
            let spread = self.errors_fourth + left * (left * self.fourths - 2.0 * self.squared_by_squared);
            let variance = spread / (self.deviations * self.deviations) * (n / (n - 1.0));
            metrics.set_interval("r2", interval::normal("r2", 1.0 - left, variance));
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(rows: &[(f64, f64)]) -> NumberTally {
        let mut tally = NumberTally::default();
        rows.iter().for_each(|(value, truth)| tally.record(*value, *truth));
        tally
    }

    proptest! {
        #[test]
        fn metrics_are_those_of_the_definitions_for_any_cut(
            rows in proptest::collection::vec((-50.0..50.0f64, -50.0..50.0f64), 2..50),
            offset in prop_oneof![Just(0.0), Just(1e6)],
            cut in 0usize..50,
        ) {
            let rows: Vec<(f64, f64)> = rows.into_iter().map(|(v, t)| (v + offset, t + offset)).collect();
            let (left, right) = rows.split_at(cut.min(rows.len()));
            let mut sum = tally(left);
            sum.add(tally(right));
            let n = rows.len() as f64;
            let mean = rows.iter().map(|r| r.1).sum::<f64>() / n;
            let squared = rows.iter().map(|(v, t)| (v - t) * (v - t)).sum::<f64>();
            let varied = rows.iter().map(|(_, t)| (t - mean) * (t - mean)).sum::<f64>();
            let mae = rows.iter().map(|(v, t)| (v - t).abs()).sum::<f64>() / n;
            for metrics in [sum.metrics(), tally(&rows).metrics()] {
                prop_assert!((metrics.get("rmse").unwrap() - (squared / n).sqrt()).abs() < 1e-7);
                prop_assert!((metrics.get("mae").unwrap() - mae).abs() < 1e-7);
                let r2 = 1.0 - squared / varied;
                prop_assert!((metrics.get("r2").unwrap() - r2).abs() < 1e-6 * (1.0 + r2.abs()));
            }
        }
    }

    #[test]
    fn what_is_not_defined_is_left_out() {
        assert_eq!(tally(&[]).metrics(), Metrics::default());
        let constant = tally(&[(1.0, 0.1), (0.0, 0.1), (0.5, 0.1)]).metrics();
        assert!(constant.get("r2").is_none() && constant.get("rmse").is_some());
        assert!(tally(&[(f64::NAN, 1.0), (1e300, 2.0)]).metrics().values.is_empty());
        assert_eq!(tally(&[(1.0, f64::NAN)]).rows, 0);
    }
}
