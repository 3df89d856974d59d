//! Who may ask a worker for what, once it shows who it is itself: administrators by their certificate, others by a token.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::prelude::{BASE64_STANDARD, Engine};
use dml_core::{Body, Digest, Revocation, Scope, Token, node};

use super::{ask, tokens::now, unexpected};
use crate::{
    identity::{Caller, Party, Secret, refused},
    problem::Problem,
    worker::Worker,
};

/// What anybody may ask.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// Lets in who may.
pub(crate) async fn check(
    State(worker): State<Worker>,
    caller: Option<Extension<Caller>>,
    request: Request,
    next: Next,
) -> Response {
    if !worker.shared.options.guarded || OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let needed = needed(request.method(), request.uri().path());
    let accepts = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let for_people = accepts.is_some_and(|accept| accept.contains("text/html"));
    let granted = match caller {
        Some(Extension(Caller(Some(party @ Party::Admin(_))))) => {
            match worker.shared.tokens.is_revoked(&worker, party).await {
                Ok(false) => Ok(Scope::Admin),
                Ok(true) => return refused(Some(party)),
                Err(problem) => Err(problem),
            }
        }
        Some(_) | None => granted(&worker, request.headers()).await,
    };
    match granted {
        Ok(granted) if granted >= needed => next.run(request).await,
        Ok(granted) => {
            let (may, takes) = (granted.name(), needed.name());
            let detail = format!(
                "this token is for {may}, and this takes {takes}: ask an administrator for another one (`dml token add \
                 --scope {takes}`)"
            );
            Problem::new(StatusCode::FORBIDDEN, "out-of-scope", detail).into_response()
        }
        Err(problem) => {
            let unknown = problem.status == StatusCode::UNAUTHORIZED;
            let mut answer = problem.into_response();
            if unknown {
                // A browser asks its user for the token then.
                let how = if for_people { "Basic realm=\"dml\", charset=\"UTF-8\"" } else { "Bearer" };
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(how));
            }
            answer
        }
    }
}

/// What a request takes.
fn needed(method: &Method, path: &str) -> Scope {
    let looks = [Method::GET, Method::HEAD].contains(method);
    let predicts = method == Method::POST
        && (path.starts_with("/v1/models/") && path.ends_with("/predict")
            || ["/v1/ml-distributed/predict", "/v1/ml-distributed/evaluate"].contains(&path));
    let ours = ["/v1/tokens", "/v1/revocations", "/v1/logs"].iter().any(|start| path.starts_with(start));
    if ours || path == "/logs" {
        Scope::Admin
    } else if looks || predicts {
        Scope::Read
    } else {
        Scope::Write
    }
}

/// What the token in a request is for.
async fn granted(worker: &Worker, headers: &HeaderMap) -> Result<Scope, Problem> {
    let unknown = |code, detail: &str| Problem::new(StatusCode::UNAUTHORIZED, code, detail);
    let shown = headers.get(header::AUTHORIZATION).ok_or_else(|| {
        let detail = "this cluster answers those whom it knows: show a token (--token or DML_TOKEN; `Authorization: Bearer \
                      dml_…`) or the certificate of an administrator (--identity admin.pem)";
        unknown("no-token", detail)
    })?;
    let secret = shown.to_str().ok().and_then(secret);
    let token = match &secret {
        Some(secret) => worker.shared.tokens.look_up(worker, secret).await?,
        None => None,
    };
    let good =
        token.zip(secret).filter(|(token, secret)| token.admits(secret.reveal(), now().as_millis() as u64));
    good.map(|(token, _)| token.scope).ok_or_else(|| {
        unknown(
            "unknown-token",
            "this token is unknown, revoked or expired: ask an administrator for another one",
        )
    })
}

/// The secret in the header `Authorization`: `Bearer SECRET`, or as browsers send what their user gave as a password.
fn secret(shown: &str) -> Option<Secret> {
    if let Some(secret) = shown.strip_prefix("Bearer ") {
        return secret.trim().parse().ok();
    }
    let both = BASE64_STANDARD.decode(shown.strip_prefix("Basic ")?.trim()).ok()?;
    let (_, password) = std::str::from_utf8(&both).ok()?.split_once(':')?;
    password.parse().ok()
}

/// The tokens and certificates that were shown to this worker lately: what is stored under their ids.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<Digest, (Instant, Option<Body>)>>);

/// How long what a db node said of one is taken for true: one that is revoked works for so long at most.
const FRESH: Duration = Duration::from_secs(5);

/// How many are remembered.
const MOST: usize = 1024;

impl Tokens {
    /// The token that may have this secret, if there is one.
    async fn look_up(&self, worker: &Worker, secret: &Secret) -> Result<Option<Token>, Problem> {
        let body = self.body(worker, Token::id_of(secret.reveal())).await?;
        Ok(if let Some(Body::Token(token)) = body { Some(token) } else { None })
    }

    /// Whether the certificate of somebody was revoked.
    async fn is_revoked(&self, worker: &Worker, party: Party) -> Result<bool, Problem> {
        let revocation = Revocation { holder: party.name() };
        Ok(matches!(self.body(worker, revocation.id()).await?, Some(Body::Revocation(_))))
    }

    async fn body(&self, worker: &Worker, id: Digest) -> Result<Option<Body>, Problem> {
        if let Some((_, body)) = self.lock().get(&id).filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(body.clone());
        }
        let asked = Instant::now();
        let question = node::Request::Watch { id, seen: 0, wait_ms: 0 };
        let body = match ask(worker, question).await {
            Ok(node::Response::Family { entries, .. }) => {
                entries.into_iter().next().and_then(|entry| entry.record.body)
            }
            Ok(_) => return Err(unexpected()),
            Err(problem) if problem.status == StatusCode::NOT_FOUND => None,
            Err(problem) => return Err(problem),
        };
        let mut known = self.lock();
        if known.len() >= MOST {
            known.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        if known.len() < MOST {
            known.insert(id, (asked, body.clone()));
        }
        Ok(body)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, (Instant, Option<Body>)>> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_as_such_or_as_a_password() {
        let token = format!("dml_{}", "0a".repeat(32));
        let encoded = |text: String| format!("Basic {}", BASE64_STANDARD.encode(text));
        let good =
            [format!("Bearer {token}"), encoded(format!("alice:{token}")), encoded(format!(":{token}"))];
        for shown in &good {
            assert_eq!(
                secret(shown).map(|secret| secret.reveal().to_string()),
                Some(token.clone()),
                "{shown}"
            );
        }
        let bad =
            [token.clone(), "Bearer".into(), "Basic ?".into(), encoded(token.clone()), encoded("a:b".into())];
        assert!(bad.iter().all(|shown| secret(shown).is_none()));
    }

    #[test]
    fn each_route_takes_the_least_that_it_can() {
        for (method, path, scope) in [
            (Method::GET, "/v1/datasets", Scope::Read),
            (Method::HEAD, "/v1/kinds", Scope::Read),
            (Method::POST, "/v1/models/best/predict", Scope::Read),
            (Method::POST, "/v1/ml-distributed/predict", Scope::Read),
            (Method::POST, "/v1/ml-distributed/evaluate", Scope::Read),
            (Method::POST, "/v1/ml-distributed/fit", Scope::Write),
            (Method::POST, "/v1/predictions", Scope::Write),
            (Method::POST, "/v1/datasets/predict", Scope::Write),
            (Method::DELETE, "/v1/trainings/a", Scope::Write),
            (Method::PUT, "/v1/nowhere", Scope::Write),
            (Method::GET, "/v1/tokens", Scope::Admin),
            (Method::DELETE, "/v1/tokens/a", Scope::Admin),
            (Method::POST, "/v1/revocations", Scope::Admin),
            (Method::GET, "/v1/logs", Scope::Admin),
            (Method::GET, "/logs", Scope::Admin),
            (Method::GET, "/jobs", Scope::Read),
        ] {
            assert_eq!(needed(&method, path), scope, "{method} {path}");
        }
    }
}
