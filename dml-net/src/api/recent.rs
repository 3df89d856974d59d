//! What a worker was told a moment ago, so that a crowd of requests does not ask db nodes for each: what a text means and
//! how things stand that do not move any more, for a second at most, and models that are ready to predict. Whatever this
//! worker creates or deletes makes it forget all but the models, so nobody reads less than he wrote.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    http::header,
    response::{IntoResponse, Response},
};
use dml_compute::Model;
use dml_core::{Digest, Kind};
use serde::Serialize;

use super::{evidence::Family, models::Found};

/// How long a text means what it meant.
const MEANING: Duration = Duration::from_secs(1);

/// How many texts are remembered.
const TEXTS: usize = 1000;

/// How long an answer is at most that is remembered.
const ANSWER: usize = 16 << 10;

/// How large the models are together, as bytes; and one of them at most.
const MODELS: usize = 32 << 20;
const MODEL: usize = 8 << 20;

/// What was told of late.
#[derive(Default)]
pub(crate) struct Recent(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    meanings: Texts<Arc<Found>>,
    /// Trainings that are over.
    families: Texts<Arc<Family>>,
    /// What is shown of a thing that does not move any more.
    answers: BTreeMap<&'static str, Texts<Bytes>>,
    /// How often all these were forgotten.
    turn: u64,
    models: BTreeMap<Digest, (u64, usize, Arc<Model>)>,
    bytes: usize,
    uses: u64,
}

/// What texts mean, and since when.
struct Texts<T>(BTreeMap<String, (Instant, T)>);

impl<T> Default for Texts<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Clone> Texts<T> {
    fn get(&self, text: &str) -> Option<T> {
        self.0.get(text).filter(|(at, _)| at.elapsed() < MEANING).map(|(_, meaning)| meaning.clone())
    }

    fn put(&mut self, text: &str, meaning: T) {
        if self.0.len() >= TEXTS {
            self.0.clear();
        }
        self.0.insert(text.into(), (Instant::now(), meaning));
    }
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// The model that a text means, if that was told a moment ago; else the turn in which it is asked for.
    pub(super) fn meaning(&self, text: &str) -> Result<Arc<Found>, u64> {
        let kept = self.lock();
        kept.meanings.get(text).ok_or(kept.turn)
    }

    /// Remembers what a text means, unless something was created or deleted since it was asked for.
    pub(super) fn means(&self, text: &str, found: &Arc<Found>, turn: u64) {
        let mut kept = self.lock();
        if kept.turn == turn {
            kept.meanings.put(text, found.clone());
        }
    }

    /// The training that a text means, if that was told a moment ago and it was over; else the turn in which it is asked
    /// for.
    pub(super) fn family(&self, text: &str) -> Result<Arc<Family>, u64> {
        let kept = self.lock();
        kept.families.get(text).ok_or(kept.turn)
    }

    /// Remembers which training a text means, under the same condition.
    pub(super) fn is_family(&self, text: &str, family: &Arc<Family>, turn: u64) {
        let mut kept = self.lock();
        if kept.turn == turn {
            kept.families.put(text, family.clone());
        }
    }

    /// The answer about what a text means among things of a kind, if it was given a moment ago; else the turn in which it
    /// is asked for.
    pub(super) fn answer(&self, kind: Kind, text: &str) -> Result<Answer, u64> {
        let kept = self.lock();
        let known = kept.answers.get(kind.name()).and_then(|texts| texts.get(text));
        known.map(Answer).ok_or(kept.turn)
    }

    /// The answer, which is remembered under the same condition if the thing does not move any more.
    pub(super) fn answered(
        &self,
        kind: Kind,
        text: &str,
        view: &impl Serialize,
        is_settled: bool,
        turn: u64,
    ) -> Answer {
        let bytes: Bytes = serde_json::to_vec(view).expect("views have string keys").into();
        let mut kept = self.lock();
        if is_settled && kept.turn == turn && bytes.len() <= ANSWER {
            kept.answers.entry(kind.name()).or_default().put(text, bytes.clone());
        }
        Answer(bytes)
    }

    /// Forgets what texts mean: something was created or deleted.
    pub(super) fn forget(&self) {
        let mut kept = self.lock();
        let kept = &mut *kept;
        kept.meanings.0.clear();
        kept.families.0.clear();
        kept.answers.clear();
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

/// A view of a thing, as JSON.
pub(super) struct Answer(Bytes);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}
