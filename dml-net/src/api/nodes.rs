//! `/v1/nodes` and readiness.

use axum::{Json, extract::State};
use dml_core::node::{Request, Response};

use super::{ask, unexpected};
use crate::{
    problem::Problem,
    view::{NodeView, Page, Role},
    worker::Worker,
};

/// The cluster as this worker sees it: the db nodes that it knows, and the workers that they know.
pub(super) async fn list(State(worker): State<Worker>) -> Result<Json<Page<NodeView>>, Problem> {
    let Response::Workers(workers) = ask(&worker, Request::Workers).await? else { return Err(unexpected()) };
    let dbs =
        worker.shared.link.nodes().into_iter().enumerate().map(|(n, (address, active, age))| NodeView {
            id: address.clone().unwrap_or_else(|| format!("db-{n}")),
            role: Role::Db,
            address,
            active,
            slots: 0,
            busy: 0,
            age_ms: age.as_millis() as u64,
        });
    let mut items: Vec<NodeView> = dbs.collect();
    items.extend(workers.into_iter().map(|seen| NodeView {
        id: seen.worker,
        role: Role::Worker,
        address: None,
        active: seen.age_ms < ACTIVE_MS,
        slots: seen.capacity,
        busy: seen.leases,
        age_ms: seen.age_ms,
    }));
    Ok(Json(Page { items, next_cursor: None }))
}

/// A worker that computes claims at least every twenty seconds, or renews its leases.
const ACTIVE_MS: u64 = 45_000;

/// Ready: a db node answers.
pub(super) async fn ready(State(worker): State<Worker>) -> Result<&'static str, Problem> {
    ask(&worker, Request::Workers).await.map(|_| "ready\n")
}
