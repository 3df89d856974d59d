//! One request and its answer. What is limited is the silence, not the time: a large blob may take as long as it goes
//! on moving.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt;
use hyper::{
    Method, Request, StatusCode,
    body::{Frame, SizeHint},
    header,
};
use tokio::time::Instant;

use crate::{
    peer::{Peer, PeerError},
    trace::{self, Trace},
};

/// What is asked of a db node.
pub(crate) struct Question {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// In which format the body is.
    pub(crate) format: &'static str,
    pub(crate) body: Bytes,
    /// How long the answer may be kept back on purpose.
    pub(crate) wait: Duration,
}

impl Question {
    /// What is there?
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, ..Self::post(path.into(), BYTES, Bytes::new()) }
    }

    /// To be answered at once.
    pub(crate) fn post(path: impl Into<String>, format: &'static str, body: Bytes) -> Self {
        Self { method: Method::POST, path: path.into(), format, body, wait: Duration::ZERO }
    }
}

/// A question that people can read.
pub(crate) const JSON: &str = "application/json";
/// Bytes without a form.
pub(crate) const BYTES: &str = "application/octet-stream";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Silence {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("it took more than {} s", .0.as_secs())]
    Late(Duration),
    #[error("the answer broke off: {0}")]
    Broke(axum::Error),
    #[error("it is held for dead")]
    GivenUp,
}

/// A body is sent in parts of so many bytes.
const PART: usize = 256 << 10;

/// A db node makes at least so many bytes of a body durable in a second.
const BYTES_PER_SECOND: usize = 16 << 20;

/// Asks, and gives up after `quiet` without a sign of life.
pub(crate) async fn exchange(
    peer: &Peer,
    question: &Question,
    quiet: Duration,
) -> Result<(StatusCode, Bytes), Silence> {
    let digest = Duration::from_secs((question.body.len() / BYTES_PER_SECOND) as u64);
    let patience = Patience::new(quiet);
    let body = if question.body.is_empty() {
        patience.extend(quiet + question.wait);
        Body::empty()
    } else {
        let rest = question.body.clone();
        Body::new(Parts { rest, patience: patience.clone(), quiet, last: quiet + question.wait + digest })
    };
    let request = Request::builder().method(&question.method).uri(&question.path);
    let request = request.header(header::CONTENT_TYPE, question.format).body(body);
    converse(peer, request.expect("our paths and headers are plain"), &patience, quiet).await
}

/// The same for any request whose body extends the patience as it moves.
pub(crate) async fn converse(
    peer: &Peer,
    mut request: Request<Body>,
    patience: &Patience,
    quiet: Duration,
) -> Result<(StatusCode, Bytes), Silence> {
    if let Some(trace) = Trace::to_send() {
        request.headers_mut().insert(trace::HEADER, trace);
    }
    let asked = async {
        let (head, mut body) = peer.call(request).await?.into_parts();
        let mut bytes = Vec::new();
        patience.extend(quiet);
        while let Some(frame) = body.frame().await {
            patience.extend(quiet);
            if let Ok(data) = frame.map_err(Silence::Broke)?.into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        Ok((head.status, Bytes::from(bytes)))
    };
    let mut asked = pin!(asked);
    loop {
        tokio::select! {
            answer = &mut asked => return answer,
            () = tokio::time::sleep_until(patience.end()) => {
                if patience.end() <= Instant::now() {
                    return Err(Silence::Late(quiet));
                }
            }
        }
    }
}

/// When to give up, as known to all who see signs of life.
#[derive(Clone)]
pub(crate) struct Patience(Arc<Mutex<Instant>>);

impl Patience {
    pub(crate) fn new(quiet: Duration) -> Self {
        Self(Arc::new(Mutex::new(Instant::now() + quiet)))
    }

    pub(crate) fn extend(&self, quiet: Duration) {
        *self.0.lock().expect("nobody panics while holding it") = Instant::now() + quiet;
    }

    fn end(&self) -> Instant {
        *self.0.lock().expect("nobody panics while holding it")
    }
}

/// A body that is taken in parts, each of which is a sign of life.
struct Parts {
    rest: Bytes,
    patience: Patience,
    quiet: Duration,
    /// How long the silence after the last part may be.
    last: Duration,
}

impl HttpBody for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(PART);
        let part = self.rest.split_to(length);
        self.patience.extend(if self.rest.is_empty() { self.last } else { self.quiet });
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
