//! What goes on by itself once it is there, a training, a study, a prediction: listed, shown, waited for, told event by
//! event, cancelled, deleted.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use axum::{
    Json,
    body::{Body as HttpBody, Bytes},
    extract::{Path, State as Extract},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
};
use dml_core::{
    Body, Digest, Job,
    node::{Entry, Request, Response},
    record::Kind,
    training::State,
};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    CheckedQuery, Listed, Paging, TOGETHER, ask, find, negotiate, parse_wait, recent::Answer, unexpected,
};
use crate::{problem::Problem, worker::Worker};

/// Something with its jobs, as a db node told it.
pub(super) struct Told {
    pub(super) id: Digest,
    pub(super) version: u64,
    pub(super) name: Option<String>,
    pub(super) created_ms: u64,
    pub(super) body: Body,
    /// How many pieces of its own are leased, if it is a job.
    pub(super) leased: u32,
    /// Each with how many of its pieces are leased.
    pub(super) jobs: BTreeMap<Digest, (Job, u32)>,
}

impl Told {
    pub(super) fn new(version: u64, entries: Vec<Entry>) -> Option<Self> {
        let mut entries = entries.into_iter();
        let root = entries.next()?;
        let jobs = entries.filter_map(|entry| match entry.record.body {
            Some(Body::Job(job)) => Some((entry.id, (job, entry.leased))),
            Some(
                Body::Dataset(_) | Body::Training(_) | Body::Study(_) | Body::Token(_) | Body::Revocation(_),
            )
            | None => None,
        });
        Some(Self {
            id: root.id,
            version,
            name: root.record.names.latest().map(Into::into),
            created_ms: root.record.names.since(),
            body: root.record.body?,
            leased: root.leased,
            jobs: jobs.collect(),
        })
    }
}

/// Something that goes on by itself until it is over.
pub(super) trait Watched: Sized + Send + Sync + 'static {
    /// What it is.
    const KIND: Kind;

    /// The least time between two events, so that a crowd of small steps makes few.
    const PAUSE: Duration;

    /// How users see it.
    type View: Serialize + Send + Sync;

    /// Takes what a db node told, if that is such a thing.
    fn of(told: Told) -> Option<Self>;

    /// Which version of it this is; it grows with each change.
    fn version(&self) -> u64;

    /// How it stands.
    fn state(&self) -> State;

    /// Whether it has ended, well or not.
    fn is_over(&self) -> bool {
        self.state().is_final()
    }

    /// It, as users see it.
    fn view(&self, worker: &Worker) -> impl Future<Output = Result<Self::View, Problem>> + Send;

    /// Fetches it, as soon as it is newer than `seen`.
    fn fetch(
        worker: &Worker,
        id: Digest,
        seen: u64,
        wait_ms: u64,
    ) -> impl Future<Output = Result<Self, Problem>> + Send {
        async move {
            let watch = Request::Watch { id, seen, wait_ms };
            let Response::Family { version, entries } = ask(worker, watch).await? else {
                return Err(unexpected());
            };
            Told::new(version, entries).and_then(Self::of).ok_or_else(unexpected)
        }
    }
}

/// How long to wait for the end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    pub(super) wait: Option<String>,
}

impl Wait {
    /// When the wait is over.
    pub(super) fn until(&self) -> Result<Instant, Problem> {
        let wait = self.wait.as_deref().map(parse_wait).transpose()?.unwrap_or_default();
        Ok(Instant::now() + wait)
    }
}

/// It when it is over, or at that time, or when this worker is about to end.
pub(super) async fn wait_for<W: Watched>(worker: &Worker, id: Digest, until: Instant) -> Result<W, Problem> {
    let mut watched = W::fetch(worker, id, 0, 0).await?;
    loop {
        // In steps that a db node allows.
        let left = until.saturating_duration_since(Instant::now()).min(Duration::from_secs(25));
        if watched.is_over() || left.as_millis() == 0 {
            return Ok(watched);
        }
        watched = tokio::select! {
            fetched = W::fetch(worker, id, watched.version(), left.as_millis() as u64) => fetched?,
            () = worker.stopping() => return Ok(watched),
        };
    }
}

/// The answer to who has just created it.
pub(super) async fn created<W: Watched>(worker: &Worker, id: Digest) -> Result<HttpResponse, Problem> {
    let view = W::fetch(worker, id, 0, 0).await?.view(worker).await?;
    let location = format!("/v1/{}/{id}", W::KIND.plural());
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(view)).into_response())
}

pub(super) async fn list<W: Watched>(
    Extract(worker): Extract<Worker>,
    CheckedQuery(paging): CheckedQuery<Paging>,
) -> Result<Listed<W::View>, Problem> {
    let request = Request::List { kind: W::KIND, after: paging.after()?, limit: paging.limit()? };
    let Response::Page { entries, next } = ask(&worker, request).await? else { return Err(unexpected()) };
    let views = stream::iter(entries).map(|entry| {
        let worker = worker.clone();
        async move { W::fetch(&worker, entry.id, 0, 0).await?.view(&worker).await }
    });
    let mut views = views.buffered(TOGETHER);
    let mut items = Vec::new();
    while let Some(view) = views.next().await {
        match view {
            Ok(view) => items.push(view),
            // Deleted since it was listed.
            Err(problem) if problem.status == 404 => {}
            Err(problem) => return Err(problem),
        }
    }
    Listed::new(items, next, &paging)
}

pub(super) async fn show<W: Watched>(
    Extract(worker): Extract<Worker>,
    Path(text): Path<String>,
    CheckedQuery(wait): CheckedQuery<Wait>,
) -> Result<Answer, Problem> {
    let until = wait.until()?;
    let turn = match worker.shared.recent.answer(W::KIND, &text) {
        Ok(answer) => return Ok(answer),
        Err(turn) => turn,
    };
    let id = find(&worker, W::KIND, &text).await?;
    let watched: W = wait_for(&worker, id, until).await?;
    let view = watched.view(&worker).await?;
    // What ended otherwise can be taken up again, at another worker.
    let is_settled = watched.state() == State::Succeeded;
    Ok(worker.shared.recent.answered(W::KIND, &text, &view, is_settled, turn))
}

pub(super) async fn cancel<W: Watched>(
    Extract(worker): Extract<Worker>,
    Path(id): Path<String>,
) -> Result<Json<W::View>, Problem> {
    let id = find(&worker, W::KIND, &id).await?;
    ask(&worker, Request::Cancel { id }).await?;
    Ok(Json(W::fetch(&worker, id, 0, 0).await?.view(&worker).await?))
}

pub(super) async fn delete<W: Watched>(
    Extract(worker): Extract<Worker>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = find(&worker, W::KIND, &id).await?;
    ask(&worker, Request::Delete { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Server-sent events (WHATWG HTML, section 9.2): the thing each time that it has moved, until it is over.
pub(super) async fn events<W: Watched>(
    Extract(worker): Extract<Worker>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<HttpResponse, Problem> {
    negotiate(&headers, &["text/event-stream"])?;
    let id = find(&worker, W::KIND, &id).await?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(String::from);
    if last.is_some() {
        let now = W::fetch(&worker, id, 0, 0).await?;
        if now.is_over() && last == Some(tell(&now.view(&worker).await?).0) {
            // Nothing will follow: this tells a browser not to ask again.
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
    let events = stream::unfold(Some(Seen { version: 0, last }), move |seen| {
        let worker = worker.clone();
        async move { next_event::<W>(&worker, id, seen?).await }
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((kind, HttpBody::from_stream(events)).into_response())
}

/// A view as the data of an event, and their digest as its id: so a client that comes back, to whichever worker, can say
/// what it saw last.
fn tell(view: &impl Serialize) -> (String, String) {
    let data = serde_json::to_string(view).expect("views have string keys");
    (Digest::of(data.as_bytes()).to_string(), data)
}

/// What a client has seen.
struct Seen {
    /// The version at the db node; 0 for none.
    version: u64,
    /// The id of the last event, of this connection or the one before.
    last: Option<String>,
}

type Event = (Result<Bytes, Infallible>, Option<Seen>);

/// The next event, and what was seen with it; none when it is the last.
async fn next_event<W: Watched>(worker: &Worker, id: Digest, seen: Seen) -> Option<Event> {
    if seen.version > 0 {
        tokio::time::sleep(W::PAUSE).await;
    }
    let fetched = tokio::select! {
        fetched = W::fetch(worker, id, seen.version, 15_000) => fetched,
        // The client asks again, another worker.
        () = worker.stopping() => return None,
    };
    // A comment keeps the connection.
    let nothing_new = |seen| Some((Ok(Bytes::from_static(b": \n\n")), Some(seen)));
    let told = match fetched {
        Ok(watched) if watched.version() == seen.version => return nothing_new(seen),
        Ok(watched) => watched.view(worker).await.map(|view| (watched, tell(&view))),
        Err(problem) => Err(problem),
    };
    let (event, next) = match told {
        Ok((watched, (digest, data))) => {
            let (version, is_over) = (watched.version(), watched.is_over());
            if !is_over && seen.last.as_ref() == Some(&digest) {
                return nothing_new(Seen { version, ..seen });
            }
            let event = format!("id: {digest}\nevent: {}\ndata: {data}\n\n", W::KIND.name());
            (event, (!is_over).then_some(Seen { version, last: Some(digest) }))
        }
        Err(problem) => {
            let data = serde_json::to_string(&problem).expect("problems have string keys");
            (format!("event: problem\ndata: {data}\n\n"), None)
        }
    };
    Some((Ok(event.into()), next))
}
