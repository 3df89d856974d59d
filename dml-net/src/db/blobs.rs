//! Blobs of this node and of others: what is missing here is fetched from a node that has it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use axum::body::Bytes;
use dml_core::{Digest, NodeId};
use dml_store::{Room, Store, StoreError};
use tokio::{sync::Semaphore, time::Instant};

use super::{meters::Meters, post::Post};
use crate::link::exchange::{Question, exchange};

/// How many blobs are fetched at a time.
const FETCHES: usize = 8;

/// How long a node may be silent while it sends a blob.
const QUIET: Duration = Duration::from_secs(5);

/// The blobs of this node, and the way to those of others.
#[derive(Clone)]
pub(super) struct Blobs {
    store: Arc<dyn Store>,
    post: Option<Post>,
    turns: Arc<Semaphore>,
    young: Arc<Mutex<Young>>,
    meters: Arc<Meters>,
    sized: Arc<tokio::sync::Mutex<Option<Sized>>>,
}

/// How many blobs there were and how many bytes they had, and when that was.
type Sized = (Instant, u64, u64);

/// How old that may be: who wants to know it looks at every file.
const SIZED: Duration = Duration::from_secs(60);

impl Blobs {
    pub(super) fn new(store: Arc<dyn Store>, post: Option<Post>, meters: Arc<Meters>) -> Self {
        let turns = Arc::new(Semaphore::new(FETCHES));
        Self { store, post, turns, young: Arc::default(), meters, sized: Arc::default() }
    }

    /// A blob of this node.
    pub(super) async fn get(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.blocking(move |store| store.blob(digest)).await;
        if matches!(found, Ok(None) | Err(StoreError::Corrupt { .. })) {
            self.young().forget(digest);
        }
        found
    }

    /// Keeps a blob: it is durable on return.
    pub(super) async fn put(&self, digest: Digest, bytes: Bytes) -> Result<(), StoreError> {
        let moment = self.young().moment();
        let start = Instant::now();
        self.blocking(move |store| store.put_blob(digest, &bytes)).await?;
        self.meters.blobs.observe(start.elapsed());
        self.young().remember(digest, moment);
        Ok(())
    }

    /// How much room the disk has.
    pub(super) async fn room(&self) -> Result<Option<Room>, StoreError> {
        self.blocking(|store| store.room()).await
    }

    /// How many blobs this node has, and how many bytes they have.
    pub(super) async fn size(&self) -> Result<(u64, u64), StoreError> {
        let mut sized = self.sized.lock().await;
        if let Some((at, count, bytes)) = *sized
            && at.elapsed() < SIZED
        {
            return Ok((count, bytes));
        }
        let blobs = self.blocking(|store| store.blobs()).await?;
        let (count, bytes) = (blobs.len() as u64, blobs.iter().map(|blob| blob.bytes).sum());
        *sized = Some((Instant::now(), count, bytes));
        Ok((count, bytes))
    }

    /// Removes the blobs that were not put or touched for so long and that nothing refers to, as `nameless` says; it says
    /// nothing when the node has ended.
    pub(super) async fn sweep<F: Future<Output = Option<Vec<Digest>>>>(
        &self,
        age: Duration,
        nameless: impl FnOnce(Vec<Digest>) -> F,
    ) -> Result<(), StoreError> {
        let blobs = self.blocking(|store| store.blobs()).await?;
        let Some(nameless) = nameless(blobs.iter().map(|blob| blob.digest).collect()).await else {
            return Ok(());
        };
        let remove = move |store: &dyn Store| {
            nameless.into_iter().try_for_each(|blob| store.remove_blob(blob, age).map(drop))
        };
        self.blocking(remove).await
    }

    /// Makes blobs young again; gives those that are not here.
    async fn touch(&self, blobs: Vec<Digest>) -> Result<Vec<Digest>, StoreError> {
        let moment = self.young().moment();
        let touch = move |store: &dyn Store| {
            blobs.into_iter().map(|blob| Ok((blob, store.touch_blob(blob)?))).collect::<Result<Vec<_>, _>>()
        };
        let (mut young, mut missing) = (Vec::new(), Vec::new());
        for (blob, here) in self.blocking(touch).await? {
            if here { &mut young } else { &mut missing }.push(blob);
        }
        let mut known = self.young();
        young.into_iter().for_each(|blob| known.remember(blob, moment));
        Ok(missing)
    }

    fn young(&self) -> MutexGuard<'_, Young> {
        self.young.lock().expect("nobody panics while holding it")
    }

    /// Runs a store's function where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&*store)).await;
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Sees to it that blobs are here; tells the first that cannot be had. `from` is asked first, then everyone.
    pub(super) async fn ensure(
        &self,
        blobs: Vec<Digest>,
        from: Option<NodeId>,
    ) -> Result<Option<Digest>, StoreError> {
        let unsure = self.young().unsure(blobs);
        if unsure.is_empty() {
            return Ok(None);
        }
        let missing = self.touch(unsure).await?;
        let mut fetches = tokio::task::JoinSet::new();
        for digest in missing {
            let this = self.clone();
            fetches.spawn(async move {
                let _turn = this.turns.acquire().await;
                // Another letter may have brought it meanwhile.
                if this.touch(vec![digest]).await?.is_empty() {
                    return Ok(None);
                }
                let Some(bytes) = this.fetch(digest, from).await else { return Ok(Some(digest)) };
                this.put(digest, bytes).await?;
                Ok(None)
            });
        }
        let mut lacking = None;
        while let Some(fetched) = fetches.join_next().await {
            lacking =
                lacking.or(fetched.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?);
        }
        Ok(lacking)
    }

    /// A blob of another node, checked.
    pub(super) async fn fetch(&self, digest: Digest, from: Option<NodeId>) -> Option<Bytes> {
        let post = self.post.as_ref()?;
        let others = post.active().into_iter().filter(|id| Some(*id) != from);
        for id in from.into_iter().chain(others) {
            let Some(peer) = post.peer(id) else { continue };
            let path = format!("/v1/blobs/{digest}?here=true");
            let question = Question::get(path);
            match exchange(&peer, &question, QUIET).await {
                Ok((status, bytes)) if status.is_success() && Digest::of(&bytes) == digest => {
                    return Some(bytes);
                }
                Ok((status, _)) => tracing::debug!(%digest, node = %id, %status, "a blob is not there"),
                Err(silence) => tracing::debug!(%digest, node = %id, %silence, "a blob could not be fetched"),
            }
        }
        None
    }
}

/// How long a blob that was put or touched is known to be here without another look. The removal of what nothing
/// refers to spares blobs that were put or touched in the last 30 s: one that was 10 s ago has 20 s left in which a
/// record can name it.
const KNOWN: Duration = Duration::from_secs(10);

/// How many blobs are known at a time.
const MOST: usize = 1 << 16;

/// The blobs that were put or touched lately. Most reports name such a blob, and need no look at the disk for it.
#[derive(Default)]
struct Young {
    since: BTreeMap<Digest, SystemTime>,
    /// Each time that a blob was remembered, the oldest first: what is to be forgotten next.
    order: VecDeque<(SystemTime, Digest)>,
    /// How many times a blob was found missing or damaged.
    losses: u64,
}

/// When a look at the disk began: the blob is at least as young there.
#[derive(Clone, Copy)]
struct Moment {
    /// By the clock that gives files their ages.
    time: SystemTime,
    losses: u64,
}

impl Young {
    fn moment(&self) -> Moment {
        Moment { time: SystemTime::now(), losses: self.losses }
    }

    /// Those blobs of which the disk must be asked.
    fn unsure(&self, mut blobs: Vec<Digest>) -> Vec<Digest> {
        if !blobs.is_empty() {
            let now = SystemTime::now();
            blobs.retain(|blob| self.since.get(blob).is_none_or(|since| is_over(*since, now)));
        }
        blobs
    }

    /// A blob was put or touched, not before that moment.
    fn remember(&mut self, digest: Digest, moment: Moment) {
        if moment.losses != self.losses {
            // It may be this one that was lost meanwhile.
            return;
        }
        let now = SystemTime::now();
        while let Some((since, old)) = self.order.front().copied()
            && (self.order.len() >= MOST || is_over(since, now))
        {
            self.order.pop_front();
            if self.since.get(&old) == Some(&since) {
                self.since.remove(&old);
            }
        }
        self.since.insert(digest, moment.time);
        self.order.push_back((moment.time, digest));
    }

    /// A blob is missing or damaged.
    fn forget(&mut self, digest: Digest) {
        self.losses += 1;
        self.since.remove(&digest);
    }
}

/// Also if the clock was set back: then nobody knows.
fn is_over(since: SystemTime, now: SystemTime) -> bool {
    now.duration_since(since).map_or(true, |age| age >= KNOWN)
}

#[cfg(test)]
mod tests {
    use dml_store::MemoryStore;

    use super::*;

    fn here() -> (Arc<MemoryStore>, Blobs) {
        let store = Arc::new(MemoryStore::default());
        (store.clone(), Blobs::new(store, None, Arc::default()))
    }

    #[tokio::test]
    async fn what_nothing_refers_to_is_swept_away_when_it_is_old() {
        let (store, blobs) = here();
        let [old, named] = [b"old", b"new"].map(|text| (Digest::of(text), Bytes::from_static(text)));
        for (digest, bytes) in [&old, &named] {
            blobs.put(*digest, bytes.clone()).await.unwrap();
        }
        let there = || {
            let mut there: Vec<Digest> = store.blobs().unwrap().iter().map(|blob| blob.digest).collect();
            there.sort();
            there
        };
        let all = there();
        let nameless = |blobs: Vec<Digest>| async move {
            Some(blobs.into_iter().filter(|blob| *blob != named.0).collect::<Vec<_>>())
        };
        blobs.sweep(Duration::from_secs(60), nameless).await.unwrap();
        assert_eq!(there(), all, "they are young");
        blobs.sweep(Duration::ZERO, |_| async { None }).await.unwrap();
        assert_eq!(there(), all, "nobody knows what they are for");
        blobs.sweep(Duration::ZERO, nameless).await.unwrap();
        assert_eq!(there(), [named.0]);
    }

    #[tokio::test]
    async fn a_blob_that_was_put_lately_is_known_until_it_is_found_missing() {
        let (store, blobs) = here();
        let (bytes, other) = (Bytes::from_static(b"blob"), Digest::of(b"other"));
        let digest = Digest::of(&bytes);
        assert_eq!(blobs.ensure(vec![digest], None).await.unwrap(), Some(digest));
        blobs.put(digest, bytes).await.unwrap();
        assert!(blobs.young().unsure(vec![digest]).is_empty());
        assert_eq!(blobs.ensure(vec![digest, other], None).await.unwrap(), Some(other));
        store.remove_blob(digest, Duration::ZERO).unwrap();
        assert_eq!(blobs.ensure(vec![digest], None).await.unwrap(), None);
        assert_eq!(blobs.get(digest).await.unwrap(), None);
        assert_eq!(blobs.ensure(vec![digest], None).await.unwrap(), Some(digest));
    }

    #[tokio::test]
    async fn a_blob_that_was_touched_is_known() {
        let (store, blobs) = here();
        let digest = Digest::of(b"blob");
        store.put_blob(digest, b"blob").unwrap();
        assert_eq!(blobs.ensure(vec![digest], None).await.unwrap(), None);
        assert!(blobs.young().unsure(vec![digest]).is_empty());
    }

    #[test]
    fn what_is_known_ends_and_is_bounded() {
        let key = |n: usize| Digest::of(&n.to_le_bytes());
        let mut young = Young::default();
        let mut moment = young.moment();
        moment.time -= KNOWN;
        young.remember(key(0), moment);
        assert_eq!(young.unsure(vec![key(0)]), [key(0)], "it was touched too long ago");
        moment.time += 2 * KNOWN;
        young.remember(key(0), moment);
        assert_eq!(young.unsure(vec![key(0)]), [key(0)], "the clock was set back");
        for n in 0..MOST + 9 {
            young.remember(key(n), young.moment());
        }
        assert_eq!((young.since.len(), young.order.len()), (MOST, MOST));
        assert_eq!(young.unsure(vec![key(8), key(9), key(MOST + 8)]), [key(8)]);
    }

    #[test]
    fn a_loss_during_a_look_is_not_overlooked() {
        let (mut young, digest) = (Young::default(), Digest::of(b"blob"));
        let moment = young.moment();
        young.forget(digest);
        young.remember(digest, moment);
        assert_eq!(young.unsure(vec![digest]), [digest]);
    }
}
