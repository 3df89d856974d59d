//! What a db node answers on HTTP, to workers and to other db nodes.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::StatusCode,
    response::{IntoResponse, Response as HttpResponse},
    routing::{get, post, put},
};
use dml_core::{
    Body, Digest,
    node::{Outcome, Request, Response},
};
use dml_store::{Store, StoreError};

use super::Db;
use crate::{
    problem::Problem,
    view::{NodeView, Page, Role},
};

/// The largest blob: a chunk is 16 MiB of CSV, and a state or model may be larger.
pub(crate) const MAX_BLOB: usize = 256 << 20;

/// The largest request to the brain: the record of a dataset with very many chunks.
const MAX_ASK: usize = 64 << 20;

pub(super) fn router(db: Db) -> Router {
    Router::new()
        .route("/v1/ask", post(ask).layer(DefaultBodyLimit::max(MAX_ASK)))
        .route("/v1/blobs/{digest}", put(put_blob).get(blob).layer(DefaultBodyLimit::max(MAX_BLOB)))
        .route("/v1/nodes", get(nodes))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .with_state(db)
}

async fn ready(State(db): State<Db>) -> Result<&'static str, Problem> {
    let answer = db.ask(Request::Workers).await;
    answer.map(|_| "ready\n").map_err(|error| Problem::unavailable(error.to_string()))
}

async fn ask(State(db): State<Db>, Json(request): Json<Request>) -> Result<Json<Response>, Problem> {
    for blob in named(&request) {
        let known = blocking(&db, move |store| store.has_blob(blob)).await?;
        if !known {
            let detail = format!("blob {blob} is not here: send it first, then what names it");
            return Err(Problem::conflict("blob-missing", detail));
        }
    }
    let response = db.ask(request).await;
    response.map(Json).map_err(|error| Problem::unavailable(error.to_string()))
}

/// The blobs that a request names for the first time: they must be here before a record may name them.
fn named(request: &Request) -> Vec<Digest> {
    if let Request::Create { body: Body::Dataset(dataset), .. } = request {
        dataset.chunks.iter().map(|chunk| chunk.digest).collect()
    } else if let Request::Report {
        outcome: Outcome::Partial(blob) | Outcome::State { state: blob, .. },
        ..
    } = request
    {
        vec![*blob]
    } else {
        Vec::new()
    }
}

async fn put_blob(
    State(db): State<Db>,
    Path(digest): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let digest = parse(&digest)?;
    blocking(&db, move |store| store.put_blob(digest, &body)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn blob(State(db): State<Db>, Path(digest): Path<String>) -> Result<HttpResponse, Problem> {
    let digest = parse(&digest)?;
    match blocking(&db, move |store| store.blob(digest)).await? {
        Some(bytes) => Ok(bytes.into_response()),
        None => Err(Problem::not_found(format!("blob {digest} is not here"))),
    }
}

async fn nodes(State(db): State<Db>) -> Result<Json<Page<NodeView>>, Problem> {
    let itself = NodeView {
        id: db.id().into(),
        role: Role::Db,
        address: None,
        active: true,
        slots: 0,
        busy: 0,
        age_ms: 0,
    };
    let Ok(Response::Workers(workers)) = db.ask(Request::Workers).await else {
        return Err(Problem::unavailable("this db node has stopped"));
    };
    let workers = workers.into_iter().map(|seen| NodeView {
        id: seen.worker,
        role: Role::Worker,
        address: None,
        active: Duration::from_millis(seen.age_ms) < ACTIVE,
        slots: seen.capacity,
        busy: seen.leases,
        age_ms: seen.age_ms,
    });
    Ok(Json(Page { items: std::iter::once(itself).chain(workers).collect(), next_cursor: None }))
}

/// A worker claims at least every half minute; one that is full for long renews its leases more often.
const ACTIVE: Duration = Duration::from_secs(45);

fn parse(digest: &str) -> Result<Digest, Problem> {
    digest.parse().map_err(|error| Problem::bad_request("bad-digest", format!("'{digest}': {error}")))
}

/// Runs a store's function where it may block.
async fn blocking<T: Send + 'static>(
    db: &Db,
    work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    let store: Arc<dyn Store> = db.shell.store.clone();
    let result = tokio::task::spawn_blocking(move || work(&*store)).await;
    result.map_err(|error| Problem::internal(error.to_string()))?.map_err(|error| {
        let detail = error.to_string();
        if let StoreError::Full { .. } = error {
            Problem::new(StatusCode::INSUFFICIENT_STORAGE, "disk-full", detail)
        } else if let StoreError::Mismatch { .. } = error {
            Problem::bad_request("digest-mismatch", detail)
        } else {
            Problem::internal(detail)
        }
    })
}
