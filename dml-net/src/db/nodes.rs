//! `GET /v1/nodes` of a db node: all nodes as it sees them, or, if it is asked to, as each db node sees itself.

use std::time::Duration;

use axum::{
    Json,
    extract::{Query, State},
};
use dml_core::{
    node::{Request, Response},
    swim::Health,
};
use futures_util::future::join_all;
use serde::Deserialize;

use super::Db;
use crate::{
    link::exchange::{Question, exchange},
    peer::Peer,
    problem::Problem,
    view::{DiskView, NodeView, Page},
};

/// How long another db node may take to say how it is.
const QUIET: Duration = Duration::from_secs(1);

/// Who is asked.
#[derive(Deserialize)]
pub(super) struct Which {
    /// This node, about itself alone.
    #[serde(default)]
    here: bool,
    /// Each db node that is there, about itself.
    #[serde(default)]
    each: bool,
}

pub(super) async fn list(
    State(db): State<Db>,
    Query(which): Query<Which>,
) -> Result<Json<Page<NodeView>>, Problem> {
    let stopped = || Problem::unavailable("this db node has stopped");
    let mut items = vec![itself(&db).await.ok_or_else(stopped)?];
    if !which.here {
        let others = db.neighbours();
        let ids: Vec<_> = others.iter().map(|other| other.member.id).collect();
        let loads = db.shell.inbox.look(move |node| ids.iter().map(|id| node.load(*id)).collect::<Vec<_>>());
        let loads = loads.await.ok_or_else(stopped)?;
        let seen = others.iter().zip(loads).map(async |(other, load)| {
            let (id, place) = (other.member.id, Some(other.member.address));
            let view = NodeView::db(&id.to_string(), place, other.health, load, other.age);
            let peer = db.shell.post.as_ref().filter(|_| which.each && view.active);
            match peer.and_then(|post| post.peer(id)) {
                Some(peer) => NodeView { age_ms: view.age_ms, ..told(&peer).await.unwrap_or(view) },
                None => view,
            }
        });
        items.extend(join_all(seen).await);
        let Ok(Response::Workers(workers)) = db.ask(Request::Workers).await else { return Err(stopped()) };
        items.extend(workers.into_iter().map(NodeView::worker));
    }
    Ok(Json(Page { items, next_cursor: None }))
}

/// How another node is, as it says itself.
async fn told(peer: &Peer) -> Option<NodeView> {
    let (_, bytes) = exchange(peer, &Question::get("/v1/nodes?here=true"), QUIET).await.ok()?;
    serde_json::from_slice::<Page<NodeView>>(&bytes).ok()?.items.pop()
}

/// How this node is; none if it has stopped.
async fn itself(db: &Db) -> Option<NodeView> {
    let tally = db.shell.inbox.look(|node| node.tally()).await?;
    let address = db.shell.membership.is_some().then_some(db.shell.me.address);
    Some(NodeView {
        under_replicated: Some(tally.under_replicated),
        pieces: Some(tally.done.pieces),
        repeated: Some(tally.done.repeated),
        disk: disk(db).await,
        ..NodeView::db(db.id(), address, Health::Active, tally.data, Duration::ZERO)
    })
}

/// The disk of this node; none where its size is not known.
pub(super) async fn disk(db: &Db) -> Option<DiskView> {
    let room = db.shell.blobs.room().await.ok()??;
    Some(DiskView { free: room.free, total: room.total, full: room.free < db.shell.keep_free })
}
