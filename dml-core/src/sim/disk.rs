//! The disk of a db node: records that become durable in order, and blobs. It forgets what was not durable when the node
//! dies, may be full for a while, and may lose a blob to bit rot without knowing it.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};
use core::time::Duration;

use crate::{
    id::Digest,
    merge::Merge,
    record::{Body, Record},
};

/// A write: records under their ids, none where a record goes.
pub(super) type Records = Vec<(Digest, Option<Record>)>;

/// A blob that was put again so lately is not removed: it is about to be named.
const PUT_GRACE: Duration = Duration::from_secs(30);

/// A disk.
#[derive(Default)]
pub(super) struct Disk {
    /// What is written under its keys: records, and patches that merge with the record of their job.
    keys: BTreeMap<Digest, Record>,
    /// The durable records, patches merged.
    durable: BTreeMap<Digest, Record>,
    /// The records as they will be when all writes are durable.
    latest: BTreeMap<Digest, Record>,
    waiting: VecDeque<(u64, Records)>,
    /// When each blob was put or asked for last, by the node's clock.
    blobs: BTreeMap<Digest, Duration>,
    /// Blobs that are corrupt, which nobody has noticed yet.
    rotten: BTreeSet<Digest>,
    /// Blobs that were found to be corrupt, and are to be fetched again.
    pub(super) lost: BTreeSet<Digest>,
    /// Nothing can be written.
    pub(super) full: bool,
    /// Writing takes its time.
    pub(super) slow: bool,
}

impl Disk {
    /// What would be there after a loss of power.
    pub(super) fn durable(&self) -> &BTreeMap<Digest, Record> {
        &self.durable
    }

    /// All that is durable, as a node reads it when it starts.
    pub(super) fn keys(&self) -> &BTreeMap<Digest, Record> {
        &self.keys
    }

    /// A record, as it will be when all writes are durable.
    pub(super) fn latest(&self, id: &Digest) -> Option<&Record> {
        self.latest.get(id)
    }

    /// Takes a write, which is not durable yet.
    pub(super) fn write(&mut self, write: u64, records: Records) {
        records.iter().for_each(|(key, record)| apply(&mut self.latest, *key, record.clone()));
        self.waiting.push_back((write, records));
    }

    /// Whether anything is not durable yet.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Makes everything up to this write durable. Says whether that was anything.
    pub(super) fn sync(&mut self, write: u64) -> bool {
        let mut any = false;
        while self.waiting.front().is_some_and(|(number, _)| *number <= write) {
            self.sync_one();
            any = true;
        }
        any
    }

    /// The power fails: of the writes on their way the first `kept` reach the disk.
    pub(super) fn crash(&mut self, kept: usize) {
        for _ in 0..kept.min(self.waiting.len()) {
            self.sync_one();
        }
        self.waiting.clear();
        self.latest.clone_from(&self.durable);
        (self.full, self.slow) = (false, false);
    }

    /// How many writes are on their way.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn sync_one(&mut self) {
        for (key, record) in self.waiting.pop_front().into_iter().flat_map(|(_, records)| records) {
            match &record {
                Some(record) => self.keys.insert(key, record.clone()),
                None => self.keys.remove(&key),
            };
            apply(&mut self.durable, key, record);
        }
    }

    /// Puts a blob; it is durable at once.
    pub(super) fn put(&mut self, now: Duration, blob: Digest) {
        self.blobs.insert(blob, now);
        self.rotten.remove(&blob);
        self.lost.remove(&blob);
    }

    /// Whether a blob is there, for somebody who is about to name it.
    pub(super) fn touch(&mut self, now: Duration, blob: &Digest) -> bool {
        self.blobs.get_mut(blob).map(|at| *at = now).is_some()
    }

    /// Whether a blob is there, as far as the disk knows.
    pub(super) fn has(&self, blob: &Digest) -> bool {
        self.blobs.contains_key(blob)
    }

    /// Whether a blob is there and whole.
    pub(super) fn is_good(&self, blob: &Digest) -> bool {
        self.blobs.contains_key(blob) && !self.rotten.contains(blob)
    }

    /// Reads a blob: false if it is not there. A corrupt one is noticed and goes.
    pub(super) fn read(&mut self, blob: &Digest) -> bool {
        if self.rotten.remove(blob) {
            self.blobs.remove(blob);
            self.lost.insert(*blob);
        }
        self.blobs.contains_key(blob)
    }

    /// A blob becomes corrupt.
    pub(super) fn rot(&mut self, blob: Digest) {
        self.rotten.insert(blob);
    }

    /// Whether some blob is corrupt or was lost to corruption.
    pub(super) fn is_hurt(&self) -> bool {
        !self.rotten.is_empty() || !self.lost.is_empty()
    }

    /// Removes blobs that were not asked for lately.
    pub(super) fn discard(&mut self, now: Duration, blobs: &[Digest]) {
        for blob in blobs {
            if self.blobs.get(blob).is_some_and(|at| *at + PUT_GRACE < now) {
                self.blobs.remove(blob);
                self.rotten.remove(blob);
            }
            self.lost.remove(blob);
        }
    }
}

/// The id of the record that is written under a key; another than the key, if it is a patch.
pub(super) fn id_of(key: Digest, record: &Record) -> Digest {
    match &record.body {
        Some(Body::Job(job)) => job.spec.id(),
        Some(
            Body::Dataset(_) | Body::Training(_) | Body::Study(_) | Body::Token(_) | Body::Revocation(_),
        )
        | None => key,
    }
}

fn apply(records: &mut BTreeMap<Digest, Record>, key: Digest, record: Option<Record>) {
    let Some(record) = record else {
        records.remove(&key);
        return;
    };
    let id = id_of(key, &record);
    if id == key {
        records.insert(key, record);
    } else if let Some(whole) = records.get_mut(&id) {
        whole.merge(record);
    }
}
