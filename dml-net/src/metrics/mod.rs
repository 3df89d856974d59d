//! What a node tells those who watch it: `GET /metrics`, in the text format of Prometheus, version 0.0.4. Names and
//! units follow Prometheus' own rules, which `promtool check metrics` knows.
//!
//! Counting costs an addition; the [`Page`] is written when somebody asks for it.

mod page;
mod process;
mod requests;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

pub(crate) use page::Page;
pub(crate) use process::process;
pub(crate) use requests::{Requests, observed};

/// Where metrics are.
pub(crate) const PATH: &str = "/metrics";

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Up to how many seconds each bucket of a [`Histogram`] goes; a last one takes what is longer.
const BOUNDS: [f64; 13] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// How long something took, each time.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [Counter; BOUNDS.len() + 1],
    nanos: Counter,
}

impl Histogram {
    pub(crate) fn observe(&self, took: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < took.as_secs_f64());
        self.buckets[bucket].add(1);
        self.nanos.add(took.as_nanos() as u64);
    }

    fn seconds(&self) -> f64 {
        self.nanos.get() as f64 / 1e9
    }
}
