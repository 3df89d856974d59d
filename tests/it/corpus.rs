//! What the fuzzers keep, read as they read it; and by mutations of it, the same in every run.

#[path = "../../fuzz/entries.rs"]
mod entries;

use std::{fs, path::Path};

/// How many mutations of each file are read; `DML_MUTATIONS` says another number.
const MUTATIONS: u64 = 200;

fn each(target: &str, read: impl Fn(&[u8])) {
    let mutations = std::env::var("DML_MUTATIONS").map_or(MUTATIONS, |text| text.parse().unwrap());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 2, "{target} has a corpus");
    for file in files {
        let bytes = fs::read(file).unwrap();
        read(&bytes);
        for seed in 0..mutations {
            read(&mutated(&bytes, seed));
        }
    }
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
