//! The users' REST API, on every worker. It keeps nothing: every request is answered from the db nodes.

pub(crate) mod access;
mod datasets;
mod ensembles;
mod evidence;
mod inflate;
mod keys;
mod logs;
mod models;
mod nodes;
mod openapi;
mod predictions;
mod range;
mod recent;
mod revocations;
mod studies;
mod table_body;
mod tokens;
mod trainings;
mod watched;

pub(crate) use access::Tokens;
use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, FromRequest, FromRequestParts, Query,
        rejection::{JsonRejection, QueryRejection},
    },
    http::header,
    response::{IntoResponse, Response as HttpResponse},
    routing::{delete, get, post},
};
use dml_core::{
    Digest,
    node::{Cursor, Refusal, Request, Response},
    record::Kind,
};
pub(crate) use ensembles::Ensembles;
use evidence::Family;
pub(crate) use keys::Keys;
use predictions::Batch;
pub(crate) use recent::Recent;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use studies::Search;
pub(crate) use table_body::Lengths;
pub(crate) use tokens::now;

use crate::{
    link::LinkError,
    metrics,
    problem::Problem,
    view::Page,
    worker::{self, Worker},
};

/// The largest JSON body, and the largest table that is predicted at once.
const MAX_BODY: usize = 32 << 20;

/// How many things of a page are asked for at a time.
const TOGETHER: usize = 16;

/// The routes of a worker.
pub(crate) fn router(worker: Worker) -> Router {
    Router::new()
        .route("/v1/datasets", post(datasets::create).layer(DefaultBodyLimit::disable()).get(datasets::list))
        .route("/v1/datasets/{id}", get(datasets::show).delete(datasets::delete))
        .route("/v1/datasets/{id}/rows", get(datasets::rows))
        .route("/v1/datasets/{id}/content", get(datasets::content))
        .route("/v1/trainings", post(trainings::create).get(watched::list::<Family>))
        .route("/v1/trainings/{id}", get(watched::show::<Family>).delete(watched::delete::<Family>))
        .route("/v1/trainings/{id}/events", get(watched::events::<Family>))
        .route("/v1/trainings/{id}/cancel", post(watched::cancel::<Family>))
        .route("/v1/studies", post(studies::create).get(watched::list::<Search>))
        .route("/v1/studies/{id}", get(watched::show::<Search>).delete(watched::delete::<Search>))
        .route("/v1/studies/{id}/events", get(watched::events::<Search>))
        .route("/v1/studies/{id}/trials", get(studies::trials))
        .route("/v1/studies/{id}/cancel", post(watched::cancel::<Search>))
        .route("/v1/kinds", get(models::kinds))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::show))
        .route("/v1/models/{id}/download", get(models::download))
        .route("/v1/models/{id}/predict", post(models::predict))
        .route("/v1/ml-distributed/fit", post(ensembles::fit))
        .route("/v1/ml-distributed/evaluate", post(ensembles::evaluate))
        .route("/v1/ml-distributed/predict", post(ensembles::predict))
        .route("/v1/predictions", post(predictions::create).get(predictions::list))
        .route("/v1/predictions/{id}", get(watched::show::<Batch>).delete(watched::delete::<Batch>))
        .route("/v1/predictions/{id}/events", get(watched::events::<Batch>))
        .route("/v1/predictions/{id}/results", get(predictions::results))
        .route("/v1/revocations", post(revocations::create).get(revocations::list))
        .route("/v1/tokens", post(tokens::create).get(tokens::list))
        .route("/v1/tokens/{id}", delete(tokens::delete))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/routing/{id}", get(nodes::route))
        .route("/v1/logs", get(logs::list))
        .route(metrics::PATH, get(worker::metrics))
        .route("/openapi.json", get(openapi::document))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(nodes::ready))
        .fallback(async || Problem::not_found("there is no such route"))
        .method_not_allowed_fallback(async || {
            let status = axum::http::StatusCode::METHOD_NOT_ALLOWED;
            Problem::new(status, "method-not-allowed", "this route does not take this method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(worker)
}

impl From<LinkError> for Problem {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Problem(problem) => problem,
            LinkError::NoneAnswers(_) => Self::unavailable(error.to_string()),
            LinkError::NoBlob(_) | LinkError::Garbled(_) => Self::internal(error.to_string()),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::NotFound { .. } => Self::not_found(detail),
            Refusal::Ambiguous { .. } => Self::conflict("ambiguous-id", detail),
            Refusal::InUse { .. } => Self::conflict("in-use", detail),
            Refusal::NotCancellable => Self::conflict("not-cancellable", detail),
            Refusal::StaleLease { .. } => Self::conflict("stale-lease", detail),
            Refusal::TooManyNames => Self::conflict("too-many-names", detail),
            Refusal::Unreachable { .. } | Refusal::NoAnswer | Refusal::TooFewCopies { .. } => {
                Self::unavailable(detail)
            }
        }
    }
}

/// Asks a db node; a refusal becomes a problem.
async fn ask(worker: &Worker, request: Request) -> Result<Response, Problem> {
    let response = worker.shared.link.ask(&request).await;
    if let Request::Create { .. } | Request::Delete { .. } | Request::Cancel { .. } = request {
        worker.shared.recent.forget();
    }
    let response = response?;
    if let Response::Refused(refusal) = response { Err(refusal.into()) } else { Ok(response) }
}

/// The answer was of another kind than the question: a db node of another version.
fn unexpected() -> Problem {
    LinkError::Garbled("the answer to another question").into()
}

/// The id of what a user named.
async fn find(worker: &Worker, kind: Kind, text: &str) -> Result<Digest, Problem> {
    let find = Request::Find { kind, text: text.into() };
    let Response::Found(id) = ask(worker, find).await? else { return Err(unexpected()) };
    Ok(id)
}

/// A name that a user gives: printable, not too long, and not to be taken for an id or a path.
fn check_name(name: &str) -> Result<String, Problem> {
    let name = name.trim();
    let plain = |c: char| c.is_alphanumeric() || " -_.,+()=#@".contains(c);
    match name {
        "" => Err(Problem::bad_request("bad-name", "the name is empty: give one, such as ?name=penguins")),
        _ if name.len() > 200 => {
            Err(Problem::bad_request("bad-name", "the name is longer than 200 bytes: shorten it"))
        }
        _ if !name.chars().all(plain) || name.starts_with('.') => {
            let words =
                "a name has letters, digits, spaces and - _ . , + ( ) = # @, and does not begin with a dot";
            Err(Problem::bad_request("bad-name", words))
        }
        _ if name.parse::<Digest>().is_ok() => {
            Err(Problem::bad_request("bad-name", "this name looks like an id: choose another"))
        }
        _ => Ok(name.into()),
    }
}

/// The query of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paging {
    limit: Option<usize>,
    cursor: Option<String>,
}

impl Paging {
    fn limit(&self) -> Result<usize, Problem> {
        match self.limit.unwrap_or(50) {
            limit @ 1..=1000 => Ok(limit),
            limit => Err(Problem::bad_request("bad-limit", format!("limit is from 1 to 1000, not {limit}"))),
        }
    }

    fn after(&self) -> Result<Option<Cursor>, Problem> {
        let Some(text) = &self.cursor else { return Ok(None) };
        let cursor = text.split_once('-').and_then(|(created, id)| {
            Some(Cursor { created_ms: created.parse().ok()?, id: id.parse().ok()? })
        });
        let wrong =
            || Problem::bad_request("bad-cursor", "this is no cursor: use next_cursor of the page before");
        cursor.map(Some).ok_or_else(wrong)
    }
}

/// A page of a list. The next one is told in the body and as a link (RFC 8288). The link is a query alone, so it is good
/// wherever the API is nested.
struct Listed<T> {
    page: Page<T>,
    limit: usize,
}

impl<T> Listed<T> {
    fn new(items: Vec<T>, next: Option<Cursor>, paging: &Paging) -> Result<Self, Problem> {
        let next_cursor = next.map(|cursor| format!("{}-{}", cursor.created_ms, cursor.id));
        Ok(Self { page: Page { items, next_cursor }, limit: paging.limit()? })
    }
}

impl<T: Serialize> IntoResponse for Listed<T> {
    fn into_response(self) -> HttpResponse {
        let link =
            self.page.next_cursor.as_ref().map(|cursor| {
                [(header::LINK, format!("<?limit={}&cursor={cursor}>; rel=\"next\"", self.limit))]
            });
        let body = Json(self.page);
        match link {
            Some(link) => (link, body).into_response(),
            None => body.into_response(),
        }
    }
}

/// `30s`, `500ms` or `30`, at most five minutes.
fn parse_wait(text: &str) -> Result<std::time::Duration, Problem> {
    let (number, unit_ms) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) => (text, 1000),
    };
    let wrong =
        || Problem::bad_request("bad-wait", format!("wait is a time such as 30s or 500ms, not '{text}'"));
    let ms: u64 = number.parse::<u32>().map(|n| u64::from(n) * unit_ms).map_err(|_| wrong())?;
    Ok(std::time::Duration::from_millis(ms.min(300_000)))
}

/// A JSON body; what is wrong with it is told as a problem.
struct Checked<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Checked<T> {
    type Rejection = Problem;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(match &rejection {
                JsonRejection::JsonDataError(_) => Problem::unprocessable("bad-field", rejection.body_text()),
                JsonRejection::MissingJsonContentType(_) => Problem::new(
                    rejection.status(),
                    "not-json",
                    "this route takes JSON: send it with content-type application/json",
                ),
                _ if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE => {
                    Problem::new(rejection.status(), "body-too-large", rejection.body_text())
                }
                JsonRejection::JsonSyntaxError(_) | JsonRejection::BytesRejection(_) | _ => {
                    Problem::new(rejection.status(), "bad-json", rejection.body_text())
                }
            }),
        }
    }
}

/// A query; what is wrong with it is told as a problem.
struct CheckedQuery<T>(T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for CheckedQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self, Problem> {
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        query
            .map(|Query(value)| Self(value))
            .map_err(|error| Problem::bad_request("bad-query", error.body_text()))
    }
}

/// What a client would like to get, of what there is; the first if it does not mind.
fn negotiate<'a>(headers: &axum::http::HeaderMap, offers: &[&'a str]) -> Result<&'a str, Problem> {
    let accept =
        headers.get(axum::http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let wanted = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
    for range in wanted {
        let family = range.strip_suffix("/*").unwrap_or("\0");
        let fits =
            |offer: &&&str| range == "*/*" || range == **offer || offer.split('/').next() == Some(family);
        if let Some(offer) = offers.iter().find(fits) {
            return Ok(offer);
        }
    }
    let status = axum::http::StatusCode::NOT_ACCEPTABLE;
    Err(Problem::new(status, "not-acceptable", format!("this can be had as {}", offers.join(" or "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(check_name(" my table (2).csv ").as_deref(), Ok("my table (2).csv"));
        let id = Digest::of(b"").to_string();
        for bad in
            ["", "..", ".hidden", "a/b", "a\u{1b}[31m", "<script>", "a\nb", "%2f", &"x".repeat(201), &id]
        {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn waits_have_units_and_a_limit() {
        let ms = |text| parse_wait(text).map(|wait| wait.as_millis());
        assert_eq!((ms("30s"), ms("500ms"), ms("2")), (Ok(30_000), Ok(500), Ok(2_000)));
        assert_eq!(ms("4000000000s"), Ok(300_000));
        assert!(["", "s", "-1s", "1h", "1.5s"].iter().all(|bad| parse_wait(bad).is_err()));
    }

    #[test]
    fn clients_get_what_they_accept() {
        let accept = |value: &'static str| {
            let mut headers = axum::http::HeaderMap::new();
            headers.insert("accept", axum::http::HeaderValue::from_static(value));
            negotiate(&headers, &["application/json", "text/csv"]).ok()
        };
        assert_eq!(accept("*/*"), Some("application/json"));
        assert_eq!(accept("text/csv;q=0.9, */*"), Some("text/csv"));
        assert_eq!(accept("text/*"), Some("text/csv"));
        assert_eq!(accept("image/png"), None);
    }
}
