//! What a training's `index.json` says, and where its models are below it.

use dml_core::{Digest, Params, Task, training::State};
use dml_net::view::{NewValidation, TrainedView, TrainingView};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::url::Url;
use crate::{console::handle, failure::Failure};

/// The name of the index below its training.
pub(super) const FILE: &str = "index.json";

/// The name of a model's bytes below the model.
pub(super) const MODEL: &str = "model.dml";

/// The name of what a model is below the model.
pub(super) const CARD: &str = "card.json";

/// The version that this program writes, and the newest that it reads.
const VERSION: u32 = 1;

/// Whether a name that others wrote may be shown: it does nothing to a terminal.
pub(super) fn is_plain(name: &str) -> bool {
    !name.chars().any(char::is_control)
}

/// A training whose models are in a bucket.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Index {
    version: u32,
    /// What the training is called.
    pub(super) name: String,
    training: Digest,
    dataset: Digest,
    task: Task,
    target: String,
    features: Vec<String>,
    validation: NewValidation,
    seed: u64,
    /// The finished models, best first; not all of them need to be there.
    pub(super) models: Vec<Entry>,
}

/// A finished model of a training.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) id: Digest,
    /// What it is called within its training.
    pub(super) name: String,
    kind: String,
    params: Params,
    metrics: Option<Json>,
    /// The digest of its bytes.
    pub(super) digest: Digest,
    /// Where it is below the training.
    pub(super) path: String,
}

impl Index {
    /// The index of a training as it is now.
    pub(super) fn of(training: &TrainingView) -> Self {
        Self {
            version: VERSION,
            name: handle(training.name.as_ref(), &training.id),
            training: training.id,
            dataset: training.dataset,
            task: training.task,
            target: training.target.clone(),
            features: training.features.clone(),
            validation: training.validation,
            seed: training.seed,
            models: training.models.iter().filter_map(Entry::of).collect(),
        }
    }

    /// Reads what a bucket has.
    pub(super) fn read(bytes: &[u8], url: &Url) -> Result<Self, Failure> {
        let said: Result<Json, _> = serde_json::from_slice(bytes);
        if let Some(version) = said.ok().and_then(|said| said["version"].as_u64())
            && version > u64::from(VERSION)
        {
            let what = format!("{url} has version {version}, and this program reads version {VERSION}");
            return Err(Failure::input(what).hint("a newer dml has pushed it, and can pull it"));
        }
        let wrong = |why: String| {
            Failure::input(format!("{url} is not the index of a training: {why}"))
                .hint("push the training again: that writes the index anew")
        };
        let index: Self = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        if !is_plain(&index.name) || index.models.iter().any(|entry| !is_plain(&entry.name)) {
            return Err(wrong("a name has control characters".into()));
        }
        Ok(index)
    }

    /// The model that a text names: by its name, by the part of its path, or by its id.
    pub(super) fn find(&self, text: &str) -> Option<&Entry> {
        let directory = |entry: &&Entry| entry.path.split('/').next() == Some(text);
        let models = || self.models.iter();
        let named = models().find(|entry| entry.name == text).or_else(|| models().find(directory));
        named.or_else(|| models().find(|entry| text.len() >= 12 && entry.id.to_string().starts_with(text)))
    }
}

impl Entry {
    /// The entry of a model, if it is finished.
    pub(super) fn of(model: &TrainedView) -> Option<Self> {
        let digest = model.digest.filter(|_| model.state == State::Succeeded)?;
        Some(Self {
            id: model.id,
            name: model.name.clone(),
            kind: model.kind.clone(),
            params: model.params.clone(),
            metrics: model.metrics.clone(),
            digest,
            path: format!("{}-{}/{MODEL}", model.name, model.id.short()),
        })
    }
}
