//! Measures membership in a simulated network, as a table for the sizes that are given.
//!
//! `cargo run --release -p dml-core --example membership -- 3 10 30 100 300 1000`. `PERIOD`, `GOSSIP` and the like, in
//! milliseconds, set other times than those of the size; `LARGE` is the size from which the patient settings hold.
#![allow(clippy::print_stdout, dead_code)]

#[path = "../tests/membership/world.rs"]
mod world;

use std::{env, time::Duration};

use dml_core::swim::Settings;
use world::{Net, World, ms, secs};

fn main() {
    let mut sizes: Vec<usize> = env::args().skip(1).filter_map(|size| size.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![3, 10, 30, 100, 300, 1000];
    }
    println!("times in seconds: median / worst of the seeds; B/s and messages/s of a quiet node");
    println!(
        "nodes  loss | join        | crash known | refused     | three       | heal        |   B/s msg/s | false deaths"
    );
    for size in sizes {
        for loss in [0, 10] {
            println!("{}", line(size, loss));
        }
    }
}

fn set(name: &str, time: &mut Duration) {
    if let Some(value) = env::var(name).ok().and_then(|value| value.parse().ok()) {
        *time = ms(value);
    }
}

fn settings(size: usize) -> Settings {
    let large = env::var("LARGE").ok().and_then(|value| value.parse().ok()).unwrap_or(200);
    let mut settings = if size >= large { Settings::large() } else { Settings::default() };
    set("PERIOD", &mut settings.period);
    set("RTT", &mut settings.rtt);
    set("SUSPICION", &mut settings.suspicion);
    set("REFUSAL", &mut settings.refusal);
    set("GOSSIP", &mut settings.gossip);
    set("FEED", &mut settings.feed);
    settings
}

/// The median and the worst; a dash for what never came to be.
fn both(mut times: Vec<Option<Duration>>) -> String {
    // `None` is less than any time, and worse.
    times.sort_unstable_by_key(|time| time.unwrap_or(Duration::MAX));
    let show = |time: Option<&Option<Duration>>| {
        time.copied().flatten().map_or("  -  ".to_owned(), |time| format!("{:5.2}", time.as_secs_f64()))
    };
    format!("{} {}", show(times.get(times.len() / 2)), show(times.last()))
}

fn line(size: usize, loss: u64) -> String {
    let (settings, net) = (settings(size), Net::losing(loss));
    let seeds = env::var("SEEDS").ok().and_then(|value| value.parse().ok());
    let seeds = 0..seeds.unwrap_or((3000 / size as u64).clamp(3, 200));
    let over = |with: &dyn Fn(u64) -> Option<Duration>| both(seeds.clone().map(with).collect());
    let join = over(&|seed| World::booted(seed, settings, net, size, 4).until(secs(120), World::agrees));
    let crash = |seed, net, gone: &[usize]| {
        let times = World::joined(seed, settings, net, size).crash_and_wait(gone, secs(60));
        times.and_then(|times| times.last().copied())
    };
    let one = over(&|seed| crash(seed, net, &[size / 2]));
    let refused = over(&|seed| crash(seed, Net { refuses: true, ..net }, &[size / 2]));
    let three = over(&|seed| {
        if size > 3 { crash(seed, net, &[1, size / 2, size - 1]) } else { Some(Duration::ZERO) }
    });
    let heal = over(&|seed| {
        let mut world = World::joined(seed, settings, net, size);
        world.side = (0..size).map(|n| u8::from(n < size / 2)).collect();
        world.run(secs(60));
        world.side.fill(0);
        world.until(secs(60), World::agrees)
    });
    let quiet = quiet(size, settings, net);
    format!("{size:5} {loss:3}/1000 | {join} | {one} | {refused} | {three} | {heal} | {quiet}")
}

/// What a node sends, and how many were held for dead that were not, in at least a hundred node-hours.
fn quiet(size: usize, settings: Settings, net: Net) -> String {
    let hours: u64 = env::var("HOURS").ok().and_then(|value| value.parse().ok()).unwrap_or(100);
    let mut world = World::joined(7, settings, net, size);
    let (start, bytes, messages) = (world.now, world.bytes, world.messages);
    let time = Duration::from_secs(3600 * hours / size as u64).max(secs(60));
    world.run(time);
    let each = |count: u64| count as f64 / time.as_secs_f64() / size as f64;
    let node_hours = time.as_secs_f64() * size as f64 / 3600.0;
    let deaths = world.false_deaths(start);
    let (bytes, messages) = (each(world.bytes - bytes), each(world.messages - messages));
    format!("{bytes:5.0} {messages:5.1} | {deaths} in {node_hours:.0} node-hours")
}
