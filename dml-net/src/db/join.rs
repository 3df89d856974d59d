//! `POST /v1/join`: a certificate for a machine that has a token which is good once. The token is gone, on as many nodes as
//! keep a write, before the certificate leaves.

use axum::{Json, extract::State, http::StatusCode};
use dml_core::{
    Body, Scope, Token,
    node::{Request, Response},
};

use super::{Db, routes::answer};
use crate::{
    api::now,
    identity::{
        Party,
        join::{Joined, Joining, public_key, scope},
    },
    problem::Problem,
    view::Role,
};

pub(super) async fn join(
    State(db): State<Db>,
    Json(joining): Json<Joining>,
) -> Result<Json<Joined>, Problem> {
    let Some(key) = &db.shell.key else {
        let detail =
            "this db node does not have the cluster's key: join at one that was started with cluster.pem";
        return Err(Problem::conflict("no-key", detail));
    };
    let point = public_key(&joining.key).ok_or_else(|| {
        let detail = "the key is a point of the curve P-256, uncompressed, in hexadecimal digits";
        Problem::unprocessable("bad-key", detail)
    })?;
    let id = Token::id_of(joining.secret.reveal());
    // A token that is not good for this is not used up by it.
    let found = answer(&db, Request::Watch { id, seen: 0, wait_ms: 0 }).await?;
    let found = if let Response::Family { entries, .. } = found { entries.into_iter().next() } else { None };
    let token = found
        .and_then(|entry| if let Some(Body::Token(token)) = entry.record.body { Some(token) } else { None });
    let now_ms = now().as_millis() as u64;
    let good = match token.filter(|token| token.admits(joining.secret.reveal(), now_ms)) {
        Some(token) => fits(token.scope, joining.role).map(|()| true)?,
        None => false,
    };
    let redeemed = good && answer(&db, Request::Redeem { id }).await? == Response::Done;
    if !redeemed {
        let detail = "this token is unknown, used or expired: ask an administrator for another one";
        return Err(Problem::new(StatusCode::FORBIDDEN, "unknown-token", detail));
    }
    let party = match joining.role {
        Role::Db => Party::db(),
        Role::Worker => Party::worker(),
    };
    let certificates = key.certify_key(party, &point, &joining.addresses);
    let certificates = certificates.map_err(|error| Problem::internal(error.to_string()))?;
    tracing::info!(name = %party.name(), token = %id.short(), "a machine joins with a token");
    Ok(Json(Joined { certificates }))
}

fn fits(scope_of_token: Scope, role: Role) -> Result<(), Problem> {
    if scope_of_token == scope(role) {
        return Ok(());
    }
    let (is, takes) = (scope_of_token.name(), scope(role).name());
    let detail = format!("this token is for {is}, and this takes one for {takes}");
    Err(Problem::new(StatusCode::FORBIDDEN, "out-of-scope", detail))
}
