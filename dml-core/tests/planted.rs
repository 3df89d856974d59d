//! The simulation notices faults that are planted in the brain: each of [`planted::BUGS`] within so many seeds. They run
//! one after the other, as a fault is planted in all nodes of the process.
//!
//! `cargo test -p dml-core --features planted --test planted`; `DML_BUG=OwnerByText` plants that one alone.

#![allow(clippy::print_stderr)]

use std::{
    env, panic,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use dml_core::{
    planted::{self, BUGS, Bug},
    sim::{self, Setup},
};

/// The seeds within which a fault must be noticed, unless told otherwise.
const SEEDS: u64 = 100;

/// The first seed that notices the fault, and what it says.
fn first_to_notice(bug: Bug) -> Option<(u64, String)> {
    planted::plant(Some(bug));
    let (next, found) = (AtomicU64::new(0), std::sync::Mutex::new(None::<(u64, String)>));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS || found.lock().expect("nobody panics with it").is_some() {
                        return;
                    }
                    let what = match panic::catch_unwind(|| sim::run(seed, &Setup::default())) {
                        Ok(Ok(_)) => continue,
                        Ok(Err(violation)) => format!("{}: {}", violation.invariant.name(), violation.what),
                        Err(_) => "a node panics".into(),
                    };
                    found.lock().expect("nobody panics with it").get_or_insert((seed, what));
                }
            });
        }
    });
    planted::plant(None);
    found.into_inner().expect("all threads are done")
}

#[test]
fn every_planted_fault_is_noticed() {
    let only = env::var("DML_BUG").ok();
    let mut unnoticed = Vec::new();
    for bug in BUGS.into_iter().filter(|bug| only.as_ref().is_none_or(|only| *only == format!("{bug:?}"))) {
        match first_to_notice(bug) {
            Some((seed, what)) => eprintln!("{bug:?} is noticed with seed {seed}: {}", &what[..what.len().min(160)]),
            None => unnoticed.push(bug),
        }
    }
    assert!(unnoticed.is_empty(), "these are not noticed in {SEEDS} seeds: {unnoticed:?}");
}
