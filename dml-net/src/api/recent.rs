//! What a worker was told a moment ago, so that a crowd of predictions does not ask db nodes for each: what a text means,
//! for a second at most, and models that are ready to predict. Whatever this worker creates or deletes makes it forget
//! what texts mean, so nobody reads less than he wrote.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use dml_compute::Model;
use dml_core::Digest;

use super::models::Found;

/// How long a text means what it meant.
const MEANING: Duration = Duration::from_secs(1);

/// How many texts are remembered.
const TEXTS: usize = 1000;

/// How large the models are together, as bytes; and one of them at most.
const MODELS: usize = 32 << 20;
const MODEL: usize = 8 << 20;

/// What was told of late.
#[derive(Default)]
pub(crate) struct Recent(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    meanings: BTreeMap<String, (Instant, Arc<Found>)>,
    /// How often that was forgotten.
    turn: u64,
    models: BTreeMap<Digest, (u64, usize, Arc<Model>)>,
    bytes: usize,
    uses: u64,
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// The model that a text means, if that was told a moment ago; else the turn in which it is asked for.
    pub(super) fn meaning(&self, text: &str) -> Result<Arc<Found>, u64> {
        let kept = self.lock();
        let known = kept.meanings.get(text).filter(|(at, _)| at.elapsed() < MEANING);
        known.map(|(_, found)| found.clone()).ok_or(kept.turn)
    }

    /// Remembers what a text means, unless something was created or deleted since it was asked for.
    pub(super) fn means(&self, text: &str, found: &Arc<Found>, turn: u64) {
        let mut kept = self.lock();
        if kept.turn != turn {
            return;
        }
        if kept.meanings.len() >= TEXTS {
            kept.meanings.clear();
        }
        kept.meanings.insert(text.into(), (Instant::now(), found.clone()));
    }

    /// Forgets what texts mean: something was created or deleted.
    pub(super) fn forget(&self) {
        let mut kept = self.lock();
        kept.meanings.clear();
        kept.turn += 1;
    }

    /// A model that is at hand.
    pub(super) fn model(&self, digest: &Digest) -> Option<Arc<Model>> {
        let mut kept = self.lock();
        kept.uses += 1;
        let uses = kept.uses;
        let (used, _, model) = kept.models.get_mut(digest)?;
        *used = uses;
        Some(model.clone())
    }

    /// Keeps a model at hand; the least lately used go first.
    pub(super) fn keep(&self, digest: Digest, model: &Arc<Model>, bytes: usize) {
        let mut kept = self.lock();
        if bytes > MODEL || kept.models.contains_key(&digest) {
            return;
        }
        kept.uses += 1;
        let uses = kept.uses;
        kept.bytes += bytes;
        kept.models.insert(digest, (uses, bytes, model.clone()));
        while kept.bytes > MODELS {
            let Some(oldest) = kept.models.iter().min_by_key(|(_, (used, ..))| *used).map(|(d, _)| *d) else {
                return;
            };
            if let Some((_, bytes, _)) = kept.models.remove(&oldest) {
                kept.bytes -= bytes;
            }
        }
    }
}
