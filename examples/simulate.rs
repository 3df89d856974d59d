//! Clusters that live through storms, in one thread and without any real time: db nodes, disks, a network that fails,
//! workers and clients, each cluster under its own seed. An embedder may do the same with settings of its own.
//!
//! `cargo run --release --example simulate -- --seeds 200 --nodes 5 --workers 3 --minutes 10`; `--first 17 --seeds 1`
//! repeats one; with `--soak` it goes on until an invariant is broken or it is stopped.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::{
    collections::BTreeMap,
    env,
    time::{Duration, Instant},
};

use dml_core::sim::{self, FAULTS, Report, SOMETIMES, Setup};

/// The number after an option.
fn option(name: &str) -> Option<u64> {
    let mut words = env::args().skip_while(|word| word != name);
    words.nth(1)?.parse().ok()
}

/// What the seeds were like so far.
fn print(reports: &[Report], since: Instant) {
    let seeds = reports.len().max(1) as u64;
    let mean = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>() / seeds;
    println!("{:>34} {}", "seeds", reports.len());
    println!("{:>34} {}", "events a seed", mean(|report| report.events));
    println!("{:>34} {} s", "simulated time a seed", mean(|report| report.time.as_secs()));
    println!("{:>34} {}", "pieces of work a seed", mean(|report| report.pieces));
    println!("{:>34} {}", "faults a seed", mean(|report| report.faults.values().sum()));
    println!("{:>34} {:.1} s", "it took", since.elapsed().as_secs_f64());
    let mut faults = BTreeMap::new();
    let mut cases = BTreeMap::new();
    for report in reports {
        report.faults.iter().for_each(|(fault, count)| *faults.entry(*fault).or_insert(0) += count);
        report.sometimes.keys().for_each(|case| *cases.entry(*case).or_insert(0) += 1);
    }
    println!("\n{:>34} times", "fault");
    for fault in FAULTS {
        println!("{:>34} {}", format!("{fault:?}"), faults.get(&fault).unwrap_or(&0));
    }
    println!("\n{:>34} in so many seeds", "hard case");
    for case in SOMETIMES {
        println!("{:>34} {}", format!("{case:?}"), cases.get(&case).unwrap_or(&0));
    }
}

fn main() {
    let mut setup = Setup { nodes: option("--nodes").map(|n| n.clamp(1, 7) as u32), ..Setup::default() };
    setup.workers = option("--workers").map_or(setup.workers, |workers| workers.clamp(1, 20) as u32);
    setup.storm = option("--minutes").map_or(setup.storm, |minutes| Duration::from_secs(60 * minutes));
    let (first, seeds) = (option("--first").unwrap_or(0), option("--seeds").unwrap_or(20));
    let is_endless = env::args().any(|word| word == "--soak");
    let (mut reports, since) = (Vec::new(), Instant::now());
    for seed in first.. {
        if reports.len() as u64 >= seeds {
            print(&reports, since);
            if !is_endless {
                return;
            }
            reports.clear();
        }
        match sim::run(seed, &setup) {
            Ok(report) => reports.push(report),
            Err(violation) => {
                eprintln!("{violation}");
                std::process::exit(1);
            }
        }
    }
}
