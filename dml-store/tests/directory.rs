//! The data directory: its layout, whose it is, and who may use it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use dml_core::Digest;
use dml_store::{DiskStore, FORMAT, Store, StoreError};
use redb::{ReadableTable, TableDefinition};

fn refused(path: &Path) -> StoreError {
    DiskStore::open(path).map(drop).expect_err("it should be refused")
}

/// Programs of any later version must find their way in a directory that this one made.
#[test]
fn the_layout_is_golden() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/data");
    let store = DiskStore::open(&path).unwrap();
    let digest = Digest::of(b"");
    store.put_blob(digest, b"").unwrap();
    store.commit(&[(digest, Some(vec![1]))]).unwrap();
    assert_eq!(store.path(), path);

    assert_eq!(FORMAT, 3);
    assert_eq!(fs::read_to_string(path.join("FORMAT")).unwrap(), "dml-data 3\n");
    let hex = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    assert!(path.join("blobs/af").join(hex).is_file());
    assert_eq!(names(&path), ["FORMAT", "blobs", "lock", "quarantine", "records.log", "records.redb", "tmp"]);
    let shelves: Vec<String> = (0..256).map(|n| format!("{n:02x}")).collect();
    assert_eq!(names(&path.join("blobs")), shelves);
    assert_eq!(names(&path.join("tmp")), [""; 0]);
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("a name").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[cfg(unix)]
#[test]
fn the_room_is_that_of_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let room = DiskStore::open(dir.path()).unwrap().room().unwrap().expect("the system tells");
    assert!(0 < room.free && room.free < room.total, "{room:?}");
}

#[cfg(unix)]
#[test]
fn nobody_else_may_enter() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    DiskStore::open(&path).unwrap();
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_foreign_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, StoreError::NotOurs { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("not a DML data directory") && text.contains(dir.path().to_str().unwrap()),
        "{text}"
    );
    assert_eq!(names(dir.path()), ["thesis.tex"]);
    assert!(matches!(refused(&dir.path().join("thesis.tex")), StoreError::NotOurs { .. }));
    fs::write(dir.path().join("FORMAT"), "A4").unwrap();
    assert!(matches!(refused(dir.path()), StoreError::NotOurs { .. }));
}

#[test]
fn an_empty_directory_and_a_fresh_volume_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    DiskStore::open(dir.path()).unwrap();
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    DiskStore::open(dir.path()).unwrap();
    fs::write(dir.path().join("FORMAT"), "dml-data 4\n").unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, StoreError::Newer { found: 4, known: 3, .. }), "{error}");
    assert!(error.to_string().contains("upgrade this program"), "{error}");
}

/// Makes of a directory what a program of an earlier format would have left.
fn age(path: &Path, format: u32) -> Result<(), Box<dyn std::error::Error>> {
    // When it is opened, what is in the log goes into the table.
    drop(DiskStore::open(path)?);
    let database = redb::Database::open(path.join("records.redb"))?;
    let change = database.begin_write()?;
    // Records were kept under their ids.
    let (now, then) = (
        TableDefinition::<u64, &[u8]>::new("records by number"),
        TableDefinition::<&[u8; 32], &[u8]>::new("records"),
    );
    {
        let (now, mut then) = (change.open_table(now)?, change.open_table(then)?);
        for row in now.iter()? {
            let (_, row) = row?;
            let (id, sealed) = row.value().split_first_chunk::<32>().ok_or("no id")?;
            then.insert(id, sealed)?;
        }
    }
    change.delete_table(now)?;
    if format == 1 {
        // It knew of no log.
        change.delete_table(TableDefinition::<(), u64>::new("log"))?;
        fs::remove_file(path.join("records.log"))?;
    }
    change.commit()?;
    fs::write(path.join("FORMAT"), format!("dml-data {format}\n"))?;
    Ok(())
}

#[test]
fn directories_of_earlier_formats_are_taken_over() {
    for format in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let record = |n: u8| (Digest::of(&[n]), vec![n; 100]);
        let batch: Vec<_> = (0..50).map(record).map(|(id, value)| (id, Some(value))).collect();
        DiskStore::open(dir.path()).unwrap().commit(&batch).unwrap();
        age(dir.path(), format).unwrap();
        for _ in 0..2 {
            let store = DiskStore::open(dir.path()).unwrap();
            let mut expected: Vec<_> = (0..50).map(record).collect();
            expected.sort();
            assert_eq!(store.records().unwrap(), expected, "format {format}");
        }
        assert_eq!(fs::read_to_string(dir.path().join("FORMAT")).unwrap(), "dml-data 3\n");
        // What was there is changed and removed, not kept twice.
        let (one, two) = (record(1).0, record(2).0);
        DiskStore::open(dir.path()).unwrap().commit(&[(one, Some(vec![7])), (two, None)]).unwrap();
        for _ in 0..2 {
            let records = DiskStore::open(dir.path()).unwrap().records().unwrap();
            assert_eq!(records.len(), 49);
            assert!(records.contains(&(one, vec![7])) && records.iter().all(|(id, _)| *id != two));
        }
    }
}

#[test]
fn a_directory_has_one_user_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("stop it, or talk to it with --cluster"), "{error}");
    store.set_setting("a", b"still works").unwrap();
    drop(store);
    assert_eq!(
        DiskStore::open(dir.path()).unwrap().setting("a").unwrap().as_deref(),
        Some(&b"still works"[..])
    );
}

#[test]
fn what_was_half_written_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    DiskStore::open(dir.path()).unwrap();
    fs::write(dir.path().join("tmp/0"), "half a bl").unwrap();
    fs::write(dir.path().join("blobs/00/notes.txt"), "not a blob").unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    assert_eq!(names(&dir.path().join("tmp")), [""; 0]);
    assert_eq!(store.blobs().unwrap(), []);
}

#[cfg(unix)]
#[test]
fn a_read_only_directory_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let probe: PathBuf = dir.path().join("probe");
    if fs::write(&probe, "").is_ok() {
        // The superuser may write anywhere.
        return;
    }
    for path in [dir.path().to_owned(), dir.path().join("data")] {
        let error = refused(&path);
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
}
