//! `/v1/predictions`: a model over a whole dataset, as a job.

use std::time::Duration;

use axum::{
    extract::{Path, State as Extract},
    http::{HeaderMap, HeaderName, header},
    response::Response as HttpResponse,
};
use dml_compute::Model;
use dml_core::{
    Body, ColumnType, Dataset, Digest, Job, JobSpec, Work,
    node::{Request, Response},
    record::Kind,
    training::State,
};

use super::{
    Checked, CheckedQuery, Listed, Paging, ask, check_name, find,
    keys::Key,
    models, negotiate,
    range::Download,
    table_body::Form,
    unexpected,
    watched::{self, Told, Watched},
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
    watched::created::<Batch>(&worker, id).await
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

/// The job of a prediction.
pub(super) struct Batch {
    version: u64,
    job: Job,
    view: PredictionView,
}

impl Watched for Batch {
    const KIND: Kind = Kind::Prediction;
    const PAUSE: Duration = Duration::from_millis(50);
    type View = PredictionView;

    fn of(told: Told) -> Option<Self> {
        let Body::Job(job) = told.body else { return None };
        let Work::Predict { model, dataset } = job.spec.work else { return None };
        let plan = job.spec.plan;
        let state = match () {
            () if job.progress.is_finished(&plan) => State::Succeeded,
            () if job.failure.is_some() => State::Failed,
            () if told.leased > 0 || !job.progress.units.is_empty() => State::Running,
            () => State::Queued,
        };
        let view = PredictionView {
            id: told.id,
            name: told.name,
            state,
            progress: f64::from(job.progress.permille(&plan)) / 1000.0,
            model,
            dataset,
            units_done: job.progress.units.len() as u32,
            units: plan.units,
            error: job.failure.clone(),
            created_ms: told.created_ms,
        };
        Some(Self { version: told.version, job, view })
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn state(&self) -> State {
        self.view.state
    }

    async fn view(&self, _: &Worker) -> Result<PredictionView, Problem> {
        Ok(self.view.clone())
    }
}

pub(super) async fn list(
    Extract(worker): Extract<Worker>,
    CheckedQuery(paging): CheckedQuery<Paging>,
) -> Result<Listed<PredictionView>, Problem> {
    let request = Request::List { kind: Kind::Prediction, after: paging.after()?, limit: paging.limit()? };
    let Response::Page { entries, next } = ask(&worker, request).await? else { return Err(unexpected()) };
    let items =
        entries.into_iter().filter_map(|entry| Some(Batch::of(Told::new(0, vec![entry])?)?.view)).collect();
    Listed::new(items, next, &paging)
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
    let Batch { view, job, .. } = Batch::fetch(&worker, id, 0, 0).await?;
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
