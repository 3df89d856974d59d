//! The data directory: its layout, whose it is, and who may use it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use dml_core::Digest;
use dml_store::{DiskStore, FORMAT, Store, StoreError};

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

    assert_eq!(FORMAT, 2);
    assert_eq!(fs::read_to_string(path.join("FORMAT")).unwrap(), "dml-data 2\n");
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
    fs::write(dir.path().join("FORMAT"), "dml-data 3\n").unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, StoreError::Newer { found: 3, known: 2, .. }), "{error}");
    assert!(error.to_string().contains("upgrade this program"), "{error}");
}

#[test]
fn a_directory_of_the_first_format_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let key = Digest::of(b"key");
    DiskStore::open(dir.path()).unwrap().commit(&[(key, Some(b"value".to_vec()))]).unwrap();
    // When it is opened again, what is in the log goes into the table.
    drop(DiskStore::open(dir.path()).unwrap());
    // The first format knew of no log.
    let table = redb::Database::open(dir.path().join("records.redb")).unwrap();
    let change = table.begin_write().unwrap();
    change.delete_table(redb::TableDefinition::<(), u64>::new("log")).unwrap();
    change.commit().unwrap();
    drop(table);
    fs::remove_file(dir.path().join("records.log")).unwrap();
    fs::write(dir.path().join("FORMAT"), "dml-data 1\n").unwrap();
    let store = DiskStore::open(dir.path()).unwrap();
    assert_eq!(store.records().unwrap(), [(key, b"value".to_vec())]);
    assert_eq!(fs::read_to_string(dir.path().join("FORMAT")).unwrap(), "dml-data 2\n");
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
