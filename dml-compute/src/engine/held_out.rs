//! Rows that no member of an ensemble learned from: what any subset of its members is measured by, and, for stacking,
//! where their weights come from. They are those that the training keeps from its models; of a large table, those of some
//! chunks, drawn by the table and not by who reads it.

use std::sync::Arc;

use dml_core::{Dataset, Method, Split, job::Problem, rng};
use ndarray::Array1;

use super::{
    Inputs,
    evaluate::{among_all, classes_of, seed, truth_of},
    read_chunk,
};
use crate::{
    ensemble::{alike, combine, stack},
    error::WorkError,
    learner::Scores,
    metrics::{Metrics, Report, Tally},
    model::{self, Model},
    registry::Registry,
};

/// The rows; see the module.
pub struct HeldOut {
    dataset: Arc<Dataset>,
    problem: Problem,
    classes: Vec<String>,
    /// Some chunks, and which rows of each.
    rows: Vec<(usize, Vec<usize>)>,
    truth: Array1<f64>,
    /// Whether a stacked ensemble learns its weights from the row; else it is measured by it.
    learns: Vec<bool>,
}

/// How good some members are together.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// How much each counts.
    pub weights: Vec<f64>,
    /// What was measured.
    pub report: Report,
}

impl HeldOut {
    /// At most so many of the rows that `split` keeps from training. `learned` are the classes that members know.
    pub fn read(
        dataset: Arc<Dataset>,
        problem: Problem,
        split: &Split,
        learned: &[String],
        most: usize,
        inputs: &dyn Inputs,
    ) -> Result<Self, WorkError> {
        let classes = classes_of(&dataset, &problem, learned.to_vec());
        let (order, halves) = (seed(&problem, "held-out"), seed(&problem, "stacking"));
        let mut chunks: Vec<usize> = (0..dataset.chunks.len()).collect();
        chunks.sort_by_key(|chunk| rng::draw(order, *chunk as u64));
        let (mut rows, mut truth, mut learns) = (Vec::new(), Vec::new(), Vec::new());
        for chunk in chunks {
            let batch = read_chunk(&dataset, chunk, inputs)?;
            let all = truth_of(&dataset, &problem, &classes, &batch)?;
            let number = |row: usize| dataset.first_row(chunk) + row as u64;
            let is_held = |row: &usize| !all[*row].is_nan() && split.is_test(number(*row));
            let held: Vec<usize> = (0..all.len()).filter(is_held).take(most - truth.len()).collect();
            truth.extend(held.iter().map(|row| all[*row]));
            learns.extend(held.iter().map(|row| rng::draw(halves, number(*row)) >> 63 == 0));
            rows.push((chunk, held));
            if truth.len() >= most {
                break;
            }
        }
        Ok(Self { dataset, problem, classes, rows, truth: Array1::from_vec(truth), learns })
    }

    /// What a member says of the rows.
    pub fn scores(
        &self,
        registry: &Registry,
        member: &Model,
        inputs: &dyn Inputs,
    ) -> Result<Scores, WorkError> {
        let predictor = member.predictor(registry)?;
        let parts = self.rows.iter().map(|(chunk, rows)| {
            let batch = read_chunk(&self.dataset, *chunk, inputs)?;
            let scores = predictor.scores_of(&member.pipeline.encode_rows(&batch, rows)?)?;
            Ok(among_all(scores, &member.classes, &self.classes))
        });
        let parts = parts.collect::<Result<Vec<_>, WorkError>>()?;
        Ok(model::join(self.problem.task, self.classes.len(), parts))
    }

    /// How much these members count, and how good they are together, given what each says of the rows. A stacked
    /// ensemble learns the weights from about half of the rows and is measured by the other half, the others are
    /// measured by all; none if members are not about these rows.
    pub fn judge(&self, method: Method, members: &[&Scores]) -> Option<Judged> {
        let stacked = method == Method::Stacking;
        let weights =
            if stacked { stack(members, &self.truth, |row| self.learns[row]) } else { alike(members.len()) };
        let together = combine(method, &weights, members)?;
        let kept = self.truth.iter().zip(&self.learns);
        let truth = kept.map(|(truth, learns)| if stacked && *learns { f64::NAN } else { *truth });
        let truth: Array1<f64> = truth.collect();
        let mut tally = Tally::new(self.problem.task, self.classes.len());
        tally.record(&together, truth.view());
        Some(Judged { weights, report: Metrics::summarise(&[tally.metrics()], &self.classes) })
    }
}
