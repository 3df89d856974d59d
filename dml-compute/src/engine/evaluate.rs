//! The quality of a model on the rows that it did not learn from; of a cross-validation's models, each on its own.

use std::{collections::BTreeMap, ops::Range};

use arrow_array::RecordBatch;
use dml_core::{ColumnType, Dataset, Digest, Split, Summary, Task, job::Problem, rng};
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use super::{
    Inputs,
    permute::{Judged, Permuter},
    read_chunk,
};
use crate::{
    error::WorkError,
    learner::Scores,
    metrics::{Curves, LearningTally, Metrics, Permutation, PermutedTally, Report, Sample, Tally},
    model::{Model, Predictor},
    prepare::{Values, order_classes},
    registry::Registry,
};

/// The result of an evaluation, as JSON: the report's fields, `importance`, `permutation` and
/// `curves`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The metrics.
    #[serde(flatten)]
    pub report: Report,
    /// The share of each feature in the predictions, the mean over the models; none if the kind cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub importance: Option<BTreeMap<String, f64>>,
    /// What is lost when a feature's values are dealt out anew among the rows, over all models; none if there are too
    /// many features to try each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permutation: Option<Permutation>,
    /// What pictures are drawn from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curves: Option<Curves>,
}

impl Evaluation {
    /// From an evaluation job's result.
    pub fn from_json(bytes: &[u8]) -> Result<Self, WorkError> {
        let unreadable =
            |error: serde_json::Error| WorkError::Corrupt { what: "a report", why: error.to_string() };
        serde_json::from_slice(bytes).map_err(unreadable)
    }
}

/// What is judged, and by which classes.
pub(super) struct Judge<'a> {
    registry: &'a Registry,
    dataset: &'a Dataset,
    problem: &'a Problem,
    models: Vec<(Model, Split)>,
    classes: Vec<String>,
    permuter: Option<Permuter>,
    inputs: &'a dyn Inputs,
}

/// What a model shows on its test rows.
#[derive(Serialize, Deserialize)]
struct Seen {
    tally: Tally,
    permuted: PermutedTally,
    /// Of a regression.
    sample: Sample,
    learning: LearningTally,
}

/// About how many rows learning curves are drawn from: enough for a smooth line, few enough to cost little.
const LEARNING_ROWS: f64 = 50_000.0;

impl<'a> Judge<'a> {
    pub(super) fn new(
        registry: &'a Registry,
        dataset: &'a Dataset,
        problem: &'a Problem,
        models: &[(Digest, Split)],
        inputs: &'a dyn Inputs,
    ) -> Result<Self, WorkError> {
        let models =
            models.iter().map(|(digest, split)| Ok((Model::from_bytes(&inputs.blob(*digest)?)?, *split)));
        let models = models.collect::<Result<Vec<_>, WorkError>>()?;
        let splits: Vec<Split> = models.iter().map(|(_, split)| *split).collect();
        let permuter = Permuter::new(dataset, seed(problem, "permutation"), problem.features.len(), &splits);
        Ok(Self { permuter, ..Self::of(registry, dataset, problem, models, inputs) })
    }

    /// Judges models that are at hand, by their metrics alone.
    pub(super) fn of(
        registry: &'a Registry,
        dataset: &'a Dataset,
        problem: &'a Problem,
        models: Vec<(Model, Split)>,
        inputs: &'a dyn Inputs,
    ) -> Self {
        let learned = models.iter().flat_map(|(model, _)| model.classes.iter().cloned());
        let classes = classes_of(dataset, problem, learned.collect());
        Self { registry, dataset, problem, models, classes, permuter: None, inputs }
    }

    /// The metrics on all test rows.
    pub(super) fn report(&self) -> Result<Report, WorkError> {
        let predictors = self.models.iter().map(|(model, _)| model.predictor(self.registry));
        let predictors = predictors.collect::<Result<Vec<_>, WorkError>>()?;
        let nothing = Tally::new(self.problem.task, self.classes.len());
        let mut tallies = vec![nothing; self.models.len()];
        for chunk in 0..self.dataset.chunks.len() {
            let batch = read_chunk(self.dataset, chunk, self.inputs)?;
            let truth_of_all = self.truth(&batch)?;
            let first = self.dataset.first_row(chunk);
            for ((predictor, (model, split)), tally) in predictors.iter().zip(&self.models).zip(&mut tallies)
            {
                let rows = test_rows(&truth_of_all, split, first);
                let x = model.pipeline.encode_rows(&batch, &rows)?;
                let scores = self.among_all(predictor.scores_of(&x)?, &model.classes);
                let truth: Array1<f64> = rows.iter().map(|row| truth_of_all[*row]).collect();
                tally.record(&scores, truth.view());
            }
        }
        let metrics: Vec<Metrics> = tallies.iter().map(Tally::metrics).collect();
        Ok(Metrics::summarise(&metrics, &self.classes))
    }

    fn nothing_seen(&self) -> Vec<Seen> {
        let seen = |_| Seen {
            tally: Tally::new(self.problem.task, self.classes.len()),
            permuted: PermutedTally::default(),
            sample: Sample::default(),
            learning: LearningTally::default(),
        };
        self.models.iter().map(seen).collect()
    }

    /// What each model shows on the test rows of some chunks.
    pub(super) fn unit(&self, chunks: Range<usize>) -> Result<Vec<u8>, WorkError> {
        let predictors =
            self.models.iter().map(|(model, split)| Ok((model.predictor(self.registry)?, model, split)));
        let predictors = predictors.collect::<Result<Vec<_>, WorkError>>()?;
        let mut all_seen = self.nothing_seen();
        let sampling = seed(self.problem, "sample");
        for chunk in chunks {
            let batch = read_chunk(self.dataset, chunk, self.inputs)?;
            let first = self.dataset.first_row(chunk);
            let truth_of_all = self.truth(&batch)?;
            for ((predictor, model, split), seen) in predictors.iter().zip(&mut all_seen) {
                let rows = test_rows(&truth_of_all, split, first);
                let x = model.pipeline.encode_rows(&batch, &rows)?;
                let all = |scores| self.among_all(scores, &model.classes);
                let scores = all(predictor.scores_of(&x)?);
                let truth: Array1<f64> = rows.iter().map(|row| truth_of_all[*row]).collect();
                seen.tally.record(&scores, truth.view());
                if let Scores::Values(values) = &scores {
                    for ((row, value), truth) in rows.iter().zip(values).zip(&truth) {
                        seen.sample.record(sampling, first + *row as u64, *truth, *value);
                    }
                }
                if let Some(permuter) = &self.permuter {
                    let rows = rows.iter().map(|row| first + *row as u64).collect();
                    let judged = Judged { rows, x: &x, truth: &truth, scores: &scores };
                    permuter.record((model, predictor), chunk, judged, all, &mut seen.permuted)?;
                }
                self.learn((model, predictor, split), (&batch, first), &truth_of_all, &mut seen.learning)?;
            }
        }
        postcard::to_allocvec(&all_seen).map_err(|error| corrupt(&error.to_string()))
    }

    /// The losses of a model along its way, on some test and training rows of a chunk.
    fn learn(
        &self,
        (model, predictor, split): (&Model, &Predictor, &Split),
        (batch, first): (&RecordBatch, u64),
        truth: &[f64],
        learning: &mut LearningTally,
    ) -> Result<(), WorkError> {
        let share = LEARNING_ROWS / self.dataset.rows as f64;
        let seed = seed(self.problem, "learning");
        for is_test in [true, false] {
            let number = |row: usize| first + row as u64;
            let is_chosen = |row: &usize| {
                let known = !truth[*row].is_nan() && split.is_test(number(*row)) == is_test;
                known && (share >= 1.0 || rng::unit(seed, number(*row)) < share)
            };
            let rows: Vec<usize> = (0..truth.len()).filter(is_chosen).collect();
            let x = model.pipeline.encode_rows(batch, &rows)?;
            let truth: Array1<f64> = rows.iter().map(|row| truth[*row]).collect();
            predictor.staged(&x, &mut |steps, scores| {
                learning.record(steps, is_test, &self.among_all(scores, &model.classes), truth.view());
            });
        }
        Ok(())
    }

    /// The report on all test rows.
    pub(super) fn fold(&self, partials: &[Vec<u8>]) -> Result<Vec<u8>, WorkError> {
        let mut sums = self.nothing_seen();
        for bytes in partials {
            let parts: Vec<Seen> =
                postcard::from_bytes(bytes).map_err(|error| corrupt(&error.to_string()))?;
            if parts.len() != sums.len() {
                return Err(corrupt("it is not about these models"));
            }
            for (sum, part) in sums.iter_mut().zip(parts) {
                sum.tally.add(part.tally);
                sum.permuted.add(part.permuted);
                sum.sample.add(part.sample);
                sum.learning.add(part.learning);
            }
        }
        let metrics: Vec<Metrics> = sums.iter().map(|seen| seen.tally.metrics()).collect();
        let mut folds = sums.into_iter();
        let Some(mut all) = folds.next() else { return Err(corrupt("it is about no model")) };
        for fold in folds {
            all.tally.add(fold.tally);
            all.permuted.add(fold.permuted);
            all.sample.add(fold.sample);
            all.learning.add(fold.learning);
        }
        let curves = Curves {
            roc: all.tally.curves(&self.classes),
            predicted: all.sample.points(),
            learning: all.learning.curve(self.problem.task),
        };
        let evaluation = Evaluation {
            report: Metrics::summarise(&metrics, &self.classes),
            importance: self.importance()?,
            permutation: all.permuted.importance(self.problem.task, &self.problem.features),
            curves: Some(curves).filter(|curves| *curves != Curves::default()),
        };
        serde_json::to_vec(&evaluation).map_err(|error| corrupt(&error.to_string()))
    }

    /// See [`truth_of`].
    fn truth(&self, batch: &RecordBatch) -> Result<Vec<f64>, WorkError> {
        truth_of(self.dataset, self.problem, &self.classes, batch)
    }

    /// See [`among_all`].
    fn among_all(&self, scores: Scores, learned: &[String]) -> Scores {
        among_all(scores, learned, &self.classes)
    }

    fn importance(&self) -> Result<Option<BTreeMap<String, f64>>, WorkError> {
        let each = self.models.iter().map(|(model, _)| Ok(model.predictor(self.registry)?.importance()));
        let Some(each) = each.collect::<Result<Option<Vec<_>>, WorkError>>()? else { return Ok(None) };
        let mut mean = BTreeMap::new();
        for (feature, share) in each.iter().flatten() {
            *mean.entry(feature.clone()).or_insert(0.0) += share / each.len() as f64;
        }
        Ok(Some(mean))
    }
}

/// The rows of a chunk that a model did not learn from and whose truth is known.
fn test_rows(truth: &[f64], split: &Split, first: u64) -> Vec<usize> {
    let is_test = |row: &usize| !truth[*row].is_nan() && split.is_test(first + *row as u64);
    (0..truth.len()).filter(is_test).collect()
}

/// What a choice of rows follows from: the table, and what they are chosen for.
pub(super) fn seed(problem: &Problem, purpose: &str) -> u64 {
    problem.dataset.child(purpose).seed()
}

/// The labels that the dataset's description names: one may stand in test rows alone.
fn listed(dataset: &Dataset, problem: &Problem) -> Vec<String> {
    let Some(column) = dataset.column(&problem.target) else { return Vec::new() };
    let counts = match (&column.summary, column.r#type) {
        (Summary::Categories { top, .. }, _) => top.as_slice(),
        (Summary::Numeric { counts, .. }, ColumnType::Integer) => counts.as_slice(),
        (Summary::Numeric { .. } | Summary::Blank, _) => &[],
    };
    counts.iter().map(|count| count.value.clone()).collect()
}

/// The classes of a problem: those that models learned, and those that the dataset's description names.
pub(super) fn classes_of(dataset: &Dataset, problem: &Problem, learned: Vec<String>) -> Vec<String> {
    match problem.task {
        Task::Regression => Vec::new(),
        Task::Classification => order_classes(learned.into_iter().chain(listed(dataset, problem)).collect()),
    }
}

/// The target of each row: the number or the class's place; NaN where it is blank or a class that is not listed.
pub(super) fn truth_of(
    dataset: &Dataset,
    problem: &Problem,
    classes: &[String],
    batch: &RecordBatch,
) -> Result<Vec<f64>, WorkError> {
    let name = &problem.target;
    let missing = || WorkError::Input(format!("the dataset has no column '{name}'"));
    let target = Values::of(batch, name, dataset.column(name).ok_or_else(missing)?.r#type)?;
    let places: BTreeMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
    let truth = (0..batch.num_rows()).map(|row| match problem.task {
        Task::Regression => target.number(row),
        Task::Classification => {
            target.text(row).and_then(|label| places.get(&*label).copied()).map(f64::from)
        }
    });
    Ok(truth.map(|value| value.unwrap_or(f64::NAN)).collect())
}

/// A model's probabilities with a column for every class, 0 for those that it did not learn.
pub(super) fn among_all(scores: Scores, learned: &[String], classes: &[String]) -> Scores {
    match scores {
        Scores::Probabilities(p) if learned != classes => {
            let mut all = Array2::zeros((p.nrows(), classes.len()));
            for (label, column) in learned.iter().zip(p.columns()) {
                if let Some(place) = classes.iter().position(|class| class == label) {
                    all.column_mut(place).assign(&column);
                }
            }
            Scores::Probabilities(all)
        }
        Scores::Probabilities(_) | Scores::Values(_) => scores,
    }
}

fn corrupt(why: &str) -> WorkError {
    WorkError::Corrupt { what: "a tally of predictions", why: why.into() }
}
