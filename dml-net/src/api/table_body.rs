//! Tables as bodies: those that come in, by themselves or as the field `file` of a form; and those that go out.

use std::{
    collections::BTreeMap,
    future::ready,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow_array::RecordBatch;
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Multipart, Request},
    http::{HeaderMap, header},
};
use dml_compute::table::{self, ParquetWriter, TableError};
use dml_core::Digest;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;

use crate::{problem::Problem, worker::Worker};

/// The media type of JSON objects, one a line.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// The media type of Arrow IPC streams.
pub(super) const ARROW: &str = "application/vnd.apache.arrow.stream";

/// The media type of Parquet files.
pub(super) const PARQUET: &str = "application/vnd.apache.parquet";

/// How many pieces of a body may wait for the parser.
const PIECES: usize = 4;

/// How many chunks are written at the same time, for one download.
const AHEAD: usize = 2;

/// How long an upload may be silent before it is taken to have broken off.
const SILENCE: Duration = Duration::from_secs(60);

/// The pieces of a table; the first error ends it. Also tells the name of the file, if the form has one.
pub(super) struct Incoming {
    pub(super) pieces: mpsc::Receiver<Result<Bytes, Problem>>,
    pub(super) file_name: Option<String>,
    /// Whether the rows are JSON objects, one a line.
    pub(super) ndjson: bool,
}

impl Incoming {
    /// A table in CSV that is there as a whole.
    pub(super) fn of(table: Bytes) -> Self {
        let (sender, pieces) = mpsc::channel(1);
        sender.try_send(Ok(table)).expect("there is room for one");
        Self { pieces, file_name: None, ndjson: false }
    }
}

/// The media type of a body, without its parameters, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("text/csv");
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The name of a file without what tells its format: `houses` of `houses.csv.gz`.
pub(super) fn stem(name: &str) -> &str {
    let name = unpacked(name);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The name of a file without what tells how it is compressed.
fn unpacked(name: &str) -> &str {
    [".gz", ".zst", ".zstd"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

/// Whether a body of this type has JSON objects, one a line: its names differ from program to program.
pub(super) fn is_ndjson(media_type: &str) -> bool {
    [NDJSON, "application/ndjson", "application/jsonl"].contains(&media_type)
}

/// Starts to receive a table.
pub(super) async fn receive(request: Request) -> Result<Incoming, Problem> {
    super::inflate::check(request.headers())?;
    let (sender, pieces) = mpsc::channel(PIECES);
    let kind = media_type(request.headers());
    match kind.as_str() {
        "text/csv"
        | "text/plain"
        | "text/tab-separated-values"
        | "application/octet-stream"
        | "application/csv"
        | "application/gzip"
        | "application/zstd"
        | "application/vnd.apache.arrow.file"
        | "application/x-parquet"
        | PARQUET
        | ARROW
        | NDJSON
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-www-form-urlencoded" => {
            tokio::spawn(forward_body(request.into_body(), sender));
            Ok(Incoming { pieces, file_name: None, ndjson: is_ndjson(&kind) })
        }
        "multipart/form-data" => {
            let wrong =
                |why: String| Problem::bad_request("bad-form", format!("the form cannot be read: {why}"));
            let form =
                Multipart::from_request(request, &()).await.map_err(|error| wrong(error.body_text()))?;
            let (name, named) = tokio::sync::oneshot::channel();
            tokio::spawn(forward_form(form, sender, name));
            let file_name = named.await.map_err(|_| wrong("it breaks off".into()))??;
            let ndjson = file_name.as_deref().is_some_and(|name| {
                let name = unpacked(name);
                name.ends_with(".ndjson") || name.ends_with(".jsonl")
            });
            Ok(Incoming { pieces, file_name, ndjson })
        }
        other => {
            let status = axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
            let detail = format!(
                "a table comes as text/csv, as {NDJSON}, as {ARROW}, as {PARQUET}, or as the field 'file' of multipart/form-data, \
                 not as {other}"
            );
            Err(Problem::new(status, "unknown-format", detail))
        }
    }
}

fn truncated() -> Problem {
    Problem::bad_request(
        "upload-truncated",
        "the upload broke off before its end; nothing was kept: send it again",
    )
}

async fn forward_body(body: Body, sender: mpsc::Sender<Result<Bytes, Problem>>) {
    let mut stream = body.into_data_stream();
    loop {
        let piece = match tokio::time::timeout(SILENCE, stream.next()).await {
            Ok(Some(piece)) => piece.map_err(|_| truncated()),
            Ok(None) => return,
            Err(_) => Err(truncated()),
        };
        let end = piece.is_err();
        if sender.send(piece).await.is_err() || end {
            return;
        }
    }
}

type FileName = Result<Option<String>, Problem>;

async fn forward_form(
    mut form: Multipart,
    sender: mpsc::Sender<Result<Bytes, Problem>>,
    name: tokio::sync::oneshot::Sender<FileName>,
) {
    let missing = || Problem::bad_request("no-file", "the form has no field 'file': put the table into one");
    loop {
        let mut field = match form.next_field().await {
            Ok(Some(field)) if field.name() == Some("file") => field,
            Ok(Some(_)) => continue,
            Ok(None) => return drop(name.send(Err(missing()))),
            Err(_) => return drop(name.send(Err(truncated()))),
        };
        let _ = name.send(Ok(field.file_name().map(Into::into)));
        loop {
            let piece = match tokio::time::timeout(SILENCE, field.chunk()).await {
                Ok(Ok(Some(piece))) => Ok(piece),
                Ok(Ok(None)) => return,
                Ok(Err(_)) | Err(_) => Err(truncated()),
            };
            let end = piece.is_err();
            if sender.send(piece).await.is_err() || end {
                return;
            }
        }
    }
}

/// How rows go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    Csv,
    /// A JSON object a line.
    NdJson,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file. It is had as a whole: where its parts begin follows from all before them.
    Parquet,
}

impl Form {
    /// All of them, the one that is had without asking first.
    pub(super) const OFFERS: [&str; 4] = ["text/csv", NDJSON, ARROW, PARQUET];

    /// The form that goes by this media type, of [`Form::OFFERS`].
    pub(super) fn of(kind: &str) -> Self {
        match kind {
            NDJSON => Self::NdJson,
            ARROW => Self::Arrow,
            PARQUET => Self::Parquet,
            _ => Self::Csv,
        }
    }

    /// What tells it from others in an entity tag.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::NdJson => "ndjson",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }

    /// A table in this form.
    pub(super) fn write(self, rows: &RecordBatch, header: bool, out: &mut Vec<u8>) -> Result<(), TableError> {
        match self {
            Self::Csv => table::write_csv(rows, header, out),
            Self::NdJson => table::write_ndjson(rows, out),
            Self::Arrow => out.extend_from_slice(&table::encode(rows)),
            Self::Parquet => {
                let mut writer = ParquetWriter::new(rows.schema())?;
                out.extend(writer.write(rows)?);
                out.extend(writer.finish()?);
            }
        }
        Ok(())
    }
}

/// The rows of chunks with the same columns, one after the other: the bytes `within` of those from the chunk `first` on.
pub(super) fn rows_of(
    worker: Worker,
    chunks: Vec<Digest>,
    form: Form,
    first: usize,
    within: Range<u64>,
) -> impl Stream<Item = std::io::Result<Bytes>> {
    let chunks: Arc<[Digest]> = chunks.into();
    let parts = stream::iter(first..=chunks.len()).map(move |at| {
        let (worker, chunks) = (worker.clone(), chunks.clone());
        async move { part(&worker, &chunks, at, form).await }
    });
    parts.buffered(AHEAD).scan(within, |within, part| {
        let kept = part.filter(|_| within.start < within.end).map(|part| {
            let part = part.inspect_err(|_| *within = 0..0)?;
            let length = part.len() as u64;
            let kept = within.start.min(length) as usize..within.end.min(length) as usize;
            *within = within.start.saturating_sub(length)..within.end.saturating_sub(length);
            Ok(part.slice(kept))
        });
        ready(kept)
    })
}

/// The rows of chunks as a Parquet file, a row group a chunk.
pub(super) fn parquet_of(worker: Worker, chunks: Vec<Digest>) -> impl Stream<Item = std::io::Result<Bytes>> {
    let chunks = chunks.into_iter();
    stream::unfold(Some((worker, chunks, None)), async |state| {
        let (worker, mut chunks, mut writer) = state?;
        let Some(digest) = chunks.next() else {
            let last = writer.map_or_else(|| Ok(Vec::new()), ParquetWriter::finish);
            return Some((last.map(Bytes::from).map_err(std::io::Error::other), None));
        };
        match row_group(&worker, digest, &mut writer).await {
            Ok(group) => Some((Ok(group), Some((worker, chunks, writer)))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

async fn row_group(
    worker: &Worker,
    digest: Digest,
    writer: &mut Option<ParquetWriter>,
) -> std::io::Result<Bytes> {
    let bytes = worker.shared.blob(digest).await.map_err(std::io::Error::other)?;
    let rows = table::decode(&bytes).map_err(std::io::Error::other)?;
    let begun = match writer.take() {
        Some(begun) => begun,
        None => ParquetWriter::new(rows.schema()).map_err(std::io::Error::other)?,
    };
    writer.insert(begun).write(&rows).map(Bytes::from).map_err(std::io::Error::other)
}

/// How long each part of [`rows_of`] is. What was found out once is remembered: to know it, all rows are written.
pub(super) async fn lengths(worker: &Worker, chunks: &[Digest], form: Form) -> Result<Vec<u64>, Problem> {
    let mut lengths = Vec::new();
    for at in 0..=chunks.len() {
        let key = chunks.get(at).map(|digest| (*digest, form, at == 0));
        if let Some(length) = key.and_then(|key| worker.shared.lengths.get(&key)) {
            lengths.push(length);
            continue;
        }
        let Some(part) = part(worker, chunks, at, form).await else { continue };
        let length = part.map_err(|error| Problem::internal(error.to_string()))?.len() as u64;
        lengths.push(length);
        if let Some(key) = key {
            worker.shared.lengths.keep(key, length);
        }
    }
    Ok(lengths)
}

/// How many bytes chunks have in the forms in which they go out, a header included where there is one.
#[derive(Default)]
pub(crate) struct Lengths(Mutex<BTreeMap<Written, u64>>);

/// A chunk, its form, and whether it is the first.
type Written = (Digest, Form, bool);

impl Lengths {
    /// How many are remembered; some megabytes.
    const MOST: usize = 50_000;

    fn get(&self, key: &Written) -> Option<u64> {
        self.0.lock().expect("nobody panics while holding it").get(key).copied()
    }

    fn keep(&self, key: Written, length: u64) {
        let mut known = self.0.lock().expect("nobody panics while holding it");
        if known.len() >= Self::MOST {
            known.clear();
        }
        known.insert(key, length);
    }
}

/// The chunk at a place in this form, and what comes after the last; none after that.
async fn part(worker: &Worker, chunks: &[Digest], at: usize, form: Form) -> Option<std::io::Result<Bytes>> {
    match chunks.get(at) {
        Some(digest) => Some(chunk(worker, *digest, form, at == 0).await),
        None if form == Form::Arrow && at > 0 && at == chunks.len() => {
            Some(Ok(Bytes::from_static(&table::STREAM_END)))
        }
        None => None,
    }
}

async fn chunk(worker: &Worker, digest: Digest, form: Form, first: bool) -> std::io::Result<Bytes> {
    let bytes = worker.shared.blob(digest).await.map_err(std::io::Error::other)?;
    if form == Form::Arrow {
        let part = table::stream_part(&bytes, first).map_err(std::io::Error::other)?;
        return Ok(Bytes::copy_from_slice(part));
    }
    // Not where requests are answered: it takes a while.
    let write = move || {
        let rows = table::decode(&bytes).map_err(std::io::Error::other)?;
        let mut text = Vec::new();
        form.write(&rows, first, &mut text).map_err(std::io::Error::other)?;
        Ok(text.into())
    };
    tokio::task::spawn_blocking(write).await.map_err(std::io::Error::other)?
}

impl From<TableError> for Problem {
    fn from(error: TableError) -> Self {
        let detail = error.to_string();
        let problem = if let TableError::Io(io) = &error {
            match io.kind() == std::io::ErrorKind::StorageFull {
                true => Self::new(axum::http::StatusCode::INSUFFICIENT_STORAGE, "disk-full", detail),
                false => Self::internal(detail),
            }
        } else {
            Self::unprocessable(error.code(), detail)
        };
        problem.at(error.row(), error.column())
    }
}
