//! Measures what it costs a node to know where everything is, as a table for so many data in the cluster.
//!
//! `cargo run --release -p dml-core --example routing -- 1000 10000 100000 1000000`
//!
//! One node holds all data, at one copy each; another comes with an empty disk and learns its row. Letters arrive at
//! once; the clock is simulated, in steps of 100 ms. Memory is what the process grows by, so it is rough below 10,000.
#![allow(clippy::print_stdout)]

use std::{
    collections::VecDeque,
    env, fs,
    time::{Duration, Instant},
};

use dml_core::{
    Body, Dataset, Digest, Member, Node, NodeId, Record,
    dataset::{Column, ColumnType, Summary},
    node::{Effect, Event, Settings},
};

fn main() {
    let mut sizes: Vec<u64> = env::args().skip(1).filter_map(|size| size.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![1_000, 10_000, 100_000, 1_000_000];
    }
    println!(
        "     data | known after   processor   letters   bytes a datum | memory a datum: holder   other"
    );
    for size in sizes {
        println!("{}", line(size));
    }
}

fn line(size: u64) -> String {
    let settings = Settings { replication: 1, ..Settings::default() };
    let [holder, other] = [1, 2].map(|n| Member {
        id: NodeId::new(n),
        address: ([10, 0, 0, n as u8], 7301).into(),
        generation: 1,
    });
    let before = resident();
    let mut nodes =
        [Node::new(settings.clone(), holder, (0..size).map(datum)), Node::new(settings, other, [])];
    let with_holder = resident();
    let (start, mut now) = (Instant::now(), Duration::from_secs(1));
    let mut net = Net::default();
    net.handle(&mut nodes, now, 0, Event::Active(other));
    net.handle(&mut nodes, now, 1, Event::Active(holder));
    while nodes[1].load(holder.id) < size {
        now += Duration::from_millis(100);
        for at in 0..2 {
            net.handle(&mut nodes, now, at, Event::Tick);
        }
        if now > Duration::from_secs(600) {
            return format!("{size:9} | not known after 600 s");
        }
    }
    let (processor, with_other) = (start.elapsed(), resident());
    format!(
        "{size:9} | {:9.1} s {:9.2} s {:9} {:15.0} | {:20.0} B {:5.0} B",
        (now - Duration::from_secs(1)).as_secs_f64(),
        processor.as_secs_f64(),
        net.letters,
        net.bytes as f64 / size as f64,
        with_holder.saturating_sub(before) as f64 / size as f64,
        with_other.saturating_sub(with_holder) as f64 / size as f64,
    )
}

/// Carries letters at once, and counts them.
#[derive(Default)]
struct Net {
    letters: u64,
    bytes: usize,
}

impl Net {
    fn handle(&mut self, nodes: &mut [Node; 2], now: Duration, at: usize, event: Event) {
        let mut events = VecDeque::from([(at, event)]);
        while let Some((at, event)) = events.pop_front() {
            for effect in nodes[at].handle(now, event) {
                if let Effect::Persist { write, .. } = effect {
                    events.push_back((at, Event::Persisted(write)));
                } else if let Effect::Send { letter, .. } = effect {
                    self.letters += 1;
                    self.bytes += serde_json::to_vec(&letter).map_or(0, |bytes| bytes.len());
                    events.push_back((1 - at, Event::Letter(letter)));
                }
            }
        }
    }
}

/// A dataset of one column and no rows.
fn datum(number: u64) -> (Digest, Record) {
    let summary = Summary::Numeric { min: 0.0, max: 1.0, mean: 0.5, std: 0.25, counts: Vec::new() };
    let columns =
        vec![Column { name: format!("column-{number}"), r#type: ColumnType::Float, nulls: 0, summary }];
    let body = Body::Dataset(Dataset { rows: 0, columns, chunks: Vec::new() });
    (body.id(), Record::new(body))
}

/// What this process has in memory, in bytes.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
