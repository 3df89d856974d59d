//! Between which bounds a metric lies with a confidence of 95 %: what it might have been on other rows of the same kind.
//!
//! | metric | from the rows of one test part |
//! |---|---|
//! | accuracy | the score interval of Wilson (1927), "Probable inference, the law of succession, and statistical inference" |
//! | balanced accuracy | Wilson's intervals of the recalls, brought together as Zou and Donner (2008, "Construction of confidence limits about effect measures") do |
//! | macro F1 | the delta method on the shares of the confusion matrix (Takahashi et al. 2022) |
//! | log-loss, MAE | the normal approximation of a mean |
//! | RMSE, R² | the delta method on mean squares |
//! | ROC AUC | DeLong, DeLong and Clarke-Pearson (1988); of several classes the mean of their standard errors, which is never less than the standard error of the mean |
//!
//! With several folds, accuracy has Wilson's interval for the rows of all folds, and every other metric that of its mean
//! over the folds by Student's t, the variance corrected for training parts that overlap (Nadeau and Bengio 2003,
//! "Inference for the generalization error").
//!
//! Where the rows show no variance at all (every score perfect), these approximations would promise certainty: such a
//! metric has no interval. That of accuracy always has a width.

/// The 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// The least and the greatest that a metric may be with 95 % confidence.
pub(super) type Interval = [f64; 2];

/// Of a share that was seen among so many rows.
pub(super) fn wilson(share: f64, rows: f64) -> Interval {
    let z2 = Z * Z / rows;
    let centre = (share + z2 / 2.0) / (1.0 + z2);
    let half = Z / (1.0 + z2) * (share * (1.0 - share) / rows + z2 / (4.0 * rows)).sqrt();
    // At 0 and 1 a bound is the share itself, but for rounding.
    [(centre - half).clamp(0.0, share), (centre + half).clamp(share, 1.0)]
}

/// Of the mean of independent shares, each seen among so many rows.
pub(super) fn of_shares(shares: &[(f64, f64)]) -> Option<Interval> {
    let n = shares.len() as f64;
    let (mut mean, mut below, mut above) = (0.0, 0.0, 0.0);
    for (share, rows) in shares {
        let [low, high] = wilson(*share, *rows);
        mean += share / n;
        below += (share - low) * (share - low) / (n * n);
        above += (high - share) * (high - share) / (n * n);
    }
    (!shares.is_empty()).then(|| [(mean - below.sqrt()).max(0.0), (mean + above.sqrt()).min(1.0)])
}

/// Of an estimate that is about normal, with that variance; none without variance.
pub(super) fn normal(name: &str, value: f64, variance: f64) -> Option<Interval> {
    around(name, value, Z, variance)
}

/// Of the mean of a metric over the folds of a cross-validation.
pub(super) fn of_folds(name: &str, folds: &[f64]) -> Option<Interval> {
    let n = folds.len() as f64;
    if folds.len() < 2 {
        return None;
    }
    let mean = folds.iter().sum::<f64>() / n;
    let variance = folds.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0);
    // A test part is 1/(n-1) of the rows that were learned from.
    around(name, mean, student(n - 1.0), variance * (1.0 / n + 1.0 / (n - 1.0)))
}

fn around(name: &str, value: f64, quantile: f64, variance: f64) -> Option<Interval> {
    let half = quantile * variance.sqrt();
    let (least, greatest) = match name {
        "log_loss" | "rmse" | "mae" => (0.0, f64::INFINITY),
        "r2" => (f64::NEG_INFINITY, 1.0),
        _ => (0.0, 1.0),
    };
    (variance > 0.0 && half.is_finite()).then(|| [(value - half).max(least), (value + half).min(greatest)])
}

/// The 97.5 % quantile of Student's t: from a table, and from five degrees of freedom on by the expansion 26.7.5 of
/// Abramowitz and Stegun (1964).
fn student(freedom: f64) -> f64 {
    const FEW: [f64; 4] = [12.706_204_736, 4.302_652_730, 3.182_446_305, 2.776_445_105];
    if let Some(quantile) = FEW.get(freedom as usize - 1) {
        return *quantile;
    }
    let z2 = Z * Z;
    let terms = [
        (z2 + 1.0) / 4.0,
        ((5.0 * z2 + 16.0) * z2 + 3.0) / 96.0,
        (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) / 384.0,
        ((((79.0 * z2 + 776.0) * z2 + 1482.0) * z2 - 1920.0) * z2 - 945.0) / 92_160.0,
    ];
    Z * (1.0 + terms.iter().rev().fold(0.0, |sum, term| (sum + term) / freedom))
}

#[cfg(test)]
mod tests {
    use dml_core::{Task, rng};
    use ndarray::{Array1, Array2};

    use super::*;
    use crate::{learner::Scores, metrics::Tally};

    #[test]
    fn quantiles_and_bounds_are_those_of_the_tables() {
        for (freedom, quantile) in [(1.0, 12.706), (4.0, 2.776), (5.0, 2.571), (9.0, 2.262), (30.0, 2.042)] {
            assert!((student(freedom) - quantile).abs() < 1e-3, "{freedom}: {}", student(freedom));
        }
        // Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I.
        for (hits, rows, low, high) in
            [(81.0, 263.0, 0.2553, 0.3662), (15.0, 148.0, 0.0624, 0.1605), (0.0, 20.0, 0.0, 0.1611)]
        {
            let [l, h] = wilson(hits / rows, rows);
            assert!((l - low).abs() < 5e-5 && (h - high).abs() < 5e-5, "{l} {h}");
        }
        assert_eq!(wilson(1.0, 29.0)[1], 1.0);
    }

    #[test]
    fn folds_are_wider_than_if_they_were_independent() {
        let [low, high] = of_folds("r2", &[0.6, 0.7, 0.65, 0.62, 0.68]).unwrap();
        let (variance, t) = (0.00170_f64, 2.776);
        let half = t * (variance * (0.2 + 0.25)).sqrt();
        assert!((low - (0.65 - half)).abs() < 1e-4 && (high - (0.65 + half)).abs() < 1e-4, "{low} {high}");
        assert_eq!(of_folds("r2", &[0.5, 0.5]), None);
        assert_eq!(of_folds("r2", &[0.5]), None);
        assert_eq!(of_folds("accuracy", &[0.5, 1.0]).unwrap(), [0.0, 1.0]);
    }

    const TRIALS: u64 = 400;
    const ROWS: u64 = 200;

    /// How often the intervals of many samples hold the true value of each metric.
    fn covered(task: Task, truth: &[(&str, f64)], sample: impl Fn(u64) -> (Scores, Array1<f64>)) {
        let mut hits = vec![0; truth.len()];
        for trial in 0..TRIALS {
            let (scores, target) = sample(rng::draw(8, trial));
            let mut tally = Tally::new(task, 2);
            tally.record(&scores, target.view());
            let metrics = tally.metrics();
            for ((name, value), hits) in truth.iter().zip(&mut hits) {
                let [low, high] = metrics.interval[*name];
                assert!(low < metrics.values[*name] && metrics.values[*name] < high);
                *hits += u64::from(low <= *value && *value <= high);
            }
        }
        for ((name, _), hits) in truth.iter().zip(hits) {
            let share = hits as f64 / TRIALS as f64;
            assert!((0.92..0.98).contains(&share), "{name}: {share}");
        }
    }

    /// A class is drawn with the probability that is told for it, which is even in [0, 1].
    #[test]
    fn true_values_of_a_classification_are_covered() {
        let truth = [
            ("accuracy", 0.75),
            ("balanced_accuracy", 0.75),
            ("macro_f1", 0.75),
            ("log_loss", 0.5),
            ("roc_auc", 5.0 / 6.0),
        ];
        covered(Task::Classification, &truth, |seed| {
            let p = Array1::from_shape_fn(ROWS as usize, |i| rng::unit(seed, i as u64));
            let class = |i: usize| f64::from(rng::unit(seed, ROWS + i as u64) < p[i]);
            let target = Array1::from_shape_fn(ROWS as usize, class);
            let both = |(i, c)| if c == 1 { p[i] } else { 1.0 - p[i] };
            (Scores::Probabilities(Array2::from_shape_fn((ROWS as usize, 2), both)), target)
        });
    }

    /// A target that is even in [99, 101], with errors that are even in [-1/2, 1/2].
    #[test]
    fn true_values_of_a_regression_are_covered() {
        let truth = [("rmse", (1.0_f64 / 12.0).sqrt()), ("mae", 0.25), ("r2", 0.75)];
        covered(Task::Regression, &truth, |seed| {
            let target = Array1::from_shape_fn(ROWS as usize, |i| 99.0 + 2.0 * rng::unit(seed, i as u64));
            let error = |i: usize| rng::unit(seed, ROWS + i as u64) - 0.5;
            (Scores::Values(Array1::from_shape_fn(ROWS as usize, |i| target[i] + error(i))), target)
        });
    }
}
