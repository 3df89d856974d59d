//! Damage, full disks, disks that do not answer: each has its own error, which says where and how to mend.

use std::{fs, path::Path, thread, time::Duration};

use dml_core::{Digest, rng};
use dml_store::{DiskStore, Room, Store, StoreError, sim::SimDisk};
use proptest::prelude::*;

fn key(n: u64) -> Digest {
    Digest::of(&n.to_le_bytes())
}

fn blob_path(digest: Digest) -> String {
    let name = digest.to_string();
    format!("blobs/{}/{name}", &name[..2])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_flipped_bit_in_a_blob_is_found_and_mended(bytes in prop::collection::vec(any::<u8>(), 1..3000), bit: u64) {
        let disk = SimDisk::new(1);
        let store = DiskStore::on(disk.clone()).unwrap();
        let digest = Digest::of(&bytes);
        store.put_blob(digest, &bytes).unwrap();
        prop_assert!(disk.flip_bit(&blob_path(digest), bit));
        let error = store.blob(digest).unwrap_err();
        prop_assert!(matches!(error, StoreError::Corrupt { .. }), "{}", error);
        prop_assert!(error.to_string().contains("another copy takes its place"), "{}", error);
        prop_assert_eq!(store.blob(digest).unwrap(), None);
        store.put_blob(digest, &bytes).unwrap();
        prop_assert_eq!(store.blob(digest).unwrap(), Some(bytes.clone()));
        // Also when nobody has read it since it was damaged.
        disk.flip_bit(&blob_path(digest), bit);
        store.put_blob(digest, &bytes).unwrap();
        prop_assert_eq!(store.blob(digest).unwrap(), Some(bytes));
    }
}

#[test]
fn a_damaged_blob_is_kept_for_people_to_look_at() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    let digest = Digest::of(b"blob");
    store.put_blob(digest, b"blob").unwrap();
    fs::write(dir.path().join(blob_path(digest)), b"bl").unwrap();
    let error = store.blob(digest).unwrap_err().to_string();
    let aside = dir.path().join("quarantine").join(digest.to_string());
    assert!(error.contains(aside.to_str().unwrap()), "{error}");
    assert_eq!(fs::read(aside).unwrap(), b"bl");
    assert!(!store.touch_blob(digest).unwrap());
}

fn filled(path: &Path) -> Vec<(Digest, Vec<u8>)> {
    let store = DiskStore::open(path).expect("an empty place");
    let batch: Vec<_> = (0..200).map(|n| (key(n), Some(vec![n as u8; 300]))).collect();
    store.commit(&batch).expect("a disk in order");
    drop(store);
    // What is in the log goes into the table.
    DiskStore::open(path).and_then(|store| store.records()).expect("a disk in order")
}

#[test]
fn a_cut_records_file_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let file = dir.path().join("records.redb");
    let whole = fs::read(&file).unwrap();
    for length in [0, 1, 100, 4096, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        let error = DiskStore::open(dir.path()).and_then(|store| store.records()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{length} bytes: {error}");
        let text = error.to_string();
        assert!(text.contains("records.redb") && text.contains("move the data directory away"), "{text}");
    }
}

#[test]
fn a_rotten_records_file_never_gives_wrong_records() {
    let dir = tempfile::tempdir().unwrap();
    let expected = filled(dir.path());
    let file = dir.path().join("records.redb");
    let whole = fs::read(&file).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    let mut found = 0;
    for seed in 0..150 {
        let mut rotten = whole.clone();
        rotten[rng::below(seed, 0, used) as usize] ^= 1 << rng::below(seed, 1, 8);
        fs::write(&file, rotten).unwrap();
        match DiskStore::open(dir.path()).and_then(|store| store.records()) {
            Ok(records) => assert!(records == expected, "seed {seed}"),
            Err(_) => found += 1,
        }
    }
    assert!(found > 10, "only {found} of 150 flips were noticed");
}

#[test]
fn damage_to_the_log_is_a_clear_error_but_for_the_last_change_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    for n in 0..50 {
        store.commit(&[(key(n), Some(vec![n as u8; 100]))]).unwrap();
    }
    drop(store);
    let file = dir.path().join("records.log");
    let (table, whole) = (fs::read(dir.path().join("records.redb")).unwrap(), fs::read(&file).unwrap());
    let open = |log: &[u8]| {
        fs::write(dir.path().join("records.redb"), &table).unwrap();
        fs::write(&file, log).unwrap();
        DiskStore::open(dir.path()).and_then(|store| store.records())
    };
    assert_eq!(open(&whole).unwrap().len(), 50);
    let refused = |log: &[u8]| {
        let error = open(log).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("records.log") && text.contains("move the data directory away"), "{text}");
    };
    [0, 1, whole.len() / 2, whole.len() - 1].into_iter().for_each(|length| refused(&whole[..length]));
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    let (mut noticed, mut last) = (0, 0);
    for seed in 0..150 {
        let (at, mut rotten) = (rng::below(seed, 0, used) as usize, whole.clone());
        rotten[at] ^= 1 << rng::below(seed, 1, 8);
        match open(&rotten).map(|records| records.len()) {
            Ok(50) => assert!(at % 64 >= 40 || whole[at] == 0, "byte {at}"),
            Ok(49) => last += 1,
            Ok(other) => panic!("byte {at}: {other} records"),
            Err(_) => {
                refused(&rotten);
                noticed += 1;
            }
        }
    }
    assert!(noticed > 100 && last < 20, "{noticed} were noticed, {last} hit the last change");
    fs::remove_file(&file).unwrap();
    let error = DiskStore::open(dir.path()).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[test]
fn a_full_disk_refuses_and_recovers_without_a_restart() {
    let disk = SimDisk::new(1);
    let store = DiskStore::on(disk.clone()).unwrap();
    let blob = vec![7; 100_000];
    store.commit(&[(key(1), Some(b"before".to_vec()))]).unwrap();
    let used = disk.used();
    disk.set_capacity(Some(used + 50_000));
    assert_eq!(store.room().unwrap(), Some(Room { free: 50_000, total: used + 50_000 }));
    let error = store.put_blob(Digest::of(&blob), &blob).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert_eq!(disk.used(), used, "the half-written blob is gone");
    store.put_blob(Digest::of(&blob[..40_000]), &blob[..40_000]).unwrap();

    let mut written = 0;
    let error = loop {
        match store.commit(&[(key(100 + written), Some(vec![1; 60_000]))]) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(error.to_string().contains("free some"), "{error}");
    let records = store.records().unwrap();
    // What failed may be there whole or not at all.
    assert!([1 + written, 2 + written].contains(&(records.len() as u64)), "{}", records.len());
    store.commit(&[(key(200), Some(vec![1; 9_000_000]))]).unwrap_err();

    disk.set_capacity(None);
    store.commit(&[(key(200), Some(b"after".to_vec()))]).unwrap();
    store.put_blob(Digest::of(&blob), &blob).unwrap();
    drop(store);
    disk.restart();
    let store = DiskStore::on(disk.clone()).unwrap();
    let records = store.records().unwrap();
    assert!(
        records.contains(&(key(1), b"before".to_vec())) && records.contains(&(key(200), b"after".to_vec()))
    );
    // What was tried twice is there once: nothing of it is left when it goes.
    let gone: Vec<_> = (100..=100 + written).chain([200]).map(|n| (key(n), None)).collect();
    store.commit(&gone).unwrap();
    drop(store);
    assert_eq!(DiskStore::on(disk).unwrap().records().unwrap(), [(key(1), b"before".to_vec())]);
}

#[test]
fn readers_and_writers_outlive_a_full_disk_together() {
    let disk = SimDisk::new(1);
    let store = DiskStore::on(disk.clone()).unwrap();
    store.commit(&[(key(0), Some(vec![0]))]).unwrap();
    disk.set_capacity(Some(disk.used()));
    thread::scope(|scope| {
        for writer in 1..4 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..10 {
                    match store.commit(&[(key(writer * 100 + n), Some(vec![1; 800_000]))]) {
                        Ok(()) | Err(StoreError::Full { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
        for _ in 0..30 {
            match store.records() {
                Ok(records) => assert!(records.contains(&(key(0), vec![0]))),
                Err(StoreError::Full { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    });
    disk.set_capacity(None);
    store.commit(&[(key(1), Some(vec![1]))]).unwrap();
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    let blob = |store: &DiskStore| store.put_blob(Digest::of(b"x"), b"x");
    let commit = |store: &DiskStore| store.commit(&[(key(2), Some(b"after".to_vec()))]);
    for first in [blob, commit] as [fn(&DiskStore) -> Result<(), StoreError>; 2] {
        let disk = SimDisk::new(1);
        let store = DiskStore::on(disk.clone()).unwrap();
        store.commit(&[(key(1), Some(b"before".to_vec()))]).unwrap();
        store.put_blob(Digest::of(b"b"), b"b").unwrap();
        disk.fail_syncs(true);
        let error = first(&store).unwrap_err();
        assert!(matches!(error, StoreError::Fatal { .. }), "{error}");
        assert!(error.to_string().contains("start this node again"), "{error}");
        // The disk answers again, but may have forgotten.
        disk.fail_syncs(false);
        for outcome in [
            blob(&store),
            commit(&store),
            store.set_setting("a", b"b"),
            store.remove_blob(Digest::of(b"b"), Duration::ZERO).map(drop),
        ] {
            assert!(matches!(outcome, Err(StoreError::Fatal { .. })), "{outcome:?}");
        }
        assert_eq!(store.blob(Digest::of(b"b")).unwrap().as_deref(), Some(&b"b"[..]));
        drop(store);
        disk.restart();
        let records = DiskStore::on(disk).unwrap().records().unwrap();
        assert!(records.contains(&(key(1), b"before".to_vec())));
    }
}

#[test]
fn a_disk_that_turns_read_only_says_so() {
    let disk = SimDisk::new(1);
    let store = DiskStore::on(disk.clone()).unwrap();
    store.commit(&[(key(1), Some(b"before".to_vec()))]).unwrap();
    store.put_blob(Digest::of(b"b"), b"b").unwrap();
    disk.set_read_only(true);
    let error = store.put_blob(Digest::of(b"x"), b"x").unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    assert!(error.to_string().contains("choose another directory with --data"), "{error}");
    let error = store.commit(&[(key(2), Some(vec![]))]).unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    assert_eq!(store.blob(Digest::of(b"b")).unwrap().as_deref(), Some(&b"b"[..]));
    disk.set_read_only(false);
    store.commit(&[(key(2), Some(vec![]))]).unwrap();
    assert_eq!(store.records().unwrap().len(), 2);
}
