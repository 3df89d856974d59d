//! `/v1/revocations`: whose certificates are not trusted any more. That is for good: who was revoked by mistake gets
//! another certificate, under another name.

use axum::{Json, extract::State, http::StatusCode};
use dml_core::{
    Body, Kind, Revocation,
    node::{Entry, Request, Response},
};

use super::{Checked, CheckedQuery, Listed, Paging, ask, tokens::guarded, unexpected};
use crate::{
    identity::Party,
    problem::Problem,
    view::{NewRevocation, RevocationView},
    worker::Worker,
};

pub(super) async fn create(
    State(worker): State<Worker>,
    Checked(new): Checked<NewRevocation>,
) -> Result<(StatusCode, Json<NewRevocation>), Problem> {
    guarded(&worker)?;
    let party = Party::named(&new.node).map_err(|_| {
        let detail = format!(
            "'{}' is no name in a certificate: db-, worker- or admin- and twelve hexadecimal digits, as `dml cluster` \
             shows them",
            new.node
        );
        Problem::bad_request("bad-name", detail)
    })?;
    let revocation = Revocation { holder: party.name() };
    ask(&worker, Request::Create { body: Body::Revocation(revocation), name: None }).await?;
    Ok((StatusCode::CREATED, Json(new)))
}

pub(super) async fn list(
    State(worker): State<Worker>,
    CheckedQuery(paging): CheckedQuery<Paging>,
) -> Result<Listed<RevocationView>, Problem> {
    guarded(&worker)?;
    let request = Request::List { kind: Kind::Revocation, after: paging.after()?, limit: paging.limit()? };
    let Response::Page { entries, next } = ask(&worker, request).await? else { return Err(unexpected()) };
    let items = entries.into_iter().filter_map(view).collect();
    Listed::new(items, next, &paging)
}

fn view(entry: Entry) -> Option<RevocationView> {
    let Some(Body::Revocation(revocation)) = entry.record.body else { return None };
    Some(RevocationView { node: revocation.holder, created_ms: entry.created_ms })
}
