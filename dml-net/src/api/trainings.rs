//! `/v1/trainings`.

use axum::{extract::State as Extract, response::Response as HttpResponse};
use dml_compute::engine::{check_problem, shape, suggested_task};
use dml_core::{
    Body, Dataset, Digest, EnsembleSpec, Method, ModelSpec, Params, Task, Training, TrainingSpec, Validation,
    job::Problem as Learned,
    node::{Request, Response},
    record::Kind,
};

use super::{Checked, ask, check_name, evidence::Family, find, keys::Key, unexpected, watched};
use crate::{
    problem::Problem,
    view::{NewEnsemble, NewModel, NewTraining, NewValidation},
    worker::Worker,
};

/// How many models one training may have.
pub(super) const MAX_MODELS: usize = 1000;

/// How many may predict together: what each says of held-out rows is kept.
pub(super) const MAX_MEMBERS: usize = 100;

pub(super) async fn create(
    Extract(worker): Extract<Worker>,
    key: Key,
    Checked(new): Checked<NewTraining>,
) -> Result<HttpResponse, Problem> {
    let id = start(&worker, &key, &new).await?;
    watched::created::<Family>(&worker, id).await
}

/// Creates a training; it goes on by itself.
pub(super) async fn start(worker: &Worker, key: &Key, new: &NewTraining) -> Result<Digest, Problem> {
    let dataset_id = find(worker, Kind::Dataset, &new.dataset).await?;
    let dataset = worker.shared.dataset(dataset_id).await?;
    let spec = specify(worker, dataset_id, &dataset, new)?;
    let name = match &new.name {
        Some(name) => check_name(name)?,
        None => default_name(worker, dataset_id, &new.target).await?,
    };
    worker.shared.keys.note(key, &("training", spec.id(), &name))?;
    let training = Training { spec, priority: new.priority.unwrap_or(0), stops: 0 };
    let request = Request::Create { body: Body::Training(training), name: Some(name) };
    let Response::Created { id, .. } = ask(worker, request).await? else { return Err(unexpected()) };
    Ok(id)
}

/// Checks everything that can be known before the work begins, and fixes how the work is cut.
fn specify(
    worker: &Worker,
    id: Digest,
    dataset: &Dataset,
    new: &NewTraining,
) -> Result<TrainingSpec, Problem> {
    let engine = &worker.shared.engine;
    let problem = check(dataset, id, new.task, &new.target, new.features.as_deref())?;
    let task = problem.task;
    let validation = check_validation(new.validation, dataset.rows)?;
    let models = match new.models.as_slice() {
        [] => {
            let kinds = engine.registry().defaults(task).into_iter();
            kinds.map(|kind| NewModel { kind: kind.name.into(), params: Params::default() }).collect()
        }
        models if models.len() > MAX_MODELS => {
            let detail =
                format!("a training has at most {MAX_MODELS} models, not {}: make several", models.len());
            return Err(Problem::unprocessable("too-many-models", detail));
        }
        models => models.to_vec(),
    };
    let shape = shape(dataset, &problem);
    let bagged = new.ensemble.is_some_and(|ensemble| ensemble.method == Method::Bagging);
    let models = models.into_iter().map(|model| {
        let refused =
            |error: dml_compute::registry::KindError| Problem::unprocessable(error.code(), error.to_string());
        let params = engine.registry().check(&model.kind, problem.task, &model.params).map_err(refused)?;
        let plan = engine.plan_fit(&model.kind, &params, &shape).map_err(refused)?;
        Ok(ModelSpec { kind: model.kind, params, plan })
    });
    let models = models.collect::<Result<Vec<_>, Problem>>()?;
    // Of a bagged ensemble each model learns from rows of its own.
    let twice = |(m, model): &(usize, &ModelSpec)| !bagged && models[..*m].contains(model);
    if let Some(twice) = models.iter().enumerate().find(twice) {
        let detail = format!("{} stands there twice with the same parameters: once is enough", twice.1.kind);
        return Err(Problem::unprocessable("model-twice", detail));
    }
    let ensemble = check_ensemble(new.ensemble, validation, models.len())?;
    Ok(TrainingSpec {
        problem,
        models,
        validation,
        seed: new.seed.unwrap_or(0),
        prepare: engine.plan_prepare(dataset),
        evaluate: engine.plan_evaluate(dataset),
        ensemble,
    })
}

/// The task that is meant: what was said, or what the target's type suggests.
pub(super) fn task_of(dataset: &Dataset, task: Option<Task>, target: &str) -> Task {
    let column = dataset.column(target);
    task.unwrap_or_else(|| column.map_or(Task::Regression, |column| suggested_task(column.r#type)))
}

/// What is to be learned, if the columns' statistics allow it.
pub(super) fn check(
    dataset: &Dataset,
    id: Digest,
    task: Option<Task>,
    target: &str,
    features: Option<&[String]>,
) -> Result<Learned, Problem> {
    let task = task_of(dataset, task, target);
    let problem = check_problem(dataset, task, target, features).map_err(|error| {
        Problem::unprocessable(error.code(), error.to_string()).at(None, Some(error.column()))
    })?;
    Ok(Learned { dataset: id, ..problem })
}

pub(super) fn check_validation(wanted: Option<NewValidation>, rows: u64) -> Result<Validation, Problem> {
    match wanted.unwrap_or(NewValidation::Holdout(0.2)) {
        NewValidation::Holdout(fraction) if fraction > 0.0 && fraction <= 0.9 => {
            Ok(Validation::Holdout(fraction))
        }
        NewValidation::Holdout(fraction) => {
            let detail = format!("holdout is a part of the rows, above 0 and up to 0.9, not {fraction}");
            Err(Problem::unprocessable("bad-holdout", detail))
        }
        NewValidation::Folds(folds) if (2..=100).contains(&folds) && u64::from(folds) <= rows => {
            Ok(Validation::Folds(folds))
        }
        NewValidation::Folds(folds) => {
            let detail = format!("folds are from 2 to 100 and at most one a row, not {folds}");
            Err(Problem::unprocessable("bad-folds", detail))
        }
    }
}

/// An ensemble is judged by rows that none of its members has seen: those of a hold-out.
fn check_ensemble(
    wanted: Option<NewEnsemble>,
    validation: Validation,
    members: usize,
) -> Result<Option<EnsembleSpec>, Problem> {
    let Some(NewEnsemble { method, min_members }) = wanted else { return Ok(None) };
    let wrong = |detail: String| Err(Problem::unprocessable("bad-ensemble", detail));
    let min_members = min_members.unwrap_or(1);
    match validation {
        Validation::Folds(_) => wrong(
            "with folds no rows are left by which the members could be judged together: say holdout instead"
                .into(),
        ),
        Validation::Holdout(_) if !(2..=MAX_MEMBERS).contains(&members) => {
            wrong(format!("an ensemble has from 2 to {MAX_MEMBERS} models, not {members}"))
        }
        Validation::Holdout(_) if min_members == 0 || min_members as usize > members => {
            wrong(format!("min_members is from 1 to {members}, the number of members, not {min_members}"))
        }
        Validation::Holdout(_) => Ok(Some(EnsembleSpec { method, min_members })),
    }
}

pub(super) async fn default_name(worker: &Worker, dataset: Digest, target: &str) -> Result<String, Problem> {
    let watch = Request::Watch { id: dataset, seen: 0, wait_ms: 0 };
    let Response::Family { entries, .. } = ask(worker, watch).await? else { return Err(unexpected()) };
    let table = entries.first().and_then(|entry| entry.record.names.latest()).unwrap_or("training");
    let plain: String =
        format!("{table}-{target}").chars().filter(|c| c.is_alphanumeric() || "-_.".contains(*c)).collect();
    check_name(&plain.chars().take(100).collect::<String>()).or_else(|_| Ok("training".into()))
}
