//! `/v1/trainings`.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    body::{Body as HttpBody, Bytes},
    extract::{Path, State as Extract},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
};
use dml_compute::engine::{check_problem, shape, suggested_task};
use dml_core::{
    Body, Dataset, Digest, ModelSpec, Params, Task, Training, TrainingSpec, Validation,
    job::Problem as Learned,
    node::{Request, Response},
    record::Kind,
};
use futures_util::{StreamExt, stream};
use serde::Deserialize;

use super::{
    Checked, CheckedQuery, Listed, Paging, TOGETHER, ask, check_name, evidence::Family, find, keys::Key,
    parse_wait, unexpected,
};
use crate::{
    problem::Problem,
    view::{NewModel, NewTraining, NewValidation, TrainingView},
    worker::Worker,
};

/// How many models one training may have.
const MAX_MODELS: usize = 1000;

pub(super) async fn create(
    Extract(worker): Extract<Worker>,
    key: Key,
    Checked(new): Checked<NewTraining>,
) -> Result<HttpResponse, Problem> {
    let dataset_id = find(&worker, Kind::Dataset, &new.dataset).await?;
    let dataset = worker.shared.dataset(dataset_id).await?;
    let spec = specify(&worker, dataset_id, &dataset, &new)?;
    let name = match &new.name {
        Some(name) => check_name(name)?,
        None => default_name(&worker, dataset_id, &new.target).await?,
    };
    worker.shared.keys.note(&key, &("training", spec.id(), &name))?;
    let training = Training { spec, priority: new.priority.unwrap_or(0), stops: 0 };
    let request = Request::Create { body: Body::Training(training), name: Some(name) };
    let Response::Created { id, .. } = ask(&worker, request).await? else { return Err(unexpected()) };
    let view = Family::fetch(&worker, id, 0, 0).await?.view(&worker).await?;
    let location = format!("/v1/trainings/{id}");
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// Checks everything that can be known before the work begins, and fixes how the work is cut.
fn specify(
    worker: &Worker,
    id: Digest,
    dataset: &Dataset,
    new: &NewTraining,
) -> Result<TrainingSpec, Problem> {
    let engine = &worker.shared.engine;
    let column = dataset.column(&new.target);
    let suggested = column.map_or(Task::Regression, |column| suggested_task(column.r#type));
    let task = new.task.unwrap_or(suggested);
    let problem = check_problem(dataset, task, &new.target, new.features.as_deref()).map_err(|error| {
        Problem::unprocessable(error.code(), error.to_string()).at(None, Some(error.column()))
    })?;
    let problem = Learned { dataset: id, ..problem };
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
    let models = models.into_iter().map(|model| {
        let refused =
            |error: dml_compute::registry::KindError| Problem::unprocessable(error.code(), error.to_string());
        let params = engine.registry().check(&model.kind, problem.task, &model.params).map_err(refused)?;
        let plan = engine.plan_fit(&model.kind, &params, &shape).map_err(refused)?;
        Ok(ModelSpec { kind: model.kind, params, plan })
    });
    let models = models.collect::<Result<Vec<_>, Problem>>()?;
    if let Some(twice) = models.iter().enumerate().find(|(m, model)| models[..*m].contains(model)) {
        let detail = format!("{} stands there twice with the same parameters: once is enough", twice.1.kind);
        return Err(Problem::unprocessable("model-twice", detail));
    }
    Ok(TrainingSpec {
        problem,
        models,
        validation,
        seed: new.seed.unwrap_or(0),
        prepare: engine.plan_prepare(dataset),
        evaluate: engine.plan_evaluate(dataset),
    })
}

fn check_validation(wanted: Option<NewValidation>, rows: u64) -> Result<Validation, Problem> {
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

async fn default_name(worker: &Worker, dataset: Digest, target: &str) -> Result<String, Problem> {
    let watch = Request::Watch { id: dataset, seen: 0, wait_ms: 0 };
    let Response::Family { entries, .. } = ask(worker, watch).await? else { return Err(unexpected()) };
    let table = entries.first().and_then(|entry| entry.record.names.latest()).unwrap_or("training");
    let plain: String =
        format!("{table}-{target}").chars().filter(|c| c.is_alphanumeric() || "-_.".contains(*c)).collect();
    check_name(&plain.chars().take(100).collect::<String>()).or_else(|_| Ok("training".into()))
}

pub(super) async fn list(
    Extract(worker): Extract<Worker>,
    CheckedQuery(paging): CheckedQuery<Paging>,
) -> Result<Listed<TrainingView>, Problem> {
    let request = Request::List { kind: Kind::Training, after: paging.after()?, limit: paging.limit()? };
    let Response::Page { entries, next } = ask(&worker, request).await? else { return Err(unexpected()) };
    let views = stream::iter(entries).map(|entry| {
        let worker = worker.clone();
        async move { Family::fetch(&worker, entry.id, 0, 0).await?.view(&worker).await }
    });
    let mut views = views.buffered(TOGETHER);
    let mut items = Vec::new();
    while let Some(view) = views.next().await {
        match view {
            Ok(view) => items.push(view),
            // Deleted since it was listed.
            Err(problem) if problem.status == 404 => {}
            Err(problem) => return Err(problem),
        }
    }
    Listed::new(items, next, &paging)
}

/// How long to wait for the end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    pub(super) wait: Option<String>,
}

impl Wait {
    /// When the wait is over.
    pub(super) fn until(&self) -> Result<tokio::time::Instant, Problem> {
        let wait = self.wait.as_deref().map(parse_wait).transpose()?.unwrap_or_default();
        Ok(tokio::time::Instant::now() + wait)
    }
}

/// What is left until then, in steps that a db node allows.
pub(super) fn step_ms(until: tokio::time::Instant) -> u64 {
    let left = until.saturating_duration_since(tokio::time::Instant::now());
    left.min(Duration::from_secs(25)).as_millis() as u64
}

pub(super) async fn show(
    Extract(worker): Extract<Worker>,
    Path(id): Path<String>,
    CheckedQuery(wait): CheckedQuery<Wait>,
) -> Result<Json<TrainingView>, Problem> {
    let id = find(&worker, Kind::Training, &id).await?;
    let until = wait.until()?;
    let mut family = Family::fetch(&worker, id, 0, 0).await?;
    loop {
        let view = family.view(&worker).await?;
        let left = step_ms(until);
        if view.state.is_final() || left == 0 {
            return Ok(Json(view));
        }
        family = tokio::select! {
            family = Family::fetch(&worker, id, family.version, left) => family?,
            () = worker.stopping() => return Ok(Json(view)),
        };
    }
}

/// Server-sent events (WHATWG HTML, section 9.2): the training each time that it has moved, until it is over.
pub(super) async fn events(
    Extract(worker): Extract<Worker>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<HttpResponse, Problem> {
    super::negotiate(&headers, &["text/event-stream"])?;
    let id = find(&worker, Kind::Training, &id).await?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(String::from);
    if last.is_some() {
        let now = Family::fetch(&worker, id, 0, 0).await?.view(&worker).await?;
        if now.state.is_final() && last == Some(tell(&now).0) {
            // Nothing will follow: this tells a browser not to ask again.
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
    let events = stream::unfold(Some(Seen { version: 0, last }), move |seen| {
        let worker = worker.clone();
        async move { next_event(&worker, id, seen?).await }
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((kind, HttpBody::from_stream(events)).into_response())
}

/// A training as the data of an event, and their digest as its id: so a client that comes back, to whichever worker, can
/// say what it saw last.
fn tell(view: &TrainingView) -> (String, String) {
    let data = serde_json::to_string(view).expect("views have string keys");
    (Digest::of(data.as_bytes()).to_string(), data)
}

/// What a client has seen.
struct Seen {
    /// The version at the db node; 0 for none.
    version: u64,
    /// The id of the last event, of this connection or the one before.
    last: Option<String>,
}

type Event = (Result<Bytes, Infallible>, Option<Seen>);

/// The next event, and what was seen with it; none when it is the last.
async fn next_event(worker: &Worker, id: Digest, seen: Seen) -> Option<Event> {
    // So that a crowd of small steps makes few events.
    if seen.version > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let fetched = tokio::select! {
        fetched = Family::fetch(worker, id, seen.version, 15_000) => fetched,
        // The client asks again, another worker.
        () = worker.stopping() => return None,
    };
    // A comment keeps the connection.
    let nothing_new = |seen| Some((Ok(Bytes::from_static(b": \n\n")), Some(seen)));
    let view = match fetched {
        Ok(family) if family.version == seen.version => return nothing_new(seen),
        Ok(family) => family.view(worker).await.map(|view| (family.version, view)),
        Err(problem) => Err(problem),
    };
    let (event, next) = match view {
        Ok((version, view)) => {
            let (digest, data) = tell(&view);
            let over = view.state.is_final();
            if !over && seen.last.as_ref() == Some(&digest) {
                return nothing_new(Seen { version, ..seen });
            }
            let event = format!("id: {digest}\nevent: training\ndata: {data}\n\n");
            (event, (!over).then_some(Seen { version, last: Some(digest) }))
        }
        Err(problem) => {
            let data = serde_json::to_string(&problem).expect("problems have string keys");
            (format!("event: problem\ndata: {data}\n\n"), None)
        }
    };
    Some((Ok(event.into()), next))
}

pub(super) async fn cancel(
    Extract(worker): Extract<Worker>,
    Path(id): Path<String>,
) -> Result<Json<TrainingView>, Problem> {
    let id = find(&worker, Kind::Training, &id).await?;
    ask(&worker, Request::Cancel { id }).await?;
    Ok(Json(Family::fetch(&worker, id, 0, 0).await?.view(&worker).await?))
}

pub(super) async fn delete(
    Extract(worker): Extract<Worker>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = find(&worker, Kind::Training, &id).await?;
    ask(&worker, Request::Delete { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}
