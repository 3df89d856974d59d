//! Every engine passes the same suite.

use std::sync::Arc;

use dml_store::{DiskStore, MemoryStore, conformance::conformance, sim::SimDisk};

#[test]
fn memory() {
    conformance(|| {
        let store = Arc::new(MemoryStore::new());
        Box::new(move || store.clone())
    });
}

#[test]
fn disk() {
    conformance(|| {
        let dir = tempfile::tempdir().unwrap();
        Box::new(move || Arc::new(DiskStore::open(dir.path().join("data")).unwrap()))
    });
}

#[test]
fn any_store_of_stores() {
    conformance(|| {
        let store = Arc::new(Arc::new(MemoryStore::new()));
        Box::new(move || store.clone())
    });
}

/// Its clock stands still, so only what does not speak of ages is asked of it here: see `power_loss` for the rest.
#[test]
fn a_simulated_disk_holds_what_a_real_one_does() {
    use dml_core::Digest;
    use dml_store::Store;
    use std::time::Duration;

    let disk = SimDisk::new(1);
    let digest = Digest::of(b"blob");
    let store = DiskStore::on(disk.clone()).unwrap();
    store.put_blob(digest, b"blob").unwrap();
    disk.pass(Duration::from_secs(60));
    assert_eq!(store.blobs().unwrap()[0].age, Duration::from_secs(60));
    assert!(!store.remove_blob(digest, Duration::from_secs(61)).unwrap());
    store.put_blob(digest, b"blob").unwrap();
    assert_eq!(store.blobs().unwrap()[0].age, Duration::ZERO);
    disk.pass(Duration::from_secs(61));
    assert!(store.remove_blob(digest, Duration::from_secs(61)).unwrap());
    assert_eq!(store.blobs().unwrap(), []);
}
