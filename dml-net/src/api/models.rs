//! `/v1/kinds` and `/v1/models`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow_array::RecordBatch;
use axum::{
    Json,
    body::Bytes,
    extract::{Path, Request as HttpRequest, State as Extract},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
};
use dml_compute::{Kind as ModelKind, Model, model::PredictError, onnx::OnnxError, table};
use dml_core::{
    Body, ColumnType, Digest,
    node::{Refusal, Request, Response},
    record::Kind,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    CheckedQuery, Listed, MAX_BODY, Paging, TOGETHER, ask,
    evidence::{Family, Report},
    find,
    inflate::{self, Inflated},
    negotiate,
    range::Download,
    recent::Answer,
    table_body::{ARROW, Form, NDJSON, is_ndjson, media_type},
    unexpected,
    watched::Watched,
};
use crate::{
    problem::Problem,
    view::{FeatureView, ModelView, Page, PredictedRows, RowsToPredict},
    worker::Worker,
};

pub(super) async fn kinds(Extract(worker): Extract<Worker>) -> Json<Page<ModelKind>> {
    Json(Page { items: worker.shared.engine.registry().kinds(), next_cursor: None })
}

/// A finished model and the training that it is of.
pub(crate) struct Found {
    pub(super) id: Digest,
    pub(super) digest: Digest,
    family: Arc<Family>,
    place: usize,
}

/// The model that a text names: itself, or the best of a training.
pub(super) async fn resolve(worker: &Worker, text: &str) -> Result<Arc<Found>, Problem> {
    let turn = match worker.shared.recent.meaning(text) {
        Ok(found) => return Ok(found),
        Err(turn) => turn,
    };
    let (id, settled) = match ask(worker, Request::Find { kind: Kind::Model, text: text.into() }).await {
        Ok(Response::Found(id)) => (id, true),
        Ok(_) => return Err(unexpected()),
        Err(problem) if problem.status == 404 => best_of_training(worker, text).await?,
        Err(problem) => return Err(problem),
    };
    let found = Arc::new(found(worker, id).await?);
    if settled {
        worker.shared.recent.means(text, &found, turn);
    }
    Ok(found)
}

/// The best model of a training, and whether no better one can follow.
async fn best_of_training(worker: &Worker, text: &str) -> Result<(Digest, bool), Problem> {
    let training = match find(worker, Kind::Training, text).await {
        Ok(training) => training,
        Err(problem) if problem.status == 404 => {
            return Err(unfinished(worker, text).await.unwrap_or_else(|| {
                Refusal::NotFound { what: "model or training".into(), text: text.into() }.into()
            }));
        }
        Err(problem) => return Err(problem),
    };
    let view = Family::fetch(worker, training, 0, 0).await?.view(worker).await?;
    let detail =
        format!("the training '{text}' has no finished model yet: wait for it, or look at its errors");
    let best = view.best.ok_or_else(|| Problem::conflict("no-model-yet", detail))?;
    Ok((best, view.state.is_final()))
}

/// A model whose id is known but that is not finished is told from one that does not exist.
async fn unfinished(worker: &Worker, text: &str) -> Option<Problem> {
    let id: Digest = text.parse().ok()?;
    ask(worker, Request::Watch { id, seen: 0, wait_ms: 0 }).await.ok()?;
    Some(Problem::conflict("no-model-yet", "this model is not finished: wait for its training"))
}

async fn found(worker: &Worker, id: Digest) -> Result<Found, Problem> {
    let Response::Family { entries, .. } = ask(worker, Request::Watch { id, seen: 0, wait_ms: 0 }).await?
    else {
        return Err(unexpected());
    };
    let training = entries.into_iter().next().and_then(|entry| parent(entry.record.body?));
    let family = Family::fetch(worker, training.ok_or_else(unexpected)?, 0, 0).await?;
    Found::of(id, family.into()).ok_or_else(unexpected)
}

/// The training that a fit is part of.
fn parent(body: Body) -> Option<Digest> {
    match body {
        Body::Job(job) => job.spec.parent,
        Body::Dataset(_) | Body::Training(_) | Body::Study(_) | Body::Token(_) | Body::Revocation(_) => None,
    }
}

impl Found {
    /// The model of this id, if the training has finished it.
    fn of(id: Digest, family: Arc<Family>) -> Option<Self> {
        let place = family.place(id)?;
        let digest = family.results(place).0?;
        Some(Self { id, digest, family, place })
    }

    async fn view(&self, worker: &Worker) -> Result<ModelView, Problem> {
        let spec = &self.family.training.spec;
        let report = match self.family.results(self.place).1 {
            Some(report) => Some(Report::fetch(worker, report).await?),
            None => None,
        };
        let name = &spec.model_names()[self.place];
        let (metrics, rest) = report.map(|report| (report.metrics, report.rest)).unzip();
        let rest = rest.unwrap_or_default();
        Ok(ModelView {
            id: self.id,
            name: format!("{}/{name}", self.family.name.clone().unwrap_or_else(|| self.family.id.short())),
            training: self.family.id,
            dataset: spec.problem.dataset,
            task: spec.problem.task,
            target: spec.problem.target.clone(),
            kind: spec.models[self.place].kind.clone(),
            params: spec.models[self.place].params.clone(),
            metrics,
            importance: rest.importance,
            permutation: rest.permutation,
            curves: rest.curves,
            digest: self.digest,
            created_ms: self.family.created_ms,
            features: None,
            classes: None,
        })
    }
}

pub(super) async fn list(
    Extract(worker): Extract<Worker>,
    CheckedQuery(paging): CheckedQuery<Paging>,
) -> Result<Listed<ModelView>, Problem> {
    let request = Request::List { kind: Kind::Model, after: paging.after()?, limit: paging.limit()? };
    let Response::Page { entries, next } = ask(&worker, request).await? else { return Err(unexpected()) };
    let models: Vec<(Digest, Digest)> =
        entries.into_iter().filter_map(|entry| Some((entry.id, parent(entry.record.body?)?))).collect();
    // Models of one training come together: it is asked for once.
    let trainings: BTreeSet<Digest> = models.iter().map(|(_, training)| *training).collect();
    let families = stream::iter(trainings).map(|id| {
        let worker = worker.clone();
        async move { (id, Family::fetch(&worker, id, 0, 0).await) }
    });
    let mut known: BTreeMap<Digest, Arc<Family>> = BTreeMap::new();
    let mut families = families.buffer_unordered(TOGETHER);
    while let Some((id, family)) = families.next().await {
        match family {
            Ok(family) => drop(known.insert(id, family.into())),
            // Deleted since it was listed.
            Err(problem) if problem.status == 404 => {}
            Err(problem) => return Err(problem),
        }
    }
    let views = models.into_iter().filter_map(|(id, training)| Found::of(id, known.get(&training)?.clone()));
    let views = stream::iter(views.collect::<Vec<_>>()).map(|found| {
        let worker = worker.clone();
        async move { found.view(&worker).await.map(|view| ModelView { curves: None, ..view }) }
    });
    let items = views.buffered(TOGETHER).try_collect().await?;
    Listed::new(items, next, &paging)
}

pub(super) async fn show(
    Extract(worker): Extract<Worker>,
    Path(text): Path<String>,
) -> Result<Answer, Problem> {
    let turn = match worker.shared.recent.answer(Kind::Model, &text) {
        Ok(answer) => return Ok(answer),
        Err(turn) => turn,
    };
    let found = resolve(&worker, &text).await?;
    let model = load(&worker, found.digest).await?;
    let features =
        model.features.iter().map(|(name, r#type)| FeatureView { name: name.clone(), r#type: *r#type });
    let classes = Some(model.classes.clone()).filter(|classes| !classes.is_empty());
    let view = ModelView { features: Some(features.collect()), classes, ..found.view(&worker).await? };
    // How good it is may still be being found out, but is not for long.
    Ok(worker.shared.recent.answered(Kind::Model, &text, &view, true, turn))
}

/// A model that can predict.
pub(super) async fn load(worker: &Worker, digest: Digest) -> Result<Arc<Model>, Problem> {
    if let Some(model) = worker.shared.recent.model(&digest) {
        return Ok(model);
    }
    let bytes = worker.shared.blob(digest).await?;
    let model = Model::from_bytes(&bytes).map_err(|error| Problem::internal(error.to_string()))?;
    let model = Arc::new(model);
    worker.shared.recent.keep(digest, &model, bytes.len());
    Ok(model)
}

impl From<PredictError> for Problem {
    fn from(error: PredictError) -> Self {
        if let PredictError::Table(error) = error { error.into() } else { Self::internal(error.to_string()) }
    }
}

/// What to download.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    format: Option<String>,
}

pub(super) async fn download(
    Extract(worker): Extract<Worker>,
    Path(id): Path<String>,
    CheckedQuery(query): CheckedQuery<Wanted>,
    headers: HeaderMap,
) -> Result<HttpResponse, Problem> {
    let format = query.format.as_deref().unwrap_or("native");
    let found = resolve(&worker, &id).await?;
    let (kind, ending) = match format {
        "native" => ("application/octet-stream", "dml"),
        "json" => ("application/json", "json"),
        "onnx" => ("application/octet-stream", "onnx"),
        other => {
            let detail = format!("a model can be downloaded as native, onnx or json, not as '{other}'");
            return Err(Problem::bad_request("unknown-format", detail));
        }
    };
    let name = &found.family.training.spec.model_names()[found.place];
    let disposition = format!("attachment; filename=\"{name}.{ending}\"");
    let (digest, body) = if format == "native" {
        (found.digest, Bytes::from_owner(worker.shared.blob(found.digest).await?))
    } else {
        let text = format == "json";
        let model = load(&worker, found.digest).await?;
        let convert = move || {
            let registry = worker.shared.engine.registry();
            if text {
                return Ok(model.to_json(registry).map_err(OnnxError::Model)?.into_bytes());
            }
            model.to_onnx(registry, &found.id.to_string())
        };
        let converted: Result<Vec<u8>, OnnxError> = tokio::task::spawn_blocking(convert)
            .await
            .map_err(|error| Problem::internal(error.to_string()))?;
        let bytes = converted?;
        (Digest::of(&bytes), bytes.into())
    };
    let head = [(header::CONTENT_TYPE, kind.to_string()), (header::CONTENT_DISPOSITION, disposition)];
    Ok(Download::new(&digest.to_string(), head).bytes(&headers, &body))
}

impl From<OnnxError> for Problem {
    fn from(error: OnnxError) -> Self {
        let detail = error.to_string();
        if let OnnxError::Model(_) = error {
            return Self::internal(detail);
        }
        Self::unprocessable("not-exportable", detail)
    }
}

/// Predictions at once, for rows as JSON, CSV or Arrow, in the form that the client accepts.
pub(super) async fn predict(
    Extract(worker): Extract<Worker>,
    Path(id): Path<String>,
    headers: HeaderMap,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let found = resolve(&worker, &id).await?;
    let model = load(&worker, found.digest).await?;
    let kind = media_type_of_rows(&headers)?;
    let first = match kind {
        RowsAs::Json => "application/json",
        RowsAs::NdJson => NDJSON,
        RowsAs::Table => "text/csv",
    };
    let mut offers = ["application/json", "text/csv", NDJSON, ARROW];
    offers.sort_by_key(|offer| *offer != first);
    let answer = negotiate(&headers, &offers)?.to_string();
    let rows = Rows::receive(kind, request).await?;
    let predict = move || -> Result<HttpResponse, Problem> {
        let rows = rows.read(&model.inputs())?;
        let predicted = model.predict(worker.shared.engine.registry(), &rows)?;
        Ok(if answer == "application/json" {
            Json(PredictedRows { predictions: table::to_json_rows(&predicted) }).into_response()
        } else {
            let mut out = Vec::new();
            Form::of(&answer).write(&predicted, true, &mut out)?;
            ([(header::CONTENT_TYPE, answer)], out).into_response()
        })
    };
    tokio::task::spawn_blocking(predict).await.map_err(|error| Problem::internal(error.to_string()))?
}

/// How rows to be predicted come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowsAs {
    Json,
    NdJson,
    /// CSV or Arrow, which tell themselves.
    Table,
}

/// How the rows of a request come, if they can be read.
pub(super) fn media_type_of_rows(headers: &HeaderMap) -> Result<RowsAs, Problem> {
    inflate::check(headers)?;
    match media_type(headers).as_str() {
        "application/json" => Ok(RowsAs::Json),
        kind if is_ndjson(kind) => Ok(RowsAs::NdJson),
        "text/csv" | "application/vnd.apache.arrow.file" | ARROW => Ok(RowsAs::Table),
        other => {
            let detail =
                format!("rows come as application/json, {NDJSON}, text/csv or {ARROW}, not as {other}");
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unknown-format", detail))
        }
    }
}

/// Rows to be predicted, as they came.
pub(super) struct Rows {
    kind: RowsAs,
    body: Bytes,
}

impl Rows {
    pub(super) async fn receive(kind: RowsAs, request: HttpRequest) -> Result<Self, Problem> {
        Ok(Self { kind, body: limited(request).await? })
    }

    /// The rows with the columns of a model.
    fn read(self, inputs: &[(String, ColumnType)]) -> Result<RecordBatch, Problem> {
        self.read_or(inputs, |body| Ok(serde_json::from_slice::<RowsToPredict>(body)?.rows))
    }

    /// The same, where a JSON body may also be one row alone or a list of rows.
    pub(super) fn read_lenient(self, inputs: &[(String, ColumnType)]) -> Result<RecordBatch, Problem> {
        self.read_or(inputs, |body| {
            let mut said: Value = serde_json::from_slice(body)?;
            if let Some(rows) = said.get_mut("rows").filter(|rows| rows.is_array()) {
                said = rows.take();
            }
            Ok(if said.is_array() {
                serde_json::from_value(said)?
            } else {
                vec![serde_json::from_value(said)?]
            })
        })
    }

    fn read_or(
        self,
        inputs: &[(String, ColumnType)],
        json: impl FnOnce(&[u8]) -> Result<Vec<Map<String, Value>>, serde_json::Error>,
    ) -> Result<RecordBatch, Problem> {
        let body = Inflated::whole(self.body, MAX_BODY)?;
        let wrong = |error| {
            let detail = format!("{error}; rows are {{\"rows\": [{{COLUMN: VALUE, …}}, …]}}");
            Problem::bad_request("bad-json", detail)
        };
        Ok(match self.kind {
            RowsAs::Json => table::from_json_rows(&json(&body).map_err(wrong)?, inputs)?,
            RowsAs::NdJson => table::from_json_rows(&lines(&body)?, inputs)?,
            RowsAs::Table if table::is_arrow(&body) => {
                table::cast(&table::read_arrow(&body, &table::Limits::default())?, inputs)?
            }
            RowsAs::Table => table::read_rows_as(&body, &table::Limits::default(), inputs)?,
        })
    }
}

/// Rows that stand as JSON objects, one a line.
fn lines(body: &[u8]) -> Result<Vec<Map<String, Value>>, Problem> {
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let rows = (1..).zip(lines).map(|(row, line)| {
        serde_json::from_slice(line).map_err(|error| {
            let detail = format!("row {row} is no JSON object on a line of its own: {error}");
            Problem::unprocessable("bad-line", detail).at(Some(row), None)
        })
    });
    rows.collect()
}

async fn limited(request: HttpRequest) -> Result<Bytes, Problem> {
    let body = http_body_util::Limited::new(request.into_body(), MAX_BODY).collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            let detail = format!(
                "at most {} MiB are predicted at once: upload the table as a dataset and create a prediction",
                MAX_BODY >> 20
            );
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail)
        } else {
            Problem::bad_request("upload-truncated", "the body broke off before its end: send it again")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dml_compute::WorkError;

    #[test]
    fn a_kind_that_has_no_file_is_not_our_fault() {
        let kind = OnnxError::Kind { kind: "silent".into(), known: "linear, ridge".into() };
        let problem = Problem::from(kind);
        assert_eq!((problem.status, problem.code.as_str()), (422, "not-exportable"));
        assert!(problem.detail.ends_with("kinds that can are linear, ridge"), "{problem}");
        let broken = WorkError::Corrupt { what: "a model", why: "it ends".into() };
        assert_eq!(Problem::from(OnnxError::Model(broken)).status, 500);
    }
}
