//! What is to be true of a cluster, asked of each of its nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Error,
    net::SocketAddr,
    time::{Duration, Instant},
};

use dml_core::{
    Body, Digest, Kind,
    node::{Request, Response, Route},
};
use dml_net::view::{LeaseView, ModelView, NodeView, Page, Role, RoutingView};

use super::http;

/// Waits until something is so and tells how long that took; fails when it takes longer than the limit.
#[track_caller]
pub(crate) fn until(limit: Duration, what: &str, mut check: impl FnMut() -> Result<(), String>) -> Duration {
    let start = Instant::now();
    loop {
        let asked = start.elapsed();
        match check() {
            Ok(()) => return start.elapsed(),
            Err(why) => assert!(asked < limit, "not within {limit:?}: {what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asks the brain of a db node.
pub(crate) fn ask(db: SocketAddr, request: &Request) -> Result<Response, String> {
    let body = serde_json::to_vec(request).unwrap();
    http::post(db, "/v1/ask", &body).map_err(|error| format!("{db}: {error}"))
}

/// The nodes as one of them sees them.
pub(crate) fn nodes(node: SocketAddr) -> Result<Vec<NodeView>, Error> {
    http::get::<Page<NodeView>>(node, "/v1/nodes").map(|page| page.items)
}

/// Whether each of these db nodes holds all of them, in their present lives, for active, and no other.
pub(crate) fn know_each_other(dbs: &[SocketAddr]) -> Result<(), String> {
    let (mut expected, mut seen) = (BTreeSet::new(), Vec::new());
    for db in dbs {
        let nodes = nodes(*db).map_err(|error| format!("{db}: {error}"))?;
        // Each names itself first.
        expected.insert((nodes[0].id.clone(), db.to_string()));
        let active = nodes.into_iter().filter(|node| node.role == Role::Db && node.active);
        seen.push(active.map(|node| (node.id, node.address.unwrap_or_default())).collect::<BTreeSet<_>>());
    }
    match dbs.iter().zip(seen).find(|(_, active)| *active != expected) {
        Some((db, active)) => Err(format!("{db} holds for active {active:?}, not {expected:?}")),
        None => Ok(()),
    }
}

/// Where a worker says that something is.
pub(crate) fn routing(worker: SocketAddr, name: &str) -> Result<RoutingView, String> {
    http::get(worker, &format!("/v1/routing/{name}")).map_err(|error| format!("{worker}: {error}"))
}

/// Whether nobody needs to compute any more what a lease was for, as a db node knows it.
pub(crate) fn is_done(db: SocketAddr, root: Digest, lease: &LeaseView) -> Result<bool, String> {
    let Response::Family { entries, .. } = ask(db, &Request::Watch { id: root, seen: 0, wait_ms: 0 })? else {
        return Err(format!("{db} does not find {root}"));
    };
    let job = entries.iter().find(|entry| entry.id == lease.job).and_then(|entry| entry.record.body.as_ref());
    let Some(Body::Job(job)) = job else { return Err(format!("{db} does not find the job {}", lease.job)) };
    let unit_done = lease.unit.is_some_and(|unit| job.progress.units.contains_key(&unit));
    Ok(job.is_finished() || job.progress.round > lease.round || unit_done)
}

/// Whether every active holder of a dataset, as a db node knows them, really has all its chunks.
pub(crate) fn really_held(db: SocketAddr, id: Digest) -> Result<(), String> {
    let Response::Family { entries, .. } = ask(db, &Request::Watch { id, seen: 0, wait_ms: 0 })? else {
        return Err(format!("{db} does not find {id}"));
    };
    let Some(Body::Dataset(dataset)) = &entries[0].record.body else {
        return Err(format!("{id} is no dataset"));
    };
    for holder in route(db, id)?.holders.iter().filter(|holder| holder.active) {
        let address = holder.address.ok_or_else(|| format!("nobody knows where {} is", holder.node))?;
        for chunk in &dataset.chunks {
            let path = format!("/v1/blobs/{}?here=true", chunk.digest);
            let answer = http::send(address, "GET", &path, "text/plain", &[], Duration::from_secs(5));
            let (status, bytes) = answer.map_err(|error| format!("{address}: {error}"))?;
            if status != 200 || Digest::of(&bytes) != chunk.digest {
                return Err(format!(
                    "{address} is said to hold {id} but has no chunk {}: {status}",
                    chunk.digest
                ));
            }
        }
    }
    Ok(())
}

/// How many models there are, each of which can be downloaded whole.
pub(crate) fn whole_models(worker: SocketAddr) -> Result<usize, String> {
    let failed = |error: Error| format!("{worker}: {error}");
    let models: Page<ModelView> = http::get(worker, "/v1/models?limit=1000").map_err(failed)?;
    for model in &models.items {
        let path = format!("/v1/models/{}/download?format=native", model.id);
        let answer = http::send(worker, "GET", &path, "text/plain", &[], Duration::from_secs(5));
        let (status, bytes) = answer.map_err(failed)?;
        if Digest::of(&bytes) != model.digest {
            return Err(format!("{status}: the bytes of model {} are others", model.name));
        }
    }
    Ok(models.items.len())
}

fn route(db: SocketAddr, id: Digest) -> Result<Route, String> {
    let answer = ask(db, &Request::Route { id })?;
    let Response::Route(route) = answer else {
        return Err(format!("{db} does not know the way to {id}: {answer:?}"));
    };
    Ok(route)
}

/// How many active nodes hold something, as a db node knows it.
pub(crate) fn copies(db: SocketAddr, id: Digest) -> Result<usize, String> {
    Ok(route(db, id)?.holders.iter().filter(|holder| holder.active).count())
}

/// Waits until each of these has so many copies, as a db node knows it; what has them once is not asked for again.
#[track_caller]
pub(crate) fn until_copied(
    limit: Duration,
    db: SocketAddr,
    ids: impl IntoIterator<Item = Digest>,
    wanted: usize,
) -> Duration {
    let mut open: Vec<Digest> = ids.into_iter().collect();
    until(limit, &format!("{wanted} copies of everything"), || {
        while let Some(id) = open.last() {
            match copies(db, *id)? {
                enough if enough >= wanted => open.pop(),
                few => return Err(format!("{few} copies of {id}, and {} more to look at", open.len() - 1)),
            };
        }
        Ok(())
    })
}

/// Everything of a kind that a db node knows of.
pub(crate) fn everything(db: SocketAddr, kind: Kind) -> Result<BTreeSet<Digest>, String> {
    let (mut ids, mut after) = (BTreeSet::new(), None);
    loop {
        let page = ask(db, &Request::List { kind, after, limit: 1000 })?;
        let Response::Page { entries, next } = page else { return Err(format!("{db}: {page:?}")) };
        ids.extend(entries.into_iter().map(|entry| entry.id));
        after = next;
        if after.is_none() {
            return Ok(ids);
        }
    }
}

/// Whether these db nodes know the same datasets, trainings and models, and the same ways to them.
pub(crate) fn agree(dbs: &[SocketAddr]) -> Result<(), String> {
    let known = |db: SocketAddr| -> Result<_, String> {
        let mut ways = BTreeMap::new();
        for kind in [Kind::Dataset, Kind::Training, Kind::Model] {
            for id in everything(db, kind)? {
                let route = route(db, id)?;
                // Of a node that is gone for good, those that came later need not know.
                let holders = route.holders.iter().filter(|holder| holder.active).map(|holder| holder.node);
                ways.insert((kind, id), (route.owner, holders.collect::<BTreeSet<_>>()));
            }
        }
        Ok(ways)
    };
    let first = known(dbs[0])?;
    for db in &dbs[1..] {
        let other = known(*db)?;
        for (what, way) in &first {
            if other.get(what) != Some(way) {
                return Err(format!("{what:?}: {way:?} at {}, {:?} at {db}", dbs[0], other.get(what)));
            }
        }
        if other.len() != first.len() {
            return Err(format!("{} things at {}, {} at {db}", first.len(), dbs[0], other.len()));
        }
    }
    Ok(())
}
