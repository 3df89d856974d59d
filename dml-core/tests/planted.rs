//! The simulation notices faults that are planted in the brain: each of [`planted::BUGS`] with some seed. They run
//! one after the other, as a fault is planted in all nodes of the process.
//!
//! `cargo test -p dml-core --features planted --test planted`; `DML_BUG=OwnerByText` plants that one alone, `DML_SEEDS=9000` gives up later.

#![allow(clippy::print_stderr)]

use std::{
    env, panic,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use dml_core::{
    planted::{self, BUGS, Bug},
    sim::{self, Setup},
};

/// So many seeds are tried at a time, and so many in all, until one notices a fault.
const AT_A_TIME: u64 = 60;
const MOST: u64 = 3000;

/// What is wrong with a seed, if anything is.
fn trouble(seed: u64) -> Option<String> {
    match panic::catch_unwind(|| sim::run(seed, &Setup::default())) {
        Ok(Ok(_)) => None,
        Ok(Err(violation)) => Some(format!("{}: {}", violation.invariant.name(), violation.what)),
        Err(_) => Some("a node panics".into()),
    }
}

/// Runs seeds on all cores with a fault; gives those that notice it, and what they say.
fn notice(bug: Option<Bug>, seeds: &[u64]) -> Vec<(u64, String)> {
    planted::plant(bug);
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let what = trouble(*seed).map(|what| (*seed, what));
                    found.lock().expect("nobody panics with it").extend(what);
                }
            });
        }
    });
    planted::plant(None);
    let mut found = found.into_inner().expect("all threads are done");
    found.sort();
    found
}

#[test]
fn every_planted_fault_is_noticed() {
    let only = env::var("DML_BUG").ok();
    let most = env::var("DML_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(MOST);
    let mut unnoticed = Vec::new();
    for bug in BUGS.into_iter().filter(|bug| only.as_ref().is_none_or(|only| *only == format!("{bug:?}"))) {
        let noticed = (0..most).step_by(AT_A_TIME as usize).find_map(|first| {
            let seeds: Vec<u64> = (first..first + AT_A_TIME).collect();
            let mut found = notice(Some(bug), &seeds);
            // What is wrong without the fault does not count.
            let wrong = notice(None, &found.iter().map(|(seed, _)| *seed).collect::<Vec<_>>());
            found.retain(|(seed, _)| !wrong.iter().any(|(wrong, _)| wrong == seed));
            (!found.is_empty()).then_some((first + AT_A_TIME, found))
        });
        match noticed {
            Some((tried, found)) => {
                let (seed, what) = &found[0];
                let what: String = what.chars().take(120).collect();
                eprintln!("{bug:?}: noticed by {} of {tried} seeds; {seed} says {what}", found.len());
            }
            None => unnoticed.push(bug),
        }
    }
    assert!(unnoticed.is_empty(), "{most} seeds do not notice {unnoticed:?}");
}
