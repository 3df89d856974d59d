//! Web pages in a browser on this machine reach what listens here, whoever wrote them. A browser says of which page a
//! request is (`Origin`), and which name it took the server for (`Host`): a page of somebody else is refused, and so is a
//! name of somebody else that was made to stand for this machine. Programs other than browsers send no `Origin`.

use std::{net::IpAddr, str::FromStr};

use axum::{body::Body, response::Response};
use hyper::{
    HeaderMap, Method, StatusCode, Uri,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};

use crate::problem::Problem;

/// A server whose web pages may use what is served here: `https://console.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    text: HeaderValue,
    host: String,
}

/// The text names no origin of web pages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not where web pages come from: write https://HOST or http://HOST:PORT, and no path")]
pub struct NotAnOrigin(String);

impl FromStr for Origin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        let no = || NotAnOrigin(text.into());
        let uri: Uri = text.parse().map_err(|_| no())?;
        let plain = matches!(uri.scheme_str(), Some("http" | "https")) && !text.ends_with('/');
        let host =
            uri.host().filter(|_| plain && uri.path() == "/" && uri.query().is_none()).ok_or_else(no)?;
        Ok(Self { text: text.parse().map_err(|_| no())?, host: host.to_ascii_lowercase() })
    }
}

/// Whether a request that came in on the address `to` may be answered. Tells which of the origins it is of, if it is of
/// another server's page.
pub(super) fn check<'a>(
    allowed: &'a [Origin],
    request: &Parts,
    to: IpAddr,
) -> Result<Option<&'a Origin>, Problem> {
    let host = host(&request.headers);
    let name = name(host);
    let known = is_this_machine(name) || allowed.iter().any(|origin| origin.host == name);
    if to.is_loopback() && !host.is_empty() && !known {
        let detail = format!(
            "'{name}' is not a name of this machine: ask for localhost, or start with --allow-origin http://{host} if it \
             is yours"
        );
        return Err(Problem::new(StatusCode::FORBIDDEN, "unknown-host", detail));
    }
    let Some(page) = request.headers.get(header::ORIGIN) else { return Ok(None) };
    let text = page.to_str().unwrap_or_default();
    if text.split_once("://").is_some_and(|(_, server)| server.eq_ignore_ascii_case(host)) {
        return Ok(None);
    }
    let detail = || {
        format!("a web page of '{text}' may not use this: start with --allow-origin {text} if it is yours")
    };
    let refused = || Problem::new(StatusCode::FORBIDDEN, "foreign-page", detail());
    allowed.iter().find(|origin| origin.text == page).map(Some).ok_or_else(refused)
}

impl Origin {
    /// The answer to a browser that asks what the page may do.
    pub(super) fn welcome(&self, request: &Parts) -> Option<Response> {
        let asks = request.method == Method::OPTIONS
            && request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        asks.then(|| {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::NO_CONTENT;
            let allow = |(name, value): (HeaderName, _)| (name, HeaderValue::from_static(value));
            let allowed = [
                (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
                (
                    header::ACCESS_CONTROL_ALLOW_HEADERS,
                    "authorization, content-type, content-encoding, accept",
                ),
                (header::ACCESS_CONTROL_MAX_AGE, "600"),
            ];
            answer.headers_mut().extend(allowed.map(allow));
            self.admit(&mut answer);
            answer
        })
    }

    /// Lets the page read an answer.
    pub(super) fn admit(&self, answer: &mut Response) {
        let headers = answer.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.text.clone());
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("dml-complete, dml-degraded"),
        );
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
}

fn host(headers: &HeaderMap) -> &str {
    headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

/// The host without its port: `[::1]:7300` is `::1`.
fn name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Whether nobody else can have given the machine this name: an address, or one that means every machine itself.
fn is_this_machine(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(origins: &[Origin], to: &str, host: &str, origin: Option<&str>) -> Result<bool, String> {
        let mut request = hyper::Request::get("/v1/nodes").header(header::HOST, host);
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        let (head, ()) = request.body(()).expect("plain headers").into_parts();
        let checked = check(origins, &head, to.parse().expect("an address"));
        checked.map(|page| page.is_some()).map_err(|problem| problem.code)
    }

    #[test]
    fn only_own_pages_under_own_names_are_served() {
        let mine: Origin = "https://console.example.com".parse().expect("an origin");
        let (none, mine): (&[_], &[_]) = (&[], &[mine]);
        let (here, there) = ("127.0.0.1", "10.0.0.5");
        let refused = |code: &str| Err(code.to_string());
        for (origins, to, host, origin, expected) in [
            (none, here, "127.0.0.1:7300", None, Ok(false)),
            (none, here, "localhost:7300", None, Ok(false)),
            (none, here, "dml.localhost", None, Ok(false)),
            (none, "::1", "[::1]:7300", None, Ok(false)),
            (none, here, "", None, Ok(false)),
            (none, here, "localhost:7300", Some("http://localhost:7300"), Ok(false)),
            (none, here, "localhost:7300", Some("http://localhost:8080"), refused("foreign-page")),
            (none, here, "localhost:7300", Some("https://evil.example"), refused("foreign-page")),
            (none, here, "localhost:7300", Some("null"), refused("foreign-page")),
            (none, there, "10.0.0.5:7300", Some("https://evil.example"), refused("foreign-page")),
            // A name of somebody else that now stands for this machine.
            (none, here, "evil.example:7300", None, refused("unknown-host")),
            (none, here, "evil.example:7300", Some("http://evil.example:7300"), refused("unknown-host")),
            // On a network, names are given to machines by those who run it.
            (none, there, "worker:7300", None, Ok(false)),
            (mine, here, "localhost:7300", Some("https://console.example.com"), Ok(true)),
            (mine, here, "console.example.com", Some("https://console.example.com"), Ok(false)),
            (mine, here, "localhost:7300", Some("https://console.example.com.evil"), refused("foreign-page")),
        ] {
            assert_eq!(code(origins, to, host, origin), expected, "{to} {host} {origin:?}");
        }
    }

    #[test]
    fn origins_are_servers_and_nothing_more() {
        for bad in
            ["", "*", "null", "example.com", "ftp://a", "https://a/", "https://a/path", "https://a?x=1"]
        {
            assert_eq!(bad.parse::<Origin>(), Err(NotAnOrigin(bad.into())), "{bad}");
        }
        assert!(["http://localhost:5173", "https://[::1]"].iter().all(|good| good.parse::<Origin>().is_ok()));
    }
}
