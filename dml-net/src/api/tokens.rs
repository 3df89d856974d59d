//! `/v1/tokens`: who is known as a user. A cluster without certificates answers everybody, and keeps no tokens: one that
//! somebody made there could be of use later, when it has certificates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use dml_core::{
    Body, Kind, Token,
    node::{Entry, Request, Response},
};

use super::{Checked, CheckedQuery, Listed, Paging, ask, check_name, find, keys::Key, unexpected};
use crate::{
    identity::Secret,
    problem::Problem,
    view::{NewToken, TokenView},
    worker::Worker,
};

pub(super) async fn create(
    State(worker): State<Worker>,
    key: Key,
    Checked(new): Checked<NewToken>,
) -> Result<(StatusCode, Json<TokenView>), Problem> {
    guarded(&worker)?;
    let label = check_name(&new.label)?;
    let created = now();
    let expires = new.expires_in.as_deref().map(lifetime).transpose()?.map(|life| created + life);
    let millis = |time: Duration| time.as_millis() as u64;
    if worker.shared.keys.note(&key, &("token", &new))? {
        let detail = format!(
            "a token was made with this Idempotency-Key, and its secret is told once: if the answer was lost, delete '{label}' \
             (`dml token rm`) and make another with a new key"
        );
        return Err(Problem::conflict("token-made", detail));
    }
    let secret = Secret::random().map_err(|_| Problem::internal("the system has no randomness"))?;
    let token = Token::new(secret.reveal(), new.scope, expires.map(millis));
    let view = TokenView {
        id: token.id(),
        label: Some(label.clone()),
        scope: token.scope,
        created_ms: millis(created),
        expires_ms: token.expires_ms,
        secret: Some(secret),
    };
    let made = ask(&worker, Request::Create { body: Body::Token(token), name: Some(label) }).await;
    if let Err(problem) = made {
        worker.shared.keys.forget(&key);
        return Err(problem);
    }
    Ok((StatusCode::CREATED, Json(view)))
}

pub(super) async fn list(
    State(worker): State<Worker>,
    CheckedQuery(paging): CheckedQuery<Paging>,
) -> Result<Listed<TokenView>, Problem> {
    guarded(&worker)?;
    let request = Request::List { kind: Kind::Token, after: paging.after()?, limit: paging.limit()? };
    let Response::Page { entries, next } = ask(&worker, request).await? else { return Err(unexpected()) };
    let items = entries.into_iter().filter_map(view).collect();
    Listed::new(items, next, &paging)
}

pub(super) async fn delete(
    State(worker): State<Worker>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    guarded(&worker)?;
    let id = find(&worker, Kind::Token, &id).await?;
    ask(&worker, Request::Delete { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn guarded(worker: &Worker) -> Result<(), Problem> {
    let detail = "this cluster answers everybody: tokens and revocations are for one with certificates, see `dml cluster init`";
    worker.shared.options.guarded.then_some(()).ok_or_else(|| Problem::conflict("no-certificates", detail))
}

fn view(entry: Entry) -> Option<TokenView> {
    let label = entry.record.names.latest().map(Into::into);
    let Some(Body::Token(token)) = entry.record.body else { return None };
    let Token { scope, expires_ms, .. } = token;
    Some(TokenView { id: entry.id, label, scope, created_ms: entry.created_ms, expires_ms, secret: None })
}

/// The time, for people and for tokens that expire.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `30d`, `12h`, `90m` or `60s`.
fn lifetime(text: &str) -> Result<Duration, Problem> {
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 24 * 3600)];
    let read = || {
        let (_, seconds) = units.iter().find(|(unit, _)| text.ends_with(*unit))?;
        let count = text[..text.len() - 1].parse::<u32>().ok().filter(|count| *count > 0)?;
        Some(Duration::from_secs(u64::from(count) * seconds))
    };
    let detail = || format!("a token expires in a time such as 30d, 12h, 90m or 60s, not '{text}'");
    read().ok_or_else(|| Problem::unprocessable("bad-lifetime", detail()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_have_units() {
        let seconds = |text| lifetime(text).map(|life| life.as_secs()).ok();
        assert_eq!(["30d", "12h", "90m", "60s"].map(seconds), [2_592_000, 43_200, 5_400, 60].map(Some));
        assert_eq!(["", "d", "30", "-1d", "0s", "1.5h", "5000000000d", "1é"].map(seconds), [None; 8]);
    }
}
