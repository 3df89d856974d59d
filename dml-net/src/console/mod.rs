//! The console in the browser, on every worker. It is a client of the REST API in the same process: it shows nothing and
//! does nothing that a user of the API could not.
//!
//! Pages are made whole on the worker and work without a script. The script, one small file, only saves reloading:
//! it watches what moves and shows how far an upload is. Nothing comes from elsewhere, and the browser is told to refuse
//! what would ([`frame`]).

mod cluster;
mod datasets;
mod frame;
mod jobs;
mod logs;
mod models;
mod overview;
mod predictions;
mod reference;
mod studies;
mod train;
mod trainings;
mod words;

use axum::{
    Router,
    extract::{FromRequestParts, Query},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::{Deserialize, de::DeserializeOwned};

use self::frame::Frame;
use crate::{client::Client, problem::Problem};

/// How many things a list shows at a time.
const PAGE: usize = 25;

/// The pages, which ask this client for what they show.
pub(crate) fn router(client: Client) -> Router {
    Router::new()
        .route("/", get(overview::page))
        .route("/datasets", get(datasets::list).post(datasets::upload))
        .route("/datasets/{id}", get(datasets::page))
        .route("/datasets/{id}/delete", post(datasets::delete))
        .route("/train", get(train::page).post(train::begin))
        .route("/tune", get(train::tuning).post(train::begin_tuning))
        .route("/studies", get(studies::list))
        .route("/studies/{id}", get(studies::page))
        .route("/studies/{id}/plot.svg", get(studies::plot))
        .route("/studies/{id}/cancel", post(studies::cancel))
        .route("/studies/{id}/delete", post(studies::delete))
        .route("/trainings", get(trainings::list))
        .route("/trainings/{id}", get(trainings::page))
        .route("/trainings/{id}/cancel", post(trainings::cancel))
        .route("/trainings/{id}/delete", post(trainings::delete))
        .route("/models", get(models::list))
        .route("/models/{id}", get(models::page).post(models::r#try))
        .route("/models/{id}/plot.svg", get(models::plot))
        .route("/predictions", get(predictions::list).post(predictions::begin))
        .route("/predictions/{id}", get(predictions::page))
        .route("/predictions/{id}/delete", post(predictions::delete))
        .route("/jobs", get(jobs::page))
        .route("/cluster", get(cluster::page))
        .route("/logs", get(logs::page))
        .route("/docs", get(reference::page))
        .route("/console.css", get(async || file("text/css", include_str!("console.css"))))
        .route("/console.js", get(async || file("text/javascript", include_str!("console.js"))))
        .route("/console.svg", get(async || file("image/svg+xml", include_str!("console.svg"))))
        .with_state(client)
}

fn file(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}

/// What went wrong, as a page: the problem that the API told.
struct Trouble {
    frame: Frame,
    problem: Problem,
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let page = self.frame.page(&self.problem.title, frame::alert(&self.problem));
        (status, page).into_response()
    }
}

type Answer = Result<Response, Trouble>;

/// Where a list goes on.
#[derive(Debug, Default, Deserialize)]
struct Cursor {
    cursor: Option<String>,
}

/// A query; one that cannot be read counts as empty.
struct Asked<T>(T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(Query::try_from_uri(&parts.uri).map_or_else(|_| T::default(), |Query(asked)| asked)))
    }
}

/// To another page after something was done.
fn to(frame: &Frame, path: &str) -> Response {
    Redirect::to(&format!("{}{path}", frame.base)).into_response()
}
