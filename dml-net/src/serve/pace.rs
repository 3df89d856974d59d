//! Bodies have to come in. A body has some patience to spend, which runs down while the server waits for more of it, and
//! is given back with what comes: so one that comes steadily may take as long as it likes, and one that trickles ends.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{BoxError, body::HttpBody};
use hyper::{
    StatusCode,
    body::{Bytes, Frame, Incoming, SizeHint},
};
use tokio::time::{Instant, Sleep, sleep};

use crate::problem::Problem;

/// A body with so many bytes a second never runs out of patience.
const BYTES_PER_SECOND: u64 = 1000;

/// A body that ends with an error when it is too slow. What the server does on its own account does not count.
pub(super) struct Paced {
    body: Incoming,
    most: Duration,
    left: Duration,
    /// Since when it is waited for, and the end of the patience.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    late: Late,
}

/// Whether a body was too slow.
#[derive(Clone, Default)]
pub(super) struct Late(Arc<AtomicBool>);

impl Late {
    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn problem(&self) -> Problem {
        let detail = format!(
            "the body came in too slowly: send it at {BYTES_PER_SECOND} bytes a second or more, without long pauses"
        );
        Problem::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", detail)
    }
}

impl Paced {
    pub(super) fn new(body: Incoming, patience: Duration) -> (Self, Late) {
        let late = Late::default();
        (Self { body, most: patience, left: patience, waiting: None, late: late.clone() }, late)
    }

    fn came(&mut self, bytes: usize) {
        if let Some((since, _)) = self.waiting.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        let earned = Duration::from_millis(bytes as u64 * 1000 / BYTES_PER_SECOND);
        self.left = (self.left + earned).min(self.most);
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            let bytes = data.map_or(0, Bytes::len);
            self.came(bytes);
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let left = self.left;
        let (_, patience) = self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
        ready!(patience.as_mut().poll(context));
        self.late.0.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Err(self.late.problem().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
