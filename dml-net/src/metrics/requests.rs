//! The requests that a node answers: each is counted, and logged under the trace that it is part of.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use hyper::{Method, StatusCode};
use tokio::time::Instant;
use tracing::Instrument;

use super::{Histogram, Page};
use crate::trace::Trace;

/// How many requests there were to each route, how they went and how long they took. Routes are named by their patterns,
/// so there are no more of them than a router has.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<BTreeMap<(String, &'static str), Answers>>);

/// The answers of one route to one method.
#[derive(Debug, Default)]
struct Answers {
    statuses: BTreeMap<u16, u64>,
    took: Histogram,
}

impl Requests {
    fn count(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let mut answers = self.0.lock().expect("nobody panics while holding it");
        let answers = answers.entry((route.into(), known(method))).or_default();
        *answers.statuses.entry(status.as_u16()).or_default() += 1;
        answers.took.observe(took);
    }

    pub(crate) fn write(&self, page: &mut Page) {
        let answers = self.0.lock().expect("nobody panics while holding it");
        const COUNT: &str = "dml_requests_total";
        page.head(COUNT, "counter", "Requests that were answered.");
        for ((route, method), answers) in &*answers {
            for (status, count) in &answers.statuses {
                let labels = [("route", route.as_str()), ("method", method), ("status", &status.to_string())];
                page.sample(COUNT, &labels, *count as f64);
            }
        }
        const TOOK: &str = "dml_request_duration_seconds";
        page.head(TOOK, "histogram", "Time to the head of the answer, waits on purpose included.");
        for ((route, method), answers) in &*answers {
            page.histogram(TOOK, &[("route", route), ("method", method)], &answers.took);
        }
    }
}

/// A method as a label: whoever invents methods makes no new ones.
fn known(method: &Method) -> &'static str {
    let all = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
    all.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// The router, with its requests counted and logged.
pub(crate) fn observed(router: Router, requests: Arc<Requests>) -> Router {
    router.layer(from_fn_with_state(requests, observe))
}

async fn observe(State(requests): State<Arc<Requests>>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let trace = Trace::received(request.headers()).unwrap_or_else(Trace::new);
    let span = tracing::info_span!("request", trace = %trace, %method, route);
    let answering = async {
        let start = Instant::now();
        let response = next.run(request).await;
        let (status, took) = (response.status(), start.elapsed());
        requests.count(route, &method, status, took);
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(%status, ?took, "answered");
        } else {
            tracing::debug!(%status, ?took, "answered");
        }
        response
    };
    trace.during(answering.instrument(span)).await
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};
    use http_body_util::BodyExt;

    use super::*;
    use crate::peer::Peer;

    #[tokio::test]
    async fn requests_are_counted_by_route_not_by_path() {
        let requests = Arc::new(Requests::default());
        let router = Router::new().route("/things/{id}", get(async || "here"));
        let peer = Peer::router(observed(router, requests.clone()));
        let methods = [("GET", "/things/1"), ("GET", "/things/2"), ("BREW", "/things/3"), ("GET", "/else")];
        for (method, path) in methods {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            peer.call(request).await.unwrap();
        }
        let mut page = Page::default();
        requests.write(&mut page);
        let page = axum::response::IntoResponse::into_response(page).into_body().collect().await.unwrap();
        let page = String::from_utf8(page.to_bytes().to_vec()).unwrap();
        let counts: Vec<&str> = page.lines().filter(|line| line.starts_with("dml_requests_total")).collect();
        assert_eq!(
            counts,
            [
                r#"dml_requests_total{route="/things/{id}",method="GET",status="200"} 2"#,
                r#"dml_requests_total{route="/things/{id}",method="other",status="405"} 1"#,
                r#"dml_requests_total{route="none",method="GET",status="404"} 1"#,
            ]
        );
        let count = r#"dml_request_duration_seconds_count{route="/things/{id}",method="GET"} 2"#;
        assert!(page.contains(count), "{page}");
    }
}
