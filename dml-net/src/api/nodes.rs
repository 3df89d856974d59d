//! `/v1/nodes`, `/v1/routing` and readiness.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
};
use dml_core::{
    Digest, Kind,
    node::{Request, Response},
    swim::Health,
};

use super::{ask, check_name, find, unexpected};
use crate::{
    problem::Problem,
    view::{HolderView, LeaseView, NodeView, Page, RoutingView},
    worker::Worker,
};

/// The cluster as this worker sees it: what a db node says, or, while none answers, which ones were known.
pub(super) async fn list(State(worker): State<Worker>) -> Json<Page<NodeView>> {
    let items = match worker.shared.link.cluster().await {
        Ok(items) => items,
        Err(_) => known(&worker),
    };
    Json(Page { items, next_cursor: None })
}

fn known(worker: &Worker) -> Vec<NodeView> {
    let view = |(n, (address, active, age)): (usize, (Option<String>, bool, Duration))| {
        let place: Option<SocketAddr> =
            address.as_deref().and_then(|address| address.trim_start_matches("http://").parse().ok());
        let name = address.unwrap_or_else(|| format!("db-{n}"));
        NodeView::db(&name, place, if active { Health::Active } else { Health::Failed }, 0, age)
    };
    worker.shared.link.nodes().into_iter().enumerate().map(view).collect()
}

/// Where something is, who owns it, and who works on it.
pub(super) async fn route(
    State(worker): State<Worker>,
    Path(text): Path<String>,
) -> Result<Json<RoutingView>, Problem> {
    let id = named(&worker, &text).await?;
    let Response::Route(route) = ask(&worker, Request::Route { id }).await? else { return Err(unexpected()) };
    let leases = match ask(&worker, Request::Leases { id: route.root }).await {
        Ok(Response::Leases(leases)) => leases,
        Ok(_) => return Err(unexpected()),
        // Where it is can be told although its owner does not answer.
        Err(_) => Vec::new(),
    };
    let of_it = |slot: &dml_core::lease::Slot| id == route.root || slot.job == id;
    Ok(Json(RoutingView {
        id,
        root: route.root,
        owner: route.owner.map(|owner| owner.to_string()),
        copies: route.holders.iter().filter(|holder| holder.active).count() as u32,
        factor: route.factor,
        holders: route.holders.into_iter().map(HolderView::new).collect(),
        leases: leases.into_iter().filter(|lease| of_it(&lease.slot)).map(LeaseView::new).collect(),
    }))
}

/// The id of anything that a user named: an id is taken as it is, also that of a job.
async fn named(worker: &Worker, text: &str) -> Result<Digest, Problem> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    // A model is called after its training: TRAINING/MODEL.
    for name in text.splitn(2, '/') {
        check_name(name)?;
    }
    for kind in [Kind::Training, Kind::Study, Kind::Dataset, Kind::Model, Kind::Prediction] {
        match find(worker, kind, text).await {
            Err(problem) if problem.status == 404 => {}
            found => return found,
        }
    }
    Err(Problem::not_found(format!("there is no training, study, dataset, model or prediction '{text}'")))
}

/// Ready: a db node answers, and this worker is not about to end.
pub(super) async fn ready(State(worker): State<Worker>) -> Result<&'static str, Problem> {
    if worker.is_stopping() {
        return Err(Problem::unavailable("this worker is about to end"));
    }
    ask(&worker, Request::Workers).await.map(|_| "ready\n")
}
