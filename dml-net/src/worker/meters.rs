//! What a worker measures of itself, and the page that tells it.

use std::sync::Arc;

use axum::extract::State;

use super::Worker;
use crate::metrics::{self, Counter, Histogram, Page, Requests};

/// What is measured.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    pub(crate) requests: Arc<Requests>,
    pub(super) started: Counter,
    pub(super) done: Counter,
    pub(super) failed: Counter,
    pub(super) returned: Counter,
    /// How long pieces took, whatever came of them.
    pub(super) took: Histogram,
}

/// `GET /metrics`.
pub(crate) async fn page(State(worker): State<Worker>) -> Page {
    let (shared, mut page) = (&worker.shared, Page::default());
    let meters = &shared.meters;
    const PIECES: &str = "dml_worker_pieces_total";
    page.head(PIECES, "counter", "Pieces of work, by what came of them; those returned go to other workers.");
    let (done, failed, returned) = (meters.done.get(), meters.failed.get(), meters.returned.get());
    for (outcome, count) in [("done", done), ("failed", failed), ("returned", returned)] {
        page.sample(PIECES, &[("outcome", outcome)], count as f64);
    }
    let busy = meters.started.get().saturating_sub(done + failed + returned);
    page.gauge("dml_worker_busy_slots", "Pieces of work under way.", busy as f64);
    page.gauge("dml_worker_slots", "Pieces of work that it does at a time.", shared.options.slots as f64);
    const TOOK: &str = "dml_worker_piece_duration_seconds";
    page.head(TOOK, "histogram", "Time from a lease to the report of what came of it.");
    page.histogram(TOOK, &[], &meters.took);
    page.gauge("dml_worker_cache_bytes", "Blobs kept at hand.", shared.cache.bytes() as f64);
    const NODES: &str = "dml_worker_db_nodes";
    page.head(NODES, "gauge", "Db nodes that it has ever known, by whether they answered last time.");
    let (answer, silent): (Vec<bool>, Vec<bool>) =
        shared.link.nodes().into_iter().map(|(_, active, _)| active).partition(|active| *active);
    page.sample(NODES, &[("state", "active")], answer.len() as f64);
    page.sample(NODES, &[("state", "silent")], silent.len() as f64);
    meters.requests.write(&mut page);
    metrics::process(&mut page);
    page
}
