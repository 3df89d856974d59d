//! What a db node measures of itself, and the page that tells it.

use std::sync::Arc;

use axum::extract::State;
use dml_core::{
    node::{Done, Tally},
    swim::Health,
};

use super::{Db, nodes};
use crate::{
    metrics::{self, Counter, Histogram, Page, Requests},
    problem::Problem,
    view::{NodeView, state_name},
};

/// What is measured outside the brain.
#[derive(Debug, Default)]
pub(super) struct Meters {
    pub(super) requests: Arc<Requests>,
    /// How long it took to make records durable, and blobs.
    pub(super) records: Histogram,
    pub(super) blobs: Histogram,
    pub(super) letters_sent: Counter,
    pub(super) letters_lost: Counter,
    pub(super) letters_unknown: Counter,
}

/// `GET /metrics`.
pub(super) async fn page(State(db): State<Db>) -> Result<Page, Problem> {
    let looked = db.shell.inbox.look(|node| (node.tally(), node.workers())).await;
    let (tally, workers) = looked.ok_or_else(|| Problem::unavailable("this db node has stopped"))?;
    let mut page = Page::default();
    members(&mut page, &db);
    let active = workers.into_iter().map(NodeView::worker).filter(|worker| worker.active).count();
    page.gauge("dml_workers", "Workers that this node has heard of lately.", active as f64);
    write_tally(&mut page, tally);
    disk(&mut page, &db).await;
    let meters = &db.shell.meters;
    page.counter("dml_letters_sent_total", "Letters that other db nodes took.", meters.letters_sent.get());
    page.counter("dml_letters_lost_total", "Letters that they did not take.", meters.letters_lost.get());
    let unknown = meters.letters_unknown.get();
    page.counter("dml_letters_unknown_total", "Letters that say what only newer programs know.", unknown);
    meters.requests.write(&mut page);
    metrics::process(&mut page);
    Ok(page)
}

/// The db nodes that were ever seen, this one included.
fn members(page: &mut Page, db: &Db) {
    const NODES: &str = "dml_db_nodes";
    page.head(NODES, "gauge", "Db nodes that this one has ever seen, itself included, by state.");
    let others = db.neighbours();
    for health in [Health::Active, Health::Suspected, Health::Failed, Health::Left] {
        let so = others.iter().filter(|other| other.health == health).count();
        let me = usize::from(health == Health::Active);
        page.sample(NODES, &[("state", state_name(health))], (so + me) as f64);
    }
}

fn write_tally(page: &mut Page, tally: Tally) {
    page.gauge("dml_data", "Datasets, trainings and predictions that this node holds.", tally.data as f64);
    let under = "Data owned by this node that have fewer copies than they should and could have.";
    page.gauge("dml_data_under_replicated", under, tally.under_replicated as f64);
    const JOBS: &str = "dml_jobs";
    page.head(JOBS, "gauge", "Open jobs that this node shares out: with work for a worker, or all in hand.");
    page.sample(JOBS, &[("state", "ready")], tally.jobs_ready as f64);
    page.sample(JOBS, &[("state", "busy")], tally.jobs_busy as f64);
    page.gauge("dml_leases", "Pieces of work that workers have in hand.", tally.leases as f64);
    let Done { jobs_finished, jobs_failed, pieces, repeated, leases_granted, leases_lost, divergences } =
        tally.done;
    page.counter("dml_jobs_finished_total", "Jobs that were finished here.", jobs_finished);
    page.counter("dml_jobs_failed_total", "Jobs that were given up here.", jobs_failed);
    page.counter("dml_pieces_done_total", "Results of work that were reported here and were news.", pieces);
    let twice = "Results that were reported here and were no news: work that was done twice, or told twice.";
    page.counter("dml_pieces_repeated_total", twice, repeated);
    page.counter("dml_leases_granted_total", "Pieces of work that were handed out.", leases_granted);
    page.counter("dml_leases_lost_total", "Leases that ran out, or died with their worker.", leases_lost);
    let alarm = "Results of the same work that differ. Above 0, a machine computes wrong, or a disk or learner is at fault.";
    page.counter("dml_divergences_total", alarm, divergences);
}

/// The disk; what it does not tell is left out.
async fn disk(page: &mut Page, db: &Db) {
    if let Some(disk) = nodes::disk(db).await {
        page.gauge("dml_disk_free_bytes", "Room on the disk of the data directory.", disk.free as f64);
        page.gauge("dml_disk_total_bytes", "Size of the disk of the data directory.", disk.total as f64);
        let full = "1 if the disk is so full that uploads and results are refused, else 0.";
        page.gauge("dml_disk_full", full, f64::from(u8::from(disk.full)));
    }
    if let Ok((count, bytes)) = db.shell.blobs.size().await {
        page.gauge("dml_blobs", "Blobs that this node holds, as of the last minute.", count as f64);
        page.gauge("dml_blobs_bytes", "Bytes of these blobs.", bytes as f64);
    }
    const WRITES: &str = "dml_write_duration_seconds";
    page.head(WRITES, "histogram", "Time until a write was durable: records of many requests, or one blob.");
    page.histogram(WRITES, &[("what", "records")], &db.shell.meters.records);
    page.histogram(WRITES, &[("what", "blob")], &db.shell.meters.blobs);
}
