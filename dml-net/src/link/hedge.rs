//! A blob that is wanted soon: a node that is slow is not waited for alone. After a moment the next one is asked as well,
//! and whichever answers first serves (Dean and Barroso 2013, "The tail at scale": hedged requests).

use std::{collections::BTreeSet, time::Duration};

use axum::body::Bytes;
use dml_core::Digest;
use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper::StatusCode;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Link, LinkError, QUIET, exchange::Question};

/// How long a node may be silent before another is asked as well: several times what a blob takes on a good day.
const HEDGE: Duration = Duration::from_millis(100);

impl Link {
    /// Fetches a blob from whichever node gives it first, within `patience`. Its digest is checked.
    pub(crate) async fn blob_within(&self, digest: Digest, patience: Duration) -> Result<Bytes, LinkError> {
        let until = Instant::now() + patience;
        let late =
            || LinkError::NoneAnswers(format!("{digest} did not come within {} ms", patience.as_millis()));
        timeout_at(until, self.first_with(digest)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn first_with(&self, digest: Digest) -> Result<Bytes, LinkError> {
        let question = Question::get(format!("/v1/blobs/{digest}"));
        let mut asked = BTreeSet::new();
        let mut answers = FuturesUnordered::new();
        let mut silent = None;
        loop {
            let another = self.next(&asked);
            let nobody_else = another.is_none();
            if let Some(node) = another {
                asked.insert(node.key);
                let question = &question;
                answers.push(async move { (node.key, self.attempt(&node, question, QUIET).await) });
            } else if answers.is_empty() {
                return Err(silent.map_or(LinkError::NoBlob(digest), LinkError::NoneAnswers));
            }
            let next_turn = Instant::now() + HEDGE;
            loop {
                let (key, outcome) = tokio::select! {
                    answer = answers.next() => match answer {
                        Some(answer) => answer,
                        None => break,
                    },
                    () = sleep_until(next_turn), if !nobody_else => break,
                };
                match outcome {
                    Ok((StatusCode::OK, bytes)) if Digest::of(&bytes) == digest => {
                        self.lock().served(key);
                        return Ok(bytes);
                    }
                    Ok((StatusCode::NOT_FOUND, _)) => {}
                    Ok((status, _)) => silent = Some(format!("a db node answered with {status}")),
                    Err(why) => silent = Some(why.to_string()),
                }
                // This one is of no use: the next one need not wait for its turn.
                if !nobody_else {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::StatusCode as Status, routing::get};

    use super::*;
    use crate::{peer::Peer, problem::Problem};

    const BYTES: &[u8] = b"a member";

    /// A db node that says of any blob what it is told to, after a while.
    fn node(after: Duration, says: Result<&'static [u8], Status>) -> Peer {
        let answer = async move || {
            tokio::time::sleep(after).await;
            says.map_err(|status| Problem::new(status, "not-found", "it is not here"))
        };
        Peer::router(Router::new().route("/v1/blobs/{digest}", get(answer)))
    }

    async fn fetched(nodes: Vec<Peer>) -> (Result<Bytes, LinkError>, Duration) {
        let (link, start) = (Link::new(nodes), Instant::now());
        let fetched = link.blob_within(Digest::of(BYTES), Duration::from_secs(2)).await;
        (fetched, start.elapsed())
    }

    const AT_ONCE: Duration = Duration::ZERO;
    const NEVER: Duration = Duration::from_secs(1000);

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_is_not_waited_for_alone() {
        let slow = || node(NEVER, Ok(BYTES));
        let (bytes, took) = fetched(vec![slow(), slow(), node(AT_ONCE, Ok(BYTES)), slow()]).await;
        assert_eq!(bytes.unwrap(), BYTES);
        assert!((2 * HEDGE..3 * HEDGE).contains(&took), "{took:?}");
        // Who is asked first may still be the first to answer.
        let (bytes, took) = fetched(vec![node(3 * HEDGE / 2, Ok(BYTES)), slow()]).await;
        assert_eq!(bytes.unwrap(), BYTES);
        assert!((HEDGE..2 * HEDGE).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_have_it_or_has_something_else_costs_no_time() {
        let nodes = vec![
            node(AT_ONCE, Err(Status::NOT_FOUND)),
            node(AT_ONCE, Ok(b"another")),
            node(AT_ONCE, Ok(BYTES)),
        ];
        let (bytes, took) = fetched(nodes).await;
        assert_eq!(bytes.unwrap(), BYTES);
        assert!(took < HEDGE, "{took:?}");
        let (nowhere, took) = fetched(vec![node(AT_ONCE, Err(Status::NOT_FOUND)); 3]).await;
        assert!(matches!(nowhere, Err(LinkError::NoBlob(_))) && took < HEDGE, "{nowhere:?} {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn patience_has_an_end() {
        let (late, took) = fetched(vec![node(NEVER, Ok(BYTES)); 2]).await;
        assert!(matches!(late, Err(LinkError::NoneAnswers(_))), "{late:?}");
        assert_eq!(took, Duration::from_secs(2));
    }
}
