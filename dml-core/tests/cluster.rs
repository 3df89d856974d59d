//! Thousands of clusters, each under its own seed: see [`dml_core::sim`].
//!
//! `DML_SEEDS=5000 cargo test -p dml-core --test cluster` runs so many, from `DML_FIRST` on, until `DML_FAILURES` of them
//! fail; `DML_SEED=17` runs that one alone, and tells all that happens.

#![allow(clippy::print_stderr)]

use std::{
    collections::BTreeMap,
    env,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use dml_core::sim::{self, FAULTS, Fault, Report, SOMETIMES, Setup, Sometimes};

/// Over so many seeds every hard case must come up.
const ENOUGH: u64 = 300;

/// Every seed has at least so many faults.
const FAULTS_A_SEED: u64 = 20;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs a seed; tells how to run it again if it fails.
fn run(seed: u64, setup: &Setup) -> Result<Report, String> {
    match panic::catch_unwind(AssertUnwindSafe(|| sim::run(seed, setup))) {
        Ok(report) => report.map_err(|violation| violation.to_string()),
        Err(_) => Err(format!(
            "a node panics with seed {seed}\nreplay it with: DML_SEED={seed} cargo test -p dml-core --test cluster -- --nocapture"
        )),
    }
}

/// Runs all seeds, on all cores.
fn run_all(seeds: u64, setup: &Setup) -> (Vec<Report>, Vec<String>) {
    let first = number("DML_FIRST").unwrap_or(0);
    let (next, reports, failures) = (AtomicU64::new(first), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let most = number("DML_FAILURES").unwrap_or(3);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed - first >= seeds
                        || failures.lock().expect("nobody panics with it").len() as u64 >= most
                    {
                        return;
                    }
                    match run(seed, setup) {
                        Ok(report) => reports.lock().expect("nobody panics with it").push(report),
                        Err(failure) => failures.lock().expect("nobody panics with it").push(failure),
                    }
                }
            });
        }
    });
    (
        reports.into_inner().expect("all threads are done"),
        failures.into_inner().expect("all threads are done"),
    )
}

#[test]
fn clusters_survive_everything() {
    let mut setup = Setup::default();
    if let Some(seed) = number("DML_SEED") {
        setup.trace = Some(|line| eprintln!("{line}"));
        let report = run(seed, &setup).unwrap_or_else(|failure| panic!("{failure}"));
        eprintln!("{report:#?}");
        return;
    }
    let (seeds, start) = (number("DML_SEEDS").unwrap_or(ENOUGH), Instant::now());
    let (reports, failures) = run_all(seeds, &setup);
    let (mut faults, mut cases): (BTreeMap<Fault, u64>, BTreeMap<Sometimes, u64>) = Default::default();
    for report in &reports {
        report.faults.iter().for_each(|(fault, count)| *faults.entry(*fault).or_default() += count);
        report.sometimes.keys().for_each(|case| *cases.entry(*case).or_default() += 1);
    }
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>() / (reports.len() as u64).max(1);
    eprintln!(
        "{} seeds in {:?}; a seed has {} events, {} s, {} pieces\nfaults: {faults:?}\nseeds with: {cases:?}",
        reports.len(),
        start.elapsed(),
        sum(|report| report.events),
        sum(|report| report.time.as_secs()),
        sum(|report| report.pieces),
    );
    assert!(failures.is_empty(), "{}\n{} seeds failed", failures.join("\n\n"), failures.len());
    for report in &reports {
        let count: u64 = report.faults.values().sum();
        assert!(count >= FAULTS_A_SEED, "seed {} has {count} faults only", report.seed);
    }
    if seeds >= ENOUGH {
        let missed: Vec<_> = FAULTS.iter().filter(|fault| !faults.contains_key(fault)).collect();
        assert!(missed.is_empty(), "these faults never came up: {missed:?}");
        let missed: Vec<_> = SOMETIMES.iter().filter(|case| !cases.contains_key(case)).collect();
        assert!(missed.is_empty(), "these cases never came up: {missed:?}");
    }
}

#[test]
fn a_seed_does_the_same_again() {
    for seed in [1, 2] {
        assert_eq!(run(seed, &Setup::default()), run(seed, &Setup::default()));
    }
}
