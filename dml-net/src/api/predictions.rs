//! `/v1/predictions`: a model over a whole dataset, as a job.

use axum::{
    Json,
    extract::{Path, State as Extract},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
};
use dml_compute::Model;
use dml_core::{
    Body, ColumnType, Dataset, Digest, Job, JobSpec, Work,
    node::{Request, Response},
    record::Kind,
};

use super::{
    Checked, CheckedQuery, Listed, Paging, ask, check_name,
    evidence::prediction_view,
    find,
    keys::Key,
    models, negotiate,
    range::Download,
    table_body::Form,
    trainings::{Wait, step_ms},
    unexpected,
};
use crate::{
    problem::Problem,
    view::{NewPrediction, PredictionView},
    worker::Worker,
};

pub(super) async fn create(
    Extract(worker): Extract<Worker>,
    key: Key,
    Checked(new): Checked<NewPrediction>,
) -> Result<HttpResponse, Problem> {
    let found = models::resolve(&worker, &new.model).await?;
    let dataset_id = find(&worker, Kind::Dataset, &new.dataset).await?;
    let dataset = worker.shared.dataset(dataset_id).await?;
    // What would fail in every unit is told now.
    let model = models::load(&worker, found.digest).await?;
    check_columns(&model, &dataset)?;
    let name = match &new.name {
        Some(name) => check_name(name)?,
        None => "prediction".into(),
    };
    let work = Work::Predict { model: found.digest, dataset: dataset_id };
    let plan = worker.shared.engine.plan_predict(&dataset);
    let job = Job::new(JobSpec { parent: None, role: "predict".into(), work, plan });
    worker.shared.keys.note(&key, &("prediction", job.spec.id(), &name))?;
    let request = Request::Create { body: Body::Job(job), name: Some(name) };
    let Response::Created { id, .. } = ask(&worker, request).await? else { return Err(unexpected()) };
    let (view, _) = fetch(&worker, id, 0, 0).await?;
    let location = format!("/v1/predictions/{id}");
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// The dataset has every column that the model wants, and text only where the model learned from text.
fn check_columns(model: &Model, dataset: &Dataset) -> Result<(), Problem> {
    let missing: Vec<&str> = model
        .features
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| dataset.column(name).is_none())
        .collect();
    if let [first, ..] = missing.as_slice() {
        let detail = format!("the table lacks columns that the model learned from: {}", missing.join(", "));
        return Err(Problem::unprocessable("missing-column", detail).at(None, Some(first)));
    }
    for (name, learned) in &model.features {
        let Some(column) = dataset.column(name) else { continue };
        let blank = column.nulls == dataset.rows;
        if learned.is_numeric() && column.r#type == ColumnType::Text && !blank {
            let detail =
                format!("column '{name}' holds text, and the model learned from numbers: mend the column");
            return Err(Problem::unprocessable("wrong-type", detail).at(None, Some(name)));
        }
    }
    Ok(())
}

async fn fetch(
    worker: &Worker,
    id: Digest,
    seen: u64,
    wait_ms: u64,
) -> Result<(PredictionView, u64), Problem> {
    let (view, version, _) = fetch_job(worker, id, seen, wait_ms).await?;
    Ok((view, version))
}

async fn fetch_job(
    worker: &Worker,
    id: Digest,
    seen: u64,
    wait_ms: u64,
) -> Result<(PredictionView, u64, Job), Problem> {
    let watch = Request::Watch { id, seen, wait_ms };
    let Response::Family { version, entries } = ask(worker, watch).await? else { return Err(unexpected()) };
    let entry = entries.into_iter().next().ok_or_else(unexpected)?;
    let Some(Body::Job(job)) = entry.record.body.clone() else { return Err(unexpected()) };
    Ok((prediction_view(entry).ok_or_else(unexpected)?, version, job))
}

pub(super) async fn list(
    Extract(worker): Extract<Worker>,
    CheckedQuery(paging): CheckedQuery<Paging>,
) -> Result<Listed<PredictionView>, Problem> {
    let request = Request::List { kind: Kind::Prediction, after: paging.after()?, limit: paging.limit()? };
    let Response::Page { entries, next } = ask(&worker, request).await? else { return Err(unexpected()) };
    let items = entries.into_iter().filter_map(prediction_view).collect();
    Listed::new(items, next, &paging)
}

pub(super) async fn show(
    Extract(worker): Extract<Worker>,
    Path(id): Path<String>,
    CheckedQuery(wait): CheckedQuery<Wait>,
) -> Result<Json<PredictionView>, Problem> {
    let id = find(&worker, Kind::Prediction, &id).await?;
    let until = wait.until()?;
    let (mut view, mut version) = fetch(&worker, id, 0, 0).await?;
    loop {
        let left = step_ms(until);
        if view.state.is_final() || left == 0 {
            return Ok(Json(view));
        }
        (view, version) = tokio::select! {
            fetched = fetch(&worker, id, version, left) => fetched?,
            () = worker.stopping() => return Ok(Json(view)),
        };
    }
}

pub(super) async fn delete(
    Extract(worker): Extract<Worker>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = find(&worker, Kind::Prediction, &id).await?;
    ask(&worker, Request::Delete { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The rows predicted so far, in the order of the dataset, up to the first unit that is not done: readable from the
/// first batch on. The header `dml-complete` tells whether that is all.
pub(super) async fn results(
    Extract(worker): Extract<Worker>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<HttpResponse, Problem> {
    let kind = negotiate(&headers, &Form::OFFERS)?;
    let form = Form::of(kind);
    let id = find(&worker, Kind::Prediction, &id).await?;
    let (view, _, job) = fetch_job(&worker, id, 0, 0).await?;
    if let Some(why) = view.error {
        return Err(Problem::conflict("prediction-failed", why));
    }
    let ready: Vec<Digest> =
        (0..view.units).map_while(|unit| job.progress.units.get(&unit).copied()).collect();
    let complete = if ready.len() as u32 == view.units { "true" } else { "false" };
    let head = [
        (header::CONTENT_TYPE, kind.to_string()),
        (HeaderName::from_static("dml-complete"), complete.to_string()),
    ];
    // What is there stays as it is, but more may follow.
    let tag = format!("{id}-{}-{}", ready.len(), form.name());
    Download::new(&tag, head).rows(&headers, worker, ready, form).await
}
