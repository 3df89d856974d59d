//! A worker's link to the db nodes: "a db node, whichever answers". Nothing is remembered between requests but who
//! answered last, so any db node may die at any time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::{Body, Bytes};
use dml_core::{
    Digest,
    node::{Request, Response},
};
use http_body_util::BodyExt;
use hyper::{Method, StatusCode, header};

use crate::{db::MAX_BLOB, peer::Peer, problem::Problem};

/// Why the db nodes gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// None of them answers.
    #[error("no db node answers: {0}")]
    NoneAnswers(String),
    /// One answered with an error.
    #[error("{0}")]
    Problem(#[from] Problem),
    /// No node has this blob.
    #[error("the blob {0} is nowhere to be found")]
    NoBlob(Digest),
    /// What came is not what was asked for.
    #[error("a db node answered with {0}: is it of another version?")]
    Garbled(&'static str),
}

/// The db nodes that a worker knows.
#[derive(Clone)]
pub struct Link {
    dbs: Arc<Vec<Known>>,
    /// The one that answered last.
    current: Arc<AtomicUsize>,
}

/// A db node and how it answered last.
struct Known {
    peer: Peer,
    last: Mutex<Option<(bool, Instant)>>,
}

/// How long a request may take beyond the time that it asks to wait.
const PATIENCE: Duration = Duration::from_secs(30);

impl Link {
    /// A link to these db nodes.
    pub fn new(peers: impl IntoIterator<Item = Peer>) -> Self {
        let dbs = peers.into_iter().map(|peer| Known { peer, last: Mutex::new(None) }).collect();
        Self { dbs: Arc::new(dbs), current: Arc::default() }
    }

    /// The db nodes: where, whether they answered last time, how long ago that was.
    pub fn nodes(&self) -> Vec<(Option<String>, bool, Duration)> {
        let node = |known: &Known| {
            let last = *known.last.lock().expect("nobody panics while holding it");
            let (active, at) = last.unwrap_or((false, Instant::now()));
            (known.peer.address().map(Into::into), active, at.elapsed())
        };
        self.dbs.iter().map(node).collect()
    }

    /// Asks the brain of a db node.
    pub async fn ask(&self, request: &Request) -> Result<Response, LinkError> {
        let wait = if let Request::Watch { wait_ms, .. } = request {
            *wait_ms
        } else if let Request::Claim(claim) = request {
            claim.wait_ms
        } else {
            0
        };
        let body = Bytes::from(serde_json::to_vec(request).expect("requests have string keys"));
        let patience = PATIENCE + Duration::from_millis(wait);
        let (_, bytes) = self.call(Method::POST, "/v1/ask", body, patience).await?;
        serde_json::from_slice(&bytes).map_err(|_| LinkError::Garbled("something that is no answer"))
    }

    /// Keeps a blob: it is durable on return.
    pub async fn put_blob(&self, bytes: impl Into<Bytes>) -> Result<Digest, LinkError> {
        let bytes: Bytes = bytes.into();
        if bytes.len() > MAX_BLOB {
            let detail = format!(
                "a result of {} MiB is larger than the {} MiB that a db node keeps: limit the depth, the leaves or the \
                 number of trees",
                bytes.len() >> 20,
                MAX_BLOB >> 20
            );
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "blob-too-large", detail).into());
        }
        let digest = Digest::of(&bytes);
        self.call(Method::PUT, &format!("/v1/blobs/{digest}"), bytes, PATIENCE).await?;
        Ok(digest)
    }

    /// Fetches a blob. Its digest is checked.
    pub async fn blob(&self, digest: Digest) -> Result<Bytes, LinkError> {
        match self.call(Method::GET, &format!("/v1/blobs/{digest}"), Bytes::new(), PATIENCE).await {
            Ok((_, bytes)) if Digest::of(&bytes) == digest => Ok(bytes),
            Ok(_) => Err(LinkError::Garbled("bytes of another digest")),
            Err(LinkError::Problem(problem)) if problem.status == 404 => Err(LinkError::NoBlob(digest)),
            Err(error) => Err(error),
        }
    }

    /// Sends a request to the db node that answered last, and to the next ones while none answers. Every request may
    /// be sent twice: doing a thing twice does it once.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), LinkError> {
        let first = self.current.load(Ordering::Relaxed);
        let mut why = "none is known".to_string();
        for attempt in 0..self.dbs.len().max(1) + 1 {
            let Some(known) = self.dbs.get((first + attempt) % self.dbs.len().max(1)) else { break };
            let exchange = exchange(&known.peer, method.clone(), path, body.clone());
            let answer = tokio::time::timeout(patience, exchange).await;
            let active = matches!(answer, Ok(Ok(_)));
            *known.last.lock().expect("nobody panics while holding it") = Some((active, Instant::now()));
            match answer {
                Ok(Ok((status, bytes))) => {
                    self.current.store((first + attempt) % self.dbs.len(), Ordering::Relaxed);
                    return match serde_json::from_slice::<Problem>(&bytes) {
                        Ok(problem) if !status.is_success() => Err(problem.into()),
                        _ if !status.is_success() => Err(LinkError::Garbled("an error without words")),
                        _ => Ok((status, bytes)),
                    };
                }
                Ok(Err(error)) => why = error,
                Err(_) => why = format!("no answer within {} s", patience.as_secs()),
            }
        }
        Err(LinkError::NoneAnswers(why))
    }
}

async fn exchange(
    peer: &Peer,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), String> {
    let mut request = hyper::Request::builder().method(method).uri(path);
    if path == "/v1/ask" {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(Body::from(body)).map_err(|error| error.to_string())?;
    let response = peer.call(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let bytes = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok((status, bytes))
}
