//! Metrics by name, and what is shown of them: of one test part, or of the folds of a cross-validation together.

use std::{cmp::Ordering, collections::BTreeMap};

use dml_core::Task;
use serde::{Deserialize, Serialize};

use super::interval::{self, Interval};

/// Up to so many classes the confusion matrix is shown.
pub const MAX_CONFUSION: usize = 100;

/// The metric that models of a task are ranked by.
pub fn primary(task: Task) -> &'static str {
    match task {
        Task::Classification => "accuracy",
        Task::Regression => "rmse",
    }
}

/// The metrics that models of a task can be ranked by, the primary one first.
pub fn ranking(task: Task) -> &'static [&'static str] {
    match task {
        Task::Classification => &["accuracy", "balanced_accuracy", "macro_f1", "log_loss", "roc_auc"],
        Task::Regression => &["rmse", "mae", "r2"],
    }
}

/// The metric that tells apart what is equal by this one, if there is one.
pub fn second(metric: &str) -> Option<&'static str> {
    match metric {
        "accuracy" | "balanced_accuracy" | "macro_f1" | "roc_auc" => Some("log_loss"),
        "rmse" | "r2" => Some("mae"),
        _ => None,
    }
}

/// Sorts the better value of a metric first.
pub fn compare(metric: &str, a: f64, b: f64) -> Ordering {
    match metric {
        "rmse" | "mae" | "log_loss" => a.total_cmp(&b),
        _ => b.total_cmp(&a),
    }
}

/// The metrics that a leaderboard shows, with their headings.
pub fn shown(task: Task) -> &'static [(&'static str, &'static str)] {
    match task {
        Task::Classification => &[
            ("accuracy", "accuracy"),
            ("balanced_accuracy", "balanced"),
            ("macro_f1", "macro F1"),
            ("log_loss", "log loss"),
            ("roc_auc", "ROC AUC"),
        ],
        Task::Regression => &[("rmse", "RMSE"), ("mae", "MAE"), ("r2", "R²")],
    }
}

/// The metrics of one test part.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// How many rows they are about.
    pub rows: u64,
    /// Each by its name, all finite; those that are not defined for these rows are left out.
    pub values: BTreeMap<String, f64>,
    /// Between which bounds each lies with a confidence of 95 %, where that can be told.
    pub interval: BTreeMap<String, [f64; 2]>,
    /// Rows by true class and, within, by predicted class.
    pub confusion: Option<Vec<Vec<u64>>>,
}

/// Rows by true class and predicted class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Confusion {
    /// The classes, as the target writes them.
    pub labels: Vec<String>,
    /// A row a true class, a column a predicted one.
    pub matrix: Vec<Vec<u64>>,
}

/// What is told of a model's quality. As JSON a flat object of numbers, with `interval`, `confusion` and
/// `std` where they apply.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// How many rows were predicted, over all folds.
    pub rows: u64,
    /// Each metric by its name; with several folds, its mean over them.
    #[serde(flatten)]
    pub values: BTreeMap<String, f64>,
    /// Between which bounds each metric lies with a confidence of 95 %: `[low, high]`. By Wilson's interval for
    /// accuracy; for the others from the variance of the test rows, or with several folds from the spread over them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub interval: BTreeMap<String, [f64; 2]>,
    /// Over all folds; for classification with at most [`MAX_CONFUSION`] classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confusion: Option<Confusion>,
    /// The population standard deviation of each metric over the folds, when there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<BTreeMap<String, f64>>,
}

impl Metrics {
    /// The metric of that name, if it is defined.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    /// Brings the folds together; one fold stands for itself. The labels are those of the classes, none for
    /// regression. A metric that is not defined in some folds is averaged over the others.
    pub fn summarise(folds: &[Self], labels: &[String]) -> Report {
        let mut by_name: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
        for (name, value) in folds.iter().flat_map(|fold| &fold.values) {
            by_name.entry(name).or_default().push(*value);
        }
        let each = |f: fn(&[f64]) -> f64| by_name.iter().map(|(name, v)| ((*name).clone(), f(v))).collect();
        let rows = folds.iter().map(|fold| fold.rows).sum();
        let interval = |(name, values): (&&String, &Vec<f64>)| {
            let interval = match (folds, name.as_str()) {
                ([fold], name) => fold.interval.get(name).copied(),
                (_, "accuracy") => Some(interval::wilson(mean(values), rows as f64)),
                (_, name) => interval::of_folds(name, values),
            };
            Some(((*name).clone(), interval?))
        };
        Report {
            rows,
            interval: by_name.iter().filter_map(interval).collect(),
            values: each(mean),
            confusion: summed(folds).map(|matrix| Confusion { labels: labels.to_vec(), matrix }),
            std: (folds.len() > 1).then(|| each(deviation)),
        }
    }

    /// Keeps a metric if it is a finite number.
    pub(super) fn set(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.values.insert(name.into(), value);
        }
    }
}

impl Metrics {
    /// Keeps an interval if there is one and its metric is defined.
    pub(super) fn set_interval(&mut self, name: &str, interval: Option<Interval>) {
        if let Some(interval) = interval.filter(|_| self.values.contains_key(name)) {
            self.interval.insert(name.into(), interval);
        }
    }
}

impl Report {
    /// The metric of that name, if it is defined.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    /// The task that it is about, as its metrics show; none if nothing was measured.
    pub fn task(&self) -> Option<Task> {
        [Task::Classification, Task::Regression].into_iter().find(|task| self.get(primary(*task)).is_some())
    }

    /// One number, the higher the better: accuracy, or minus RMSE; minus infinity if nothing was measured.
    pub fn score(&self) -> f64 {
        self.rank_key().0
    }

    /// What models are ranked by, higher is better: accuracy, then log-loss; for regression RMSE, then MAE.
    pub fn rank_key(&self) -> (f64, f64) {
        let minus = |name| self.get(name).map_or(f64::NEG_INFINITY, |v| -v);
        match self.get("accuracy") {
            Some(accuracy) => (accuracy, minus("log_loss")),
            None => (minus("rmse"), minus("mae")),
        }
    }

    /// Sorts the better report first.
    pub fn compare(&self, other: &Self) -> Ordering {
        let (mine, theirs) = (self.rank_key(), other.rank_key());
        theirs.0.total_cmp(&mine.0).then(theirs.1.total_cmp(&mine.1))
    }
}

fn summed(folds: &[Metrics]) -> Option<Vec<Vec<u64>>> {
    let mut matrices = folds.iter().filter_map(|fold| fold.confusion.as_ref());
    let mut sum = matrices.next()?.clone();
    for matrix in matrices {
        let cells = sum.iter_mut().flatten().zip(matrix.iter().flatten());
        cells.for_each(|(a, b)| *a += b);
    }
    Some(sum)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};

    use super::*;
    use crate::{learner::Scores, metrics::Tally};

    fn classified(truth: &[f64], rows: &[[f64; 2]]) -> Metrics {
        let mut tally = Tally::new(Task::Classification, 2);
        let scores = Scores::Probabilities(Array2::from(rows.to_vec()));
        tally.record(&scores, Array1::from_vec(truth.to_vec()).view());
        let bytes = postcard::to_allocvec(&tally).unwrap();
        assert_eq!(postcard::from_bytes::<Tally>(&bytes).unwrap(), tally);
        assert_eq!(serde_json::from_str::<Tally>(&serde_json::to_string(&tally).unwrap()).unwrap(), tally);
        tally.metrics()
    }

    fn labels() -> Vec<String> {
        vec!["no".into(), "yes".into()]
    }

    #[test]
    fn json_is_flat_and_golden() {
        let one = classified(&[0.0, 1.0], &[[1.0, 0.0], [0.5, 0.5]]);
        let report = Metrics::summarise(&[one], &labels());
        let json = serde_json::to_string(&report).unwrap();
        let golden = concat!(
            r#"{"rows":2,"accuracy":0.5,"balanced_accuracy":0.5,"log_loss":0.34657359028005885,"#,
            r#""macro_f1":0.3333333333333333,"roc_auc":1.0,"#,
            r#""interval":{"accuracy":[0.09453120573423074,0.9054687942657693],"#,
            r#""balanced_accuracy":[0.10327465718861872,0.8967253428113813],"#,
            r#""log_loss":[0.0,1.0258453452212657],"macro_f1":[0.0,0.7688808854533453]},"#,
            r#""confusion":{"labels":["no","yes"],"matrix":[[1,0],[1,0]]}}"#
        );
        assert_eq!(json, golden);
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn folds_have_means_and_deviations() {
        let folds = [
            classified(&[0.0, 1.0], &[[1.0, 0.0], [0.0, 1.0]]),
            classified(&[1.0, 1.0], &[[1.0, 0.0], [0.0, 1.0]]),
            Tally::new(Task::Classification, 2).metrics(),
        ];
        let report = Metrics::summarise(&folds, &labels());
        assert_eq!((report.rows, report.get("accuracy"), report.get("roc_auc")), (4, Some(0.75), Some(1.0)));
        assert_eq!(report.std.as_ref().unwrap()["accuracy"], 0.25);
        assert_eq!(report.confusion.as_ref().unwrap().matrix, [[1, 0], [1, 2]]);
        assert_eq!(serde_json::from_str::<Report>(&serde_json::to_string(&report).unwrap()).unwrap(), report);
    }

    #[test]
    fn the_best_is_first() {
        let report = |values: &[(&str, f64)]| Report {
            values: values.iter().map(|(name, v)| ((*name).to_string(), *v)).collect(),
            ..Report::default()
        };
        let ranked = [
            report(&[("accuracy", 0.9), ("log_loss", 0.1)]),
            report(&[("accuracy", 0.9), ("log_loss", 0.2)]),
            report(&[("accuracy", 0.8), ("log_loss", 0.1)]),
            report(&[("rmse", 1.0), ("mae", 0.5)]),
            report(&[("rmse", 2.0), ("mae", 0.1)]),
            report(&[]),
        ];
        let mut shuffled: Vec<Report> = ranked.iter().rev().cloned().collect();
        shuffled.sort_by(Report::compare);
        assert_eq!(shuffled, ranked);
        assert_eq!([&ranked[0], &ranked[3], &ranked[5]].map(Report::score), [0.9, -1.0, f64::NEG_INFINITY]);
        assert_eq!(
            [&ranked[0], &ranked[3]].map(Report::task),
            [Some(Task::Classification), Some(Task::Regression)]
        );
    }
}
