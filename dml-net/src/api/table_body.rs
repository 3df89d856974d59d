//! Tables as bodies: those that come in, by themselves or as the field `file` of a form; and those that go out.

use std::time::Duration;

use arrow_array::RecordBatch;
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Multipart, Request},
    http::{HeaderMap, header},
};
use dml_compute::table::{self, TableError};
use dml_core::Digest;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;

use crate::{problem::Problem, worker::Worker};

/// The media type of Arrow IPC streams.
pub(super) const ARROW: &str = "application/vnd.apache.arrow.stream";

/// How many pieces of a body may wait for the parser.
const PIECES: usize = 4;

/// How long an upload may be silent before it is taken to have broken off.
const SILENCE: Duration = Duration::from_secs(60);

/// The pieces of a table; the first error ends it. Also tells the name of the file, if the form has one.
pub(super) struct Incoming {
    pub(super) pieces: mpsc::Receiver<Result<Bytes, Problem>>,
    pub(super) file_name: Option<String>,
}

/// The media type of a body, without its parameters, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("text/csv");
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The name of a file without what tells its format: `houses` of `houses.csv.gz`.
pub(super) fn stem(name: &str) -> &str {
    let packed = [".gz", ".zst", ".zstd"].iter().find_map(|ending| name.strip_suffix(ending));
    let name = packed.unwrap_or(name);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// Starts to receive a table.
pub(super) async fn receive(request: Request) -> Result<Incoming, Problem> {
    super::inflate::check(request.headers())?;
    let (sender, pieces) = mpsc::channel(PIECES);
    match media_type(request.headers()).as_str() {
        "text/csv"
        | "text/plain"
        | "text/tab-separated-values"
        | "application/octet-stream"
        | "application/csv"
        | "application/gzip"
        | "application/zstd"
        | "application/vnd.apache.arrow.file"
        | ARROW
        | "application/x-www-form-urlencoded" => {
            tokio::spawn(forward_body(request.into_body(), sender));
            Ok(Incoming { pieces, file_name: None })
        }
        "multipart/form-data" => {
            let wrong =
                |why: String| Problem::bad_request("bad-form", format!("the form cannot be read: {why}"));
            let form =
                Multipart::from_request(request, &()).await.map_err(|error| wrong(error.body_text()))?;
            let (name, named) = tokio::sync::oneshot::channel();
            tokio::spawn(forward_form(form, sender, name));
            let file_name = named.await.map_err(|_| wrong("it breaks off".into()))??;
            Ok(Incoming { pieces, file_name })
        }
        other => {
            let status = axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
            let detail = format!(
                "a table comes as text/csv, as {ARROW}, or as the field 'file' of multipart/form-data, not as {other}"
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Csv,
    /// A JSON object a line.
    NdJson,
    /// An Arrow IPC stream.
    Arrow,
}

/// The rows of chunks with the same columns, one after the other.
pub(super) fn rows_of(
    worker: Worker,
    chunks: Vec<Digest>,
    form: Form,
) -> impl Stream<Item = std::io::Result<Bytes>> {
    stream::unfold((worker, chunks, 0), move |(worker, chunks, at)| async move {
        let part = match chunks.get(at) {
            Some(digest) => part(&worker, *digest, form, at == 0).await,
            None if form == Form::Arrow && at > 0 && at == chunks.len() => {
                Ok(Bytes::from_static(&table::STREAM_END))
            }
            None => return None,
        };
        Some((part, (worker, chunks, at + 1)))
    })
}

async fn part(worker: &Worker, digest: Digest, form: Form, first: bool) -> std::io::Result<Bytes> {
    let bytes = worker.shared.blob(digest).await.map_err(std::io::Error::other)?;
    let mut text = Vec::new();
    match form {
        Form::Arrow => {
            let part = table::stream_part(&bytes, first).map_err(std::io::Error::other)?;
            text.extend_from_slice(part);
        }
        Form::Csv | Form::NdJson => {
            let rows = table::decode(&bytes).map_err(std::io::Error::other)?;
            write_rows(&rows, form, first, &mut text)?;
        }
    }
    Ok(text.into())
}

fn write_rows(rows: &RecordBatch, form: Form, first: bool, out: &mut Vec<u8>) -> std::io::Result<()> {
    if form == Form::Csv {
        table::write_csv(rows, first, out);
        return Ok(());
    }
    for row in table::to_json_rows(rows) {
        serde_json::to_writer(&mut *out, &row)?;
        out.push(b'\n');
    }
    Ok(())
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
