//! Small requests that go together: while some are on their way to a db node, those asked meanwhile gather and go in one
//! request. So a worker with many tiny pieces of work pays for HTTP once for many of them, and a lone report waits for
//! nobody.

use std::sync::{Mutex, MutexGuard};

use axum::body::Bytes;
use dml_core::node::{Request, Response};
use tokio::sync::oneshot;

use super::{
    Link, PATIENCE,
    exchange::{JSON, Question},
};
use crate::{db::ASKS, problem::Problem};

/// What is said to each of several requests.
pub(crate) type Answers = Vec<Result<Response, Problem>>;

/// How many go in one request at the most.
const MOST: usize = 256;

/// How many such requests may be on their way, so that one slow answer does not hold up all.
const LINES: usize = 2;

/// What has gathered.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Vec<(Request, oneshot::Sender<Result<Response, Problem>>)>,
    lines: usize,
}

impl Link {
    /// Asks together with others. None if the request is to be asked again by itself: no node has answered, or the one
    /// that did could not do it.
    pub(super) async fn ask_together(&self, request: &Request) -> Option<Result<Response, Problem>> {
        let (tell, told) = oneshot::channel();
        let is_line = {
            let mut queue = lock(&self.shared.queue);
            queue.waiting.push((request.clone(), tell));
            let is_line = queue.lines < LINES;
            queue.lines += usize::from(is_line);
            is_line
        };
        if is_line {
            // Not as a part of this call, which may be given up while others count on it.
            tokio::spawn(carry(self.clone()));
        }
        let answer = told.await.ok()?;
        let is_settled = |problem: &Problem| problem.status < 500 && problem.code != "blob-missing";
        if answer.as_ref().err().is_none_or(is_settled) { Some(answer) } else { None }
    }
}

/// Carries what has gathered until nothing is left.
async fn carry(link: Link) {
    loop {
        let group: Vec<_> = {
            let mut queue = lock(&link.shared.queue);
            let most = queue.waiting.len().min(MOST);
            if most == 0 {
                queue.lines -= 1;
                return;
            }
            queue.waiting.drain(..most).collect()
        };
        let (requests, tellers): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let body = Bytes::from(serde_json::to_vec(&requests).expect("requests have string keys"));
        let question = Question::post(ASKS, JSON, body);
        let answers = link.call(&question, PATIENCE).await.ok();
        let answers: Answers =
            answers.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        // Without an answer each asks again by itself. Who does not wait any more needs none.
        for (tell, answer) in tellers.into_iter().zip(answers) {
            let _ = tell.send(answer);
        }
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().expect("nobody panics while holding it")
}
