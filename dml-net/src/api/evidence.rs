//! From records to what users see: the state of trainings, the metrics of models.

use std::{collections::BTreeMap, time::Duration};

use dml_compute::metrics::{Curves, Permutation};
use dml_core::{
    Body, Digest, Job, Training,
    record::Kind,
    training::{ModelStatus, State, state_of},
};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::watched::{Told, Watched};
use crate::{
    problem::Problem,
    view::{NewEnsemble, TrainedView, TrainingView},
    worker::Worker,
};

/// A training with its jobs.
pub(super) struct Family {
    pub(super) id: Digest,
    pub(super) version: u64,
    pub(super) name: Option<String>,
    pub(super) created_ms: u64,
    pub(super) training: Training,
    jobs: BTreeMap<Digest, (Job, u32)>,
}

impl Family {
    fn job(&self, id: &Digest) -> Option<&Job> {
        self.jobs.get(id).map(|(job, _)| job)
    }

    /// How each model stands.
    pub(super) fn statuses(&self) -> Vec<ModelStatus> {
        let models = 0..self.training.spec.models.len();
        models.map(|m| self.training.model_status(m, |id| self.job(id))).collect()
    }

    /// How many of its models are fitted.
    pub(super) fn finished(&self) -> usize {
        self.statuses().iter().filter(|status| status.model.is_some()).count()
    }

    /// Which model of the training has this id.
    pub(super) fn place(&self, model: Digest) -> Option<usize> {
        (0..self.training.spec.models.len()).find(|m| self.training.spec.model_id(self.id, *m) == model)
    }

    /// The bytes of a model, and the report about it.
    pub(super) fn results(&self, place: usize) -> (Option<Digest>, Option<Digest>) {
        let status = self.training.model_status(place, |id| self.job(id));
        (status.model, status.report)
    }

    fn trained(&self, m: usize, name: &str, status: &ModelStatus, report: Option<Report>) -> TrainedView {
        let spec = &self.training.spec;
        let id = spec.model_id(self.id, m);
        let plan = spec.models[m].plan;
        let fit = self.job(&id);
        let finished = fit.is_some_and(Job::is_finished);
        let leased =
            spec.jobs_of(self.id, m).iter().any(|job| self.jobs.get(job).is_some_and(|(_, n)| *n > 0));
        TrainedView {
            id,
            name: name.into(),
            place: m,
            kind: spec.models[m].kind.clone(),
            params: spec.models[m].params.clone(),
            state: if status.state == State::Queued && leased { State::Running } else { status.state },
            progress: f64::from(if status.state == State::Succeeded { 1000 } else { status.permille })
                / 1000.0,
            round: fit.map_or(0, |fit| fit.progress.round),
            rounds: plan.rounds,
            units_done: if finished {
                plan.units
            } else {
                fit.map_or(0, |fit| fit.progress.units.len() as u32)
            },
            units: plan.units,
            metrics: report.map(|report| report.metrics),
            digest: status.model,
            error: status.error.clone(),
        }
    }
}

impl Watched for Family {
    const KIND: Kind = Kind::Training;
    const PAUSE: Duration = Duration::from_millis(50);
    type View = TrainingView;

    fn of(told: Told) -> Option<Self> {
        let Told { id, version, name, created_ms, body, jobs, .. } = told;
        let Body::Training(training) = body else { return None };
        Some(Self { id, version, name, created_ms, training, jobs })
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn state(&self) -> State {
        state_of(&self.statuses())
    }

    async fn view(&self, worker: &Worker) -> Result<TrainingView, Problem> {
        let spec = &self.training.spec;
        let statuses = self.statuses();
        let names = spec.model_names();
        let mut models = Vec::new();
        for (m, status) in statuses.iter().enumerate() {
            let report = match status.report {
                Some(report) => Some(Report::fetch(worker, report).await?),
                None => None,
            };
            let rank = report.as_ref().map_or((f64::NEG_INFINITY, f64::NEG_INFINITY), Report::rank);
            models.push((rank, self.trained(m, &names[m], status, report)));
        }
        // Best first; of equals the one asked for first.
        models.sort_by(|(a, _), (b, _)| b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1)));
        let models: Vec<TrainedView> = models.into_iter().map(|(_, model)| model).collect();
        let done = |model: &&TrainedView| model.state == State::Succeeded;
        let permille: u32 = statuses
            .iter()
            .map(|status| match status.state {
                State::Succeeded | State::Failed => 1000,
                State::Queued | State::Running | State::Cancelled => status.permille,
            })
            .sum::<u32>()
            / statuses.len().max(1) as u32;
        let leased = self.jobs.values().any(|(_, leased)| *leased > 0);
        let state = state_of(&statuses);
        let state = if state == State::Queued && leased { State::Running } else { state };
        Ok(TrainingView {
            id: self.id,
            name: self.name.clone(),
            state,
            progress: f64::from(permille) / 1000.0,
            task: spec.problem.task,
            dataset: spec.problem.dataset,
            target: spec.problem.target.clone(),
            features: spec.problem.features.clone(),
            validation: spec.validation.into(),
            seed: spec.seed,
            priority: self.training.priority,
            created_ms: self.created_ms,
            best: models.iter().find(done).map(|model| model.id),
            models,
            ensemble: spec.ensemble.map(|ensemble| NewEnsemble {
                method: ensemble.method,
                min_members: Some(ensemble.min_members),
            }),
        })
    }
}

/// What an evaluation found.
pub(super) struct Report {
    pub(super) metrics: Json,
    pub(super) rest: Rest,
}

/// What is told of a model beside its metrics.
#[derive(Default)]
pub(super) struct Rest {
    pub(super) importance: Option<BTreeMap<String, f64>>,
    pub(super) permutation: Option<Permutation>,
    pub(super) curves: Option<Curves>,
}

impl Report {
    pub(super) async fn fetch(worker: &Worker, digest: Digest) -> Result<Self, Problem> {
        let bytes = worker.shared.blob(digest).await?;
        let mut metrics: Json =
            serde_json::from_slice(&bytes).map_err(|error| Problem::internal(error.to_string()))?;
        let rest = Rest {
            importance: taken(&mut metrics, "importance"),
            permutation: taken(&mut metrics, "permutation"),
            curves: taken(&mut metrics, "curves"),
        };
        Ok(Self { metrics, rest })
    }

    /// Greater is better: by accuracy, then by log-loss; by RMSE.
    fn rank(&self) -> (f64, f64) {
        let number = |name: &str| self.metrics.get(name).and_then(Json::as_f64);
        match (number("accuracy"), number("rmse")) {
            (Some(accuracy), _) => (accuracy, -number("log_loss").unwrap_or(f64::INFINITY)),
            (None, Some(rmse)) => (-rmse, 0.0),
            (None, None) => (f64::NEG_INFINITY, f64::NEG_INFINITY),
        }
    }
}

/// Takes a field out of a report, if it is there and can be read.
fn taken<T: DeserializeOwned>(report: &mut Json, field: &str) -> Option<T> {
    serde_json::from_value(report.as_object_mut()?.remove(field)?).ok()
}
