//! What any [`Store`] must do, as a suite that an engine is run through.
//!
//! ```
//! use std::sync::Arc;
//! use dml_store::{MemoryStore, conformance::conformance};
//!
//! conformance(|| {
//!     let store = Arc::new(MemoryStore::new());
//!     Box::new(move || store.clone()) // memory outlives no process: opening it again gives the same store
//! });
//! ```
//!
//! The suite panics at the first thing that is wrong. It leaves out what an engine cannot be asked for through the
//! trait: the loss of power, damage, and full disks.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use dml_core::Digest;

use crate::{Store, StoreError};

/// Opens one place, again and again; what it opened before is dropped by then.
pub type Opener = Box<dyn Fn() -> Arc<dyn Store>>;

/// Runs the whole suite; `fresh` gives the opener of a new, empty place each time.
pub fn conformance(fresh: impl Fn() -> Opener) {
    starts_empty(&fresh());
    records_come_back_in_order(&fresh());
    batches_are_whole(&fresh());
    blobs_come_back(&fresh());
    wrong_digests_are_refused(&fresh());
    blobs_go_when_unused(&fresh());
    settings_come_back(&fresh());
    writers_do_not_disturb_each_other(&fresh());
}

fn good<T>(outcome: Result<T, StoreError>) -> T {
    outcome.unwrap_or_else(|error| panic!("the store failed: {error}"))
}

fn key(n: u64) -> Digest {
    Digest::of(&n.to_le_bytes())
}

fn starts_empty(open: &Opener) {
    let store = open();
    assert_eq!(good(store.records()), []);
    assert_eq!(good(store.blobs()), []);
    assert_eq!(good(store.blob(key(0))), None);
    assert!(!good(store.touch_blob(key(0))));
    assert_eq!(good(store.setting("id")), None);
    good(store.commit(&[]));
    good(store.commit(&[(key(0), None)]));
    assert_eq!(good(store.records()), [], "removing what is not there is no error, and makes nothing");
}

fn records_come_back_in_order(open: &Opener) {
    let mut expected: Vec<(Digest, Vec<u8>)> =
        (0..50).map(|n| (key(n), vec![n as u8; n as usize * 7])).collect();
    {
        let store = open();
        for (key, value) in &expected {
            good(store.commit(&[(*key, Some(vec![0xff; 3]))]));
            good(store.commit(&[(*key, Some(value.clone()))]));
        }
        good(store.commit(&[(key(50), Some(vec![1])), (key(51), Some(vec![]))]));
        good(store.commit(&[(key(50), None)]));
    }
    expected.push((key(51), vec![]));
    expected.sort();
    assert_eq!(good(open().records()), expected);
}

fn batches_are_whole(open: &Opener) {
    let store = open();
    let row = |generation: u8| (0..5).map(|n| (key(n), Some(vec![generation; 2000]))).collect::<Vec<_>>();
    good(store.commit(&row(0)));
    thread::scope(|scope| {
        let writer = scope.spawn(|| (1..30).for_each(|generation| good(store.commit(&row(generation)))));
        while !writer.is_finished() {
            let seen = good(store.records());
            assert_eq!(seen.len(), 5);
            assert!(seen.iter().all(|(_, value)| *value == seen[0].1), "a reader saw half a batch");
        }
    });
    good(store.commit(&[(key(9), Some(vec![1])), (key(9), None), (key(0), None), (key(0), Some(vec![2]))]));
    let after = good(store.records());
    assert!(after.iter().all(|(found, _)| *found != key(9)), "the later of two changes counts");
    assert!(after.contains(&(key(0), vec![2])), "the later of two changes counts");
}

fn blobs_come_back(open: &Opener) {
    let large: Vec<u8> = (0..5u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let contents = [vec![], vec![0], large];
    {
        let store = open();
        for bytes in &contents {
            good(store.put_blob(Digest::of(bytes), bytes));
            good(store.put_blob(Digest::of(bytes), bytes));
        }
    }
    let store = open();
    for bytes in &contents {
        assert!(good(store.touch_blob(Digest::of(bytes))));
        assert!(
            good(store.blob(Digest::of(bytes))).as_ref() == Some(bytes),
            "a blob of {} bytes",
            bytes.len()
        );
    }
    let mut expected: Vec<(Digest, u64)> = contents.iter().map(|b| (Digest::of(b), b.len() as u64)).collect();
    expected.sort();
    let listed: Vec<(Digest, u64)> =
        good(store.blobs()).iter().map(|info| (info.digest, info.bytes)).collect();
    assert_eq!(listed, expected);
}

fn wrong_digests_are_refused(open: &Opener) {
    let store = open();
    let promised = Digest::of(b"what was promised");
    match store.put_blob(promised, b"what was sent") {
        Err(StoreError::Mismatch { expected, found }) => {
            assert_eq!((expected, found), (promised, Digest::of(b"what was sent")));
        }
        other => panic!("wrong bytes were taken: {other:?}"),
    }
    assert_eq!(good(store.blobs()), []);
    good(store.put_blob(promised, b"what was promised"));
    assert!(store.put_blob(promised, b"what was sent").is_err());
    assert_eq!(good(store.blob(promised)).as_deref(), Some(&b"what was promised"[..]));
}

fn blobs_go_when_unused(open: &Opener) {
    let digest = Digest::of(b"blob");
    {
        let store = open();
        good(store.put_blob(digest, b"blob"));
        assert!(!good(store.remove_blob(digest, Duration::from_secs(3600))), "it is young");
        thread::sleep(Duration::from_millis(60));
        let age = good(store.blobs())[0].age;
        assert!(age >= Duration::from_millis(40), "it has an age: {age:?}");
        // However slow the disk is: it is not older than the call that makes it young, as file systems tell time.
        let is_young =
            |since: Instant| good(store.blobs())[0].age <= since.elapsed() + Duration::from_millis(20);
        let start = Instant::now();
        assert!(!is_young(start), "it is old");
        good(store.put_blob(digest, b"blob"));
        assert!(is_young(start), "it is young again");
        thread::sleep(Duration::from_millis(60));
        let start = Instant::now();
        assert!(good(store.touch_blob(digest)), "it is there");
        assert!(is_young(start), "who asks for it makes it young again");
        assert!(good(store.remove_blob(digest, Duration::ZERO)));
        assert_eq!(good(store.blob(digest)), None);
        assert!(good(store.remove_blob(digest, Duration::ZERO)), "gone is gone");
    }
    assert!(!good(open().touch_blob(digest)));
}

fn settings_come_back(open: &Opener) {
    {
        let store = open();
        good(store.set_setting("id", b"one"));
        good(store.set_setting("id", b"two"));
        good(store.set_setting("", b""));
    }
    let store = open();
    assert_eq!(good(store.setting("id")).as_deref(), Some(&b"two"[..]));
    assert_eq!(good(store.setting("")).as_deref(), Some(&b""[..]));
    assert_eq!(good(store.setting("i")), None);
    assert_eq!(good(store.records()), [], "settings are no records");
}

fn writers_do_not_disturb_each_other(open: &Opener) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 20;
    {
        let store = open();
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let store = &store;
                scope.spawn(move || {
                    for n in 0..EACH {
                        let id = writer * EACH + n;
                        // Every second blob is put by all writers at once.
                        let bytes = (if n % 2 == 0 { n } else { id }).to_be_bytes();
                        good(store.put_blob(Digest::of(&bytes), &bytes));
                        good(store.commit(&[(key(id), Some(id.to_le_bytes().to_vec()))]));
                        good(store.set_setting(&format!("writer {writer}"), &n.to_le_bytes()));
                    }
                });
            }
        });
    }
    let store = open();
    let mut expected: Vec<(Digest, Vec<u8>)> =
        (0..WRITERS * EACH).map(|id| (key(id), id.to_le_bytes().to_vec())).collect();
    expected.sort();
    assert_eq!(good(store.records()), expected);
    let blobs = good(store.blobs());
    assert_eq!(
        blobs.len() as u64,
        EACH / 2 + WRITERS * EACH / 2,
        "shared even numbers, and odd ones of each"
    );
    for info in blobs {
        assert!(good(store.blob(info.digest)).is_some());
    }
    for writer in 0..WRITERS {
        let last = (EACH - 1).to_le_bytes();
        assert_eq!(good(store.setting(&format!("writer {writer}"))).as_deref(), Some(&last[..]));
    }
}
