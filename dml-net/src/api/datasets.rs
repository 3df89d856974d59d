//! `/v1/datasets`.

use std::{
    collections::VecDeque,
    io::{Read, Write},
};

use arrow_array::RecordBatch;
use axum::{
    Json,
    extract::{Path, Request as HttpRequest, State as Extract},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
};
use dml_compute::table;
use dml_core::{
    Body, Chunk, Column, Dataset, Digest,
    node::{Entry, Request, Response},
    record::Kind,
};
use serde::Deserialize;
use tokio::{runtime::Handle, task::JoinHandle};

use super::{
    CheckedQuery, Listed, Paging, ask, check_name, find,
    inflate::Inflated,
    keys::Key,
    negotiate,
    range::Download,
    recent::Answer,
    table_body::{self, Form, Incoming},
    unexpected,
};
use crate::{
    link::LinkError,
    problem::Problem,
    trace::{carry, carry_task},
    view::{DatasetView, RowsView},
    worker::Worker,
};

/// How much of a table is decoded at a time.
const PIECE: usize = 256 << 10;

/// How many chunks of an upload are sent to db nodes at the same time.
const SENT_AT_ONCE: usize = 3;

/// What an upload is called.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Naming {
    name: Option<String>,
}

pub(super) async fn create(
    Extract(worker): Extract<Worker>,
    CheckedQuery(naming): CheckedQuery<Naming>,
    key: Key,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let given = naming.name.as_deref().map(check_name).transpose()?;
    let _turn = worker.shared.uploads.acquire().await.map_err(internal)?;
    let incoming = table_body::receive(request).await?;
    let stem = incoming.file_name.as_deref().and_then(|name| name.rsplit(['/', '\\']).next());
    let stem = stem.map(table_body::stem);
    let name = given.or_else(|| stem.and_then(|stem| check_name(stem).ok()));
    let runtime = Handle::current();
    let importer = worker.clone();
    let import = tokio::task::spawn_blocking(carry(move || import(&importer, &runtime, incoming)));
    let dataset = import.await.map_err(|error| Problem::internal(error.to_string()))??;
    worker.shared.keys.note(&key, &("dataset", dataset.id(), &name))?;
    let request = Request::Create { body: Body::Dataset(dataset), name };
    let Response::Created { id, replicas, .. } = ask(&worker, request).await? else {
        return Err(unexpected());
    };
    let view = DatasetView { replicas: Some(replicas), ..fetch(&worker, id).await? };
    let location = format!("/v1/datasets/{id}");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// Parses a table as it streams in, and sends its chunks to a db node one by one. Nothing is created yet: chunks of a
/// table that turns out to be bad are garbage, and collected as such.
pub(super) fn import(worker: &Worker, runtime: &Handle, incoming: Incoming) -> Result<Dataset, Problem> {
    let mut body = Inflated::of(incoming.pieces)?;
    let (mut buffer, mut count) = (vec![0; PIECE], 0);
    while count < 8 {
        match body.next(&mut buffer[count..])? {
            0 => break,
            more => count += more,
        }
    }
    let mut sending = Sending { worker, runtime, under_way: VecDeque::new(), chunks: Vec::new() };
    let mut put = |batch| sending.put(&batch);
    let columns = if table::is_arrow(&buffer[..count]) {
        let columns = import_arrow((&buffer[..count]).chain(&mut body), &mut put);
        columns.map_err(|problem| body.failed().unwrap_or(problem))?
    } else if table::is_parquet(&buffer[..count]) {
        // It is read from its end.
        let mut spool = tempfile::tempfile().map_err(table::TableError::Io)?;
        while count > 0 {
            spool.write_all(&buffer[..count]).map_err(table::TableError::Io)?;
            count = body.next(&mut buffer)?;
        }
        let mut table = table::ParquetTable::new(spool, table::Limits::default())?;
        table.by_ref().try_for_each(|batch| put(batch?))?;
        table.columns()
    } else {
        let spool = || tempfile::tempfile().map_err(table::TableError::Io);
        let mut importer = table::Importer::new(spool()?, table::Limits::default());
        if incoming.ndjson {
            let mut lines = table::NdJson::new(spool()?, table::Limits::default());
            while count > 0 {
                lines.push(&buffer[..count])?;
                count = body.next(&mut buffer)?;
            }
            for piece in lines.finish()? {
                importer.push(&piece?)?.into_iter().try_for_each(&mut put)?;
            }
        } else {
            while count > 0 {
                importer.push(&buffer[..count])?.into_iter().try_for_each(&mut put)?;
                count = body.next(&mut buffer)?;
            }
        }
        let mut typed = importer.finish()?;
        if typed.kept() == 0 {
            sending.restart();
        }
        typed.by_ref().try_for_each(|batch| sending.put(&batch?))?;
        typed.columns()
    };
    let chunks = sending.finish()?;
    let rows = chunks.iter().map(|chunk| chunk.rows).sum();
    Ok(Dataset { rows, columns, chunks })
}

/// The chunks of a table on their way to a db node, while the next are cut.
struct Sending<'a> {
    worker: &'a Worker,
    runtime: &'a Handle,
    under_way: VecDeque<JoinHandle<Result<Chunk, LinkError>>>,
    /// Those that have arrived.
    chunks: Vec<Chunk>,
}

impl Sending<'_> {
    fn put(&mut self, batch: &RecordBatch) -> Result<(), Problem> {
        let bytes = table::encode(batch);
        let (rows, size) = (batch.num_rows() as u64, bytes.len() as u64);
        if self.under_way.len() == SENT_AT_ONCE {
            self.arrive()?;
        }
        let link = self.worker.shared.link.clone();
        let send = async move { Ok(Chunk { digest: link.put_blob(bytes).await?, rows, bytes: size }) };
        self.under_way.push_back(self.runtime.spawn(carry_task(send)));
        Ok(())
    }

    /// Waits for the first of those that are under way.
    fn arrive(&mut self) -> Result<(), Problem> {
        if let Some(task) = self.under_way.pop_front() {
            self.chunks.push(self.runtime.block_on(task).map_err(internal)??);
        }
        Ok(())
    }

    /// Forgets the chunks so far: they are garbage.
    fn restart(&mut self) {
        self.under_way.clear();
        self.chunks.clear();
    }

    fn finish(mut self) -> Result<Vec<Chunk>, Problem> {
        while !self.under_way.is_empty() {
            self.arrive()?;
        }
        Ok(self.chunks)
    }
}

fn import_arrow(
    body: impl Read,
    put: &mut impl FnMut(RecordBatch) -> Result<(), Problem>,
) -> Result<Vec<Column>, Problem> {
    let mut table = table::ArrowTable::new(body, table::Limits::default())?;
    table.by_ref().try_for_each(|batch| put(batch?))?;
    Ok(table.columns())
}

pub(super) async fn list(
    Extract(worker): Extract<Worker>,
    CheckedQuery(paging): CheckedQuery<Paging>,
) -> Result<Listed<DatasetView>, Problem> {
    let request = Request::List { kind: Kind::Dataset, after: paging.after()?, limit: paging.limit()? };
    let Response::Page { entries, next } = ask(&worker, request).await? else { return Err(unexpected()) };
    let items = entries.into_iter().filter_map(view).collect();
    Listed::new(items, next, &paging)
}

pub(super) async fn show(
    Extract(worker): Extract<Worker>,
    Path(text): Path<String>,
) -> Result<Answer, Problem> {
    let turn = match worker.shared.recent.answer(Kind::Dataset, &text) {
        Ok(answer) => return Ok(answer),
        Err(turn) => turn,
    };
    let id = find(&worker, Kind::Dataset, &text).await?;
    let view = fetch(&worker, id).await?;
    Ok(worker.shared.recent.answered(Kind::Dataset, &text, &view, true, turn))
}

async fn fetch(worker: &Worker, id: Digest) -> Result<DatasetView, Problem> {
    let watch = Request::Watch { id, seen: 0, wait_ms: 0 };
    let Response::Family { entries, .. } = ask(worker, watch).await? else { return Err(unexpected()) };
    entries.into_iter().next().and_then(view).ok_or_else(unexpected)
}

fn view(entry: Entry) -> Option<DatasetView> {
    let name = entry.record.names.latest().map(Into::into);
    let created_ms = entry.record.names.since();
    let Some(Body::Dataset(dataset)) = entry.record.body else { return None };
    let bytes = dataset.bytes();
    let Dataset { rows, columns, .. } = dataset;
    Some(DatasetView { id: entry.id, name, rows, bytes, columns, created_ms, replicas: None })
}

pub(super) async fn delete(
    Extract(worker): Extract<Worker>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = find(&worker, Kind::Dataset, &id).await?;
    ask(&worker, Request::Delete { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which rows to show.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    offset: Option<u64>,
    limit: Option<u64>,
}

/// Some rows as JSON.
pub(super) async fn rows(
    Extract(worker): Extract<Worker>,
    Path(id): Path<String>,
    CheckedQuery(window): CheckedQuery<Window>,
) -> Result<Json<RowsView>, Problem> {
    let (offset, limit) = (window.offset.unwrap_or(0), window.limit.unwrap_or(20));
    if limit > 10_000 {
        return Err(Problem::bad_request(
            "bad-limit",
            "limit is at most 10000: take the content as a whole instead",
        ));
    }
    let id = find(&worker, Kind::Dataset, &id).await?;
    let dataset = worker.shared.dataset(id).await?;
    let (mut rows, mut first) = (Vec::new(), 0);
    for chunk in &dataset.chunks {
        let next = first + chunk.rows;
        let from = offset.max(first);
        let until = offset.saturating_add(limit).min(next);
        if from < until {
            let batch = table::decode(&worker.shared.blob(chunk.digest).await?).map_err(internal)?;
            let part = batch.slice((from - first) as usize, (until - from) as usize);
            rows.extend(table::to_json_rows(&part));
        }
        first = next;
    }
    Ok(Json(RowsView { rows, offset, total: dataset.rows }))
}

/// The whole table as CSV, NDJSON or Arrow, or a part of that.
pub(super) async fn content(
    Extract(worker): Extract<Worker>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<HttpResponse, Problem> {
    let kind = negotiate(&headers, &Form::OFFERS)?;
    let form = Form::of(kind);
    let id = find(&worker, Kind::Dataset, &id).await?;
    let dataset = worker.shared.dataset(id).await?;
    let chunks: Vec<Digest> = dataset.chunks.iter().map(|chunk| chunk.digest).collect();
    let tag = format!("{id}-{}", form.name());
    let download = Download::new(&tag, [(header::CONTENT_TYPE, kind.to_string())]);
    download.rows(&headers, worker, chunks, form).await
}

fn internal(error: impl std::fmt::Display) -> Problem {
    Problem::internal(error.to_string())
}
