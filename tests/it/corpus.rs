//! What the fuzzers keep, read as they read it; and by mutations of it, the same in every run. With `DML_FUZZ_SECONDS`
//! each target goes on with mutations of mutations for so long; what it fails on is kept, and its place is told.
#![allow(clippy::print_stderr, reason = "a fuzzer tells what it fails on")]

#[path = "../../fuzz/entries.rs"]
mod entries;

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    time::{Duration, Instant},
};

use dml::{
    core::node::{Event, Letter, Request},
    core::swim::{self, Swim},
    net::{
        handshake::ClusterId,
        identity::{ClusterKey, JoinToken, Party},
    },
    view::{NewModel, NewTraining, Role},
};
use entries::{brain, drive, member};

use crate::common::{cluster, penguins, upload};

/// How many mutations of each file are read; `DML_MUTATIONS` says another number.
const MUTATIONS: u64 = 200;

fn each(target: &str, read: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 2, "{target} has a corpus");
    each_of(target, files.into_iter().map(|file| fs::read(file).unwrap()).collect(), read);
}

/// The same of what is made, not kept.
fn each_of(target: &str, mut seeds: Vec<Vec<u8>>, read: impl Fn(&[u8])) {
    let mutations = env::var("DML_MUTATIONS").map_or(MUTATIONS, |text| text.parse().unwrap());
    let read = |bytes: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| read(bytes))) {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("failing-{target}"));
            fs::write(&file, bytes).unwrap();
            eprintln!("{target} fails on {}", file.display());
            resume_unwind(panic);
        }
    };
    for bytes in &seeds {
        read(bytes);
        (0..mutations).for_each(|seed| read(&mutated(bytes, seed)));
    }
    let Ok(seconds) = env::var("DML_FUZZ_SECONDS") else { return };
    let (start, time) = (Instant::now(), Duration::from_secs(seconds.parse().unwrap()));
    let (kept, mut seed) = (seeds.len(), mutations);
    while start.elapsed() < time {
        seed += 1;
        let bytes = mutated(&seeds[seed as usize % seeds.len()], seed);
        read(&bytes);
        // Some of them are mutated further, in turn.
        if seed.is_multiple_of(16) && !bytes.is_empty() {
            if seeds.len() < kept + 256 {
                seeds.push(bytes)
            } else {
                seeds[kept + seed as usize / 16 % 256] = bytes
            }
        }
    }
    eprintln!("{target}: {seed} mutations");
}

/// Some bytes changed, and perhaps the end cut off.
fn mutated(bytes: &[u8], seed: u64) -> Vec<u8> {
    // Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
    let mut state = seed;
    let mut below = |limit: usize| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % limit.max(1) as u64) as usize
    };
    let mut bytes = bytes.to_vec();
    for _ in 0..=below(4) {
        let (at, value) = (below(bytes.len()), below(256) as u8);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
    }
    if below(4) == 0 {
        bytes.truncate(below(bytes.len()));
    }
    bytes
}

#[test]
fn csv_files() {
    each("csv", entries::csv);
}

#[test]
fn arrow_files() {
    each("arrow", entries::arrow);
}

#[test]
fn chunks() {
    each("chunk", entries::chunk);
}

#[test]
fn models() {
    each("model", entries::model);
}

#[test]
fn records() {
    each("record", entries::record);
}

/// Letters of two brains about what `fuzz/corpus/ask` asks one of them for.
fn conversation() -> Vec<Vec<u8>> {
    let (mut one, mut two) = (brain(1, 2), brain(2, 1));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/ask");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let mut said = Vec::new();
    for (ticket, file) in (1..).zip(files) {
        let request: Request = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let mut letters = drive(&mut two, Event::Request { ticket, request, time_ms: 7 });
        for _ in 0..8 {
            let (to_one, to_two): (Vec<Letter>, Vec<Letter>) =
                letters.into_iter().partition(|letter| letter.to == member(1).id);
            said.extend((!to_one.is_empty()).then(|| rmp_serde::to_vec_named(&to_one).unwrap()));
            letters = to_one.into_iter().flat_map(|letter| drive(&mut one, Event::Letter(letter))).collect();
            letters.extend(to_two.into_iter().flat_map(|letter| drive(&mut two, Event::Letter(letter))));
        }
    }
    assert!(said.len() >= 8, "they have much to say: {}", said.len());
    said
}

#[test]
fn letters() {
    each_of("letters", conversation(), entries::letters);
}

#[test]
fn asks() {
    each("ask", entries::ask);
}

#[test]
fn datagrams() {
    let mut swim = Swim::new(member(2), swim::Settings::default(), 1, [member(3)]);
    let greeted = swim.handle(Duration::ZERO, swim::Event::Greeted(member(1)));
    let later = swim.handle(Duration::from_secs(2), swim::Event::Tick);
    let left = swim.handle(Duration::from_secs(3), swim::Event::Leave);
    let sent = greeted.into_iter().chain(later).chain(left);
    let datagrams: Vec<_> = sent
        .filter_map(
            |effect| if let swim::Effect::Send { datagram, .. } = effect { Some(datagram) } else { None },
        )
        .collect();
    assert!(!datagrams.is_empty());
    each_of("datagram", datagrams, entries::datagram);
}

#[test]
fn identities() {
    let key = ClusterKey::generate().unwrap();
    let mut seeds: Vec<Vec<u8>> = vec![key.to_pem().into(), key.certificate_pem().into()];
    for party in [Party::db(), Party::worker(), Party::admin()] {
        seeds.push(key.certify(party, &[]).unwrap().to_pem().into());
        seeds.push(party.to_string().into());
    }
    let secret = format!("dml_{}", "0a".repeat(32)).parse().unwrap();
    seeds.push(JoinToken { cluster: ClusterId::default(), role: Role::Worker, secret }.reveal().into());
    each_of("identity", seeds, entries::identity);
}

#[tokio::test]
async fn snapshots() {
    let parts = cluster(1, 1);
    let dataset = upload(&parts.client, "t", penguins()).await;
    let models = vec![NewModel { kind: "gaussian_nb".into(), ..NewModel::default() }];
    let training = NewTraining { models, ..NewTraining::new("t", "species") };
    let training = parts.client.train(&training).await.unwrap();
    let training = parts.client.watch(&training.id.to_string(), |_| ()).await.unwrap();
    let seeds = vec![serde_json::to_vec(&dataset).unwrap(), serde_json::to_vec(&training).unwrap()];
    each_of("snapshot", seeds, entries::snapshot);
}

#[test]
fn requests() {
    each("request", entries::request);
}
