//! What a db node answers on HTTP, to workers and to other db nodes.

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
    routing::{get, post, put},
};
use dml_core::{
    Digest,
    node::{Letter, Refusal, Request, Response},
};
use dml_store::StoreError;
use futures_util::future::join_all;
use serde::Deserialize;

use super::{
    Db, join, meters, nodes,
    post::{FORMAT, PATH as LETTERS, Received, Unpack},
};
use crate::{
    identity::{Caller, Revoked, join::PATH as JOIN},
    link::Answers,
    metrics,
    problem::Problem,
    view::DiskView,
    words::size,
};

/// The largest blob: a chunk is 16 MiB of CSV, and a state or model may be larger.
pub(crate) const MAX_BLOB: usize = 256 << 20;

/// Where several requests are asked at once.
pub(crate) const ASKS: &str = "/v1/asks";

/// Whose certificates were revoked, as far as this node has heard.
pub(crate) const REVOKED: &str = "/v1/revoked";

/// The largest request to join, in bytes.
const MAX_JOIN: usize = 16 << 10;

/// The largest request to the brain: the record of a dataset with very many chunks.
const MAX_ASK: usize = 64 << 20;

pub(super) fn router(db: Db) -> Router {
    Router::new()
        .route("/v1/ask", post(ask).layer(DefaultBodyLimit::max(MAX_ASK)))
        .route(ASKS, post(asks).layer(DefaultBodyLimit::max(MAX_ASK)))
        .route(LETTERS, post(letters))
        .route("/v1/blobs/{digest}", put(put_blob).get(blob).layer(DefaultBodyLimit::max(MAX_BLOB)))
        .route("/v1/nodes", get(nodes::list))
        .route(REVOKED, get(revoked))
        .route(JOIN, post(join::join).layer(DefaultBodyLimit::max(MAX_JOIN)))
        .route(metrics::PATH, get(meters::page))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .with_state(db)
}

async fn ready(State(db): State<Db>) -> Result<&'static str, Problem> {
    if *db.shell.leaving.borrow() {
        return Err(leaving());
    }
    let answer = db.shell.inbox.look(|_| ()).await;
    answer.map(|()| "ready\n").ok_or_else(|| Problem::unavailable("this db node has stopped"))
}

async fn revoked(State(db): State<Db>) -> Json<Vec<String>> {
    Json(db.shell.revoked.as_ref().map(Revoked::names).unwrap_or_default())
}

fn leaving() -> Problem {
    Problem::unavailable("this db node is about to end")
}

async fn ask(State(db): State<Db>, Json(request): Json<Request>) -> Result<Json<Response>, Problem> {
    answer(&db, request).await.map(Json)
}

/// Several requests, each answered as if it had come by itself.
async fn asks(State(db): State<Db>, Json(requests): Json<Vec<Request>>) -> Json<Answers> {
    Json(join_all(requests.into_iter().map(|request| answer(&db, request))).await)
}

pub(super) async fn answer(db: &Db, request: Request) -> Result<Response, Problem> {
    let blobs = db.shell.blobs.ensure(request.blobs(), None).await.map_err(stored)?;
    if let Some(blob) = blobs {
        let detail = format!("blob {blob} is not here: send it first, then what names it");
        return Err(Problem::conflict("blob-missing", detail));
    }
    let mut left = db.shell.leaving.subscribe();
    let waits = request.wait_ms() > 0;
    let response = tokio::select! {
        response = db.ask(request) => response.map_err(|error| Problem::unavailable(error.to_string()))?,
        _ = left.wait_for(|left| *left), if waits => return Err(leaving()),
    };
    if let Response::Refused(
        refusal @ (Refusal::NoAnswer | Refusal::Unreachable { .. } | Refusal::TooFewCopies { .. }),
    ) = response
    {
        // Another node may know better, or this one in a moment.
        return Err(Problem::unavailable(refusal.to_string()));
    }
    Ok(response)
}

/// Letters of another db node, each heard as soon as it is here. Those that name blobs wait for them on their own.
async fn letters(
    State(db): State<Db>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    if headers.get(header::CONTENT_TYPE).is_none_or(|format| format != FORMAT) {
        let detail = format!("letters come as {FORMAT}: send them with that content-type");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unknown-format", detail));
    }
    let mut body = Unpack::new(body);
    while let Some(received) = body.next().await? {
        let from = match &received {
            Received::Letter(letter) => letter.from,
            Received::Unknown(from) => *from,
        };
        if let Some(Extension(caller)) = &caller {
            caller.must_be(from)?;
        }
        match received {
            Received::Letter(letter) => hear(&db, letter).await,
            Received::Unknown(from) => {
                let unknown = &db.shell.meters.letters_unknown;
                if unknown.get() == 0 {
                    tracing::warn!(%from, "a letter says what this program does not know: the other one is newer");
                }
                unknown.add(1);
            }
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn hear(db: &Db, letter: Letter) {
    let blobs = letter.blobs();
    if blobs.is_empty() {
        return db.shell.inbox.deliver(letter).await;
    }
    let db = db.clone();
    tokio::spawn(async move {
        match db.shell.blobs.ensure(blobs, Some(letter.from)).await {
            Ok(None) => db.shell.inbox.deliver(letter).await,
            Ok(Some(blob)) => tracing::debug!(%blob, from = %letter.from, "a letter without its blob"),
            Err(error) => {
                tracing::warn!(%error, from = %letter.from, "a letter's blobs cannot be kept")
            }
        }
    });
}

async fn put_blob(
    State(db): State<Db>,
    Path(digest): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let digest = parse(&digest)?;
    if let Some(disk) = nodes::disk(&db).await.filter(|disk| disk.full) {
        return Err(full(&db, disk));
    }
    db.shell.blobs.put(digest, body).await.map_err(stored)?;
    Ok(StatusCode::NO_CONTENT)
}

fn full(db: &Db, disk: DiskView) -> Problem {
    let detail = format!(
        "the disk of {} has {} left, and {} of it are kept free: delete what is not needed, enlarge it, or add a db node",
        db.id(),
        size(disk.free),
        size(db.shell.keep_free)
    );
    Problem::new(StatusCode::INSUFFICIENT_STORAGE, "disk-full", detail)
}

/// Where a blob is looked for.
#[derive(Deserialize)]
struct Where {
    /// At this node alone.
    #[serde(default)]
    here: bool,
}

/// A blob of this node, or of one that has it. One that has rotted here is mended on the way.
async fn blob(
    State(db): State<Db>,
    Path(digest): Path<String>,
    Query(place): Query<Where>,
) -> Result<HttpResponse, Problem> {
    let digest = parse(&digest)?;
    let found = match db.shell.blobs.get(digest).await {
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::warn!(%error, "a damaged blob");
            if place.here {
                // Whoever asks has others to ask; this node needs its copy all the same.
                tokio::spawn(async move { mend(&db, digest).await });
                return Err(Problem::not_found(format!("blob {digest} was damaged here")));
            }
            None
        }
        found => found.map_err(stored)?,
    };
    let bytes = match found {
        None if !place.here => mend(&db, digest).await,
        found => found.map(Bytes::from),
    };
    bytes
        .map(IntoResponse::into_response)
        .ok_or_else(|| Problem::not_found(format!("blob {digest} is not here")))
}

/// Fetches a blob that is missing here from another node, and keeps it if it belongs here.
async fn mend(db: &Db, digest: Digest) -> Option<Bytes> {
    let bytes = db.shell.blobs.fetch(digest, None).await?;
    if db.shell.inbox.look(move |node| node.refers_to(&digest)).await == Some(true) {
        match db.shell.blobs.put(digest, bytes.clone()).await {
            Ok(()) => tracing::info!(%digest, "a blob that was missing here came from another node"),
            Err(error) => tracing::warn!(%digest, %error, "a blob that was missing here could not be kept"),
        }
    }
    Some(bytes)
}

fn parse(digest: &str) -> Result<Digest, Problem> {
    digest.parse().map_err(|error| Problem::bad_request("bad-digest", format!("'{digest}': {error}")))
}

fn stored(error: StoreError) -> Problem {
    let detail = error.to_string();
    if let StoreError::Full { .. } = error {
        Problem::new(StatusCode::INSUFFICIENT_STORAGE, "disk-full", detail)
    } else if let StoreError::Mismatch { .. } = error {
        Problem::bad_request("digest-mismatch", detail)
    } else {
        Problem::internal(detail)
    }
}
