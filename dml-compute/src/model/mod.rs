//! A finished model: it carries the whole way from a raw table to labelled predictions, and can be taken away.
//!
//! # The native format, version 1
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `DMLMODEL` |
//! | 2 | the version, little-endian |
//! | n | the fields of [`Model`] in their order, in the [postcard](https://postcard.jamesmunns.com/wire-format) encoding: `params` as JSON text, `learner` as the kind's own postcard bytes |
//! | 32 | the BLAKE3 digest of all bytes before |
//!
//! A field that is added, or changes its meaning, makes a new version. [`Model::to_json`] shows the same content to people;
//! it is not read back.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use dml_core::{ColumnType, Digest, Params, Task};
use ndarray::{Array1, Array2, ArrayView1};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    error::WorkError,
    learner::Scores,
    pipeline::Pipeline,
    registry::{AnyModel, Registry},
    table::{self, TableError},
};

const MAGIC: &[u8; 8] = b"DMLMODEL";
const VERSION: u16 = 1;
const HEAD: usize = MAGIC.len() + 2;
const SEAL: usize = 32;

/// How many rows of a table a thread predicts at a time.
const ROWS: usize = 2048;

/// A model and what it was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Regression or classification.
    pub task: Task,
    /// The column that it predicts.
    pub target: String,
    /// The classes in their order; none for regression.
    pub classes: Vec<String>,
    /// Its kind.
    pub kind: String,
    /// The kind's parameters, complete.
    #[serde(with = "as_json")]
    pub params: Params,
    /// The source of everything random in its training.
    pub seed: u64,
    /// How many rows it learned from.
    pub rows: u64,
    /// The columns that it predicts from, in the training table's order.
    pub features: Vec<(String, ColumnType)>,
    /// How they become what the learner sees.
    pub pipeline: Pipeline,
    /// The learner's own model: see [`AnyLearner::load`](crate::registry::AnyLearner::load).
    pub learner: Vec<u8>,
}

/// Why a table could not be predicted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PredictError {
    /// The table lacks a column of the model, or has values of another type in it.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The model itself is at fault.
    #[error(transparent)]
    Model(#[from] WorkError),
}

impl Model {
    /// The native format.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(postcard::to_allocvec(self).expect("a model is plain data"));
        let seal = Digest::of(&bytes);
        bytes.extend(seal.as_bytes());
        bytes
    }

    /// From the native format.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WorkError> {
        let corrupt = |why: String| WorkError::Corrupt { what: "a model", why };
        if bytes.get(..MAGIC.len()) != Some(MAGIC) {
            return Err(corrupt("it does not begin with DMLMODEL".into()));
        }
        let Some((version, _)) = bytes[MAGIC.len()..].split_first_chunk() else {
            return Err(corrupt(format!("it ends after {} bytes", bytes.len())));
        };
        let version = u16::from_le_bytes(*version);
        if version != VERSION {
            return Err(corrupt(format!(
                "it has the format version {version}, and this program knows {VERSION}"
            )));
        }
        let Some((content, seal)) =
            bytes.split_last_chunk::<SEAL>().filter(|(content, _)| content.len() >= HEAD)
        else {
            return Err(corrupt(format!("it ends after {} bytes", bytes.len())));
        };
        if Digest::of(content).as_bytes() != seal {
            return Err(corrupt("its checksum is wrong: bytes are missing or changed".into()));
        }
        match postcard::take_from_bytes(&content[HEAD..]) {
            Ok((model, [])) => Ok(model),
            Ok((_, rest)) => Err(corrupt(format!("{} bytes too many", rest.len()))),
            Err(error) => Err(corrupt(error.to_string())),
        }
    }

    /// All that the model consists of, to be read by people and by other programs.
    pub fn to_json(&self, registry: &Registry) -> Result<String, WorkError> {
        let predictor = self.predictor(registry)?;
        let features: Vec<_> = self
            .features
            .iter()
            .map(|(name, r#type)| serde_json::json!({"name": name, "type": r#type}))
            .collect();
        let json = serde_json::json!({
            "format": "dml-model",
            "version": VERSION,
            "task": self.task,
            "target": self.target,
            "classes": self.classes,
            "kind": self.kind,
            "params": self.params,
            "seed": self.seed,
            "rows": self.rows,
            "features": features,
            "pipeline": self.pipeline,
            "encoded": self.pipeline.names(),
            "importance": predictor.importance(),
            "model": predictor.loaded.json()?,
        });
        Ok(format!("{json:#}\n"))
    }

    /// The columns that a table to be predicted must have, and their types: as in the training table, but that any
    /// number will do where whole numbers were learned from.
    pub fn inputs(&self) -> Vec<(String, ColumnType)> {
        let wanted = |r#type| if r#type == ColumnType::Integer { ColumnType::Float } else { r#type };
        self.features.iter().map(|(name, r#type)| (name.clone(), wanted(*r#type))).collect()
    }

    /// The model made ready to predict.
    pub fn predictor<'a>(&'a self, registry: &'a Registry) -> Result<Predictor<'a>, WorkError> {
        let learner = registry.get(&self.kind).map_err(|error| WorkError::Input(error.to_string()))?;
        Ok(Predictor { model: self, inputs: self.inputs(), loaded: learner.load(&self.learner)? })
    }

    /// Predicts every row of a table: see [`Predictor::predict`].
    pub fn predict(&self, registry: &Registry, batch: &RecordBatch) -> Result<RecordBatch, PredictError> {
        self.predictor(registry)?.predict(batch)
    }

    /// The columns of its predictions: `prediction` (a number, or a class in text), then for a classifier
    /// `probability_<class>` for each class.
    pub fn output(&self, scores: &Scores) -> RecordBatch {
        let (prediction, probabilities): (ArrayRef, _) = match scores {
            Scores::Values(values) => {
                (Arc::new(Float64Array::from_iter_values(values.iter().copied())), None)
            }
            Scores::Probabilities(p) => {
                let labels =
                    p.rows().into_iter().map(|row| self.classes.get(likeliest(row)).map(String::as_str));
                (Arc::new(labels.collect::<StringArray>()), Some(p))
            }
        };
        let mut fields = vec![Field::new("prediction", prediction.data_type().clone(), true)];
        let mut arrays = vec![prediction];
        for (class, p) in self.classes.iter().zip(probabilities.iter().flat_map(|p| p.columns())) {
            fields.push(Field::new(format!("probability_{class}"), DataType::Float64, true));
            arrays.push(Arc::new(Float64Array::from_iter_values(p.iter().copied())));
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("every column has a value a row")
    }
}

/// The first of the greatest.
pub(crate) fn likeliest(probabilities: ArrayView1<f64>) -> usize {
    let mut best = 0;
    for (class, p) in probabilities.iter().enumerate() {
        if *p > probabilities[best] {
            best = class;
        }
    }
    best
}

/// A model that is ready to predict.
pub struct Predictor<'a> {
    model: &'a Model,
    inputs: Vec<(String, ColumnType)>,
    loaded: Box<dyn AnyModel>,
}

impl Predictor<'_> {
    /// Predicts every row: [`Model::output`] says what comes back. Columns are found by name and read as
    /// [`Model::inputs`] says; others may stand beside them, in any order. Blanks and unseen categories are no errors: see
    /// [`crate::pipeline`].
    pub fn predict(&self, batch: &RecordBatch) -> Result<RecordBatch, PredictError> {
        Ok(self.model.output(&self.scores(batch)?))
    }

    /// What the model says of every row.
    pub fn scores(&self, batch: &RecordBatch) -> Result<Scores, PredictError> {
        let pipeline = &self.model.pipeline;
        let cast;
        let batch = if pipeline.fits(batch) {
            batch
        } else {
            cast = table::cast(batch, &self.inputs)?;
            &cast
        };
        let rows = batch.num_rows();
        if rows <= ROWS {
            return Ok(self.scores_of(&pipeline.encode(batch)?)?);
        }
        let blocks = (0..rows.div_ceil(ROWS)).into_par_iter().map(|block| {
            let first = block * ROWS;
            self.scores_of(&pipeline.encode(&batch.slice(first, ROWS.min(rows - first)))?)
        });
        let parts = blocks.collect::<Result<Vec<_>, _>>()?;
        Ok(join(self.model.task, self.model.classes.len(), parts))
    }

    /// What the model says of encoded rows.
    pub(crate) fn scores_of(&self, x: &Array2<f64>) -> Result<Scores, WorkError> {
        let scores = self.loaded.predict(x);
        let fits = match &scores {
            Scores::Values(values) => self.model.classes.is_empty() && values.len() == x.nrows(),
            Scores::Probabilities(p) => p.dim() == (x.nrows(), self.model.classes.len()),
        };
        let (kind, task) = (&self.model.kind, self.model.task);
        let why = || format!("the scores of {kind} do not fit its rows and its task ({task:?})");
        if fits { Ok(scores) } else { Err(WorkError::Corrupt { what: "a model", why: why() }) }
    }

    /// What the model would say of encoded rows had it been stopped earlier, for each number of steps looked at.
    pub(crate) fn staged(&self, x: &Array2<f64>, each: &mut dyn FnMut(u32, Scores)) {
        self.loaded.staged(x, each);
    }

    /// The share of each feature in the model's predictions, summing to 1; none if the kind cannot tell. A feature that
    /// contributes nothing has 0.
    pub fn importance(&self) -> Option<BTreeMap<String, f64>> {
        let encoded = self.loaded.importance()?;
        let features = &self.model.features;
        let mut sums = vec![0.0; features.len()];
        for (i, value) in encoded.iter().enumerate() {
            if let Some(sum) = sums.get_mut(self.model.pipeline.source(i)).filter(|_| value.is_finite()) {
                *sum += value;
            }
        }
        let total: f64 = sums.iter().sum();
        let scale = if total > 0.0 { total } else { 1.0 };
        Some(features.iter().zip(sums).map(|((name, _), sum)| (name.clone(), sum / scale)).collect())
    }
}

/// The scores of several batches as if they were one.
pub(crate) fn join(task: Task, classes: usize, parts: Vec<Scores>) -> Scores {
    let mut flat = Vec::new();
    for part in parts {
        match part {
            Scores::Values(values) => flat.extend(values),
            Scores::Probabilities(p) => flat.extend(p),
        }
    }
    match task {
        Task::Regression => Scores::Values(Array1::from_vec(flat)),
        Task::Classification => {
            let rows = flat.len() / classes.max(1);
            let p = Array2::from_shape_vec((rows, classes), flat);
            Scores::Probabilities(p.expect("every row has a probability a class"))
        }
    }
}

/// Parameters as JSON text: their values tell their types by themselves, which the binary encoding cannot.
mod as_json {
    use dml_core::Params;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _, ser::Error as _};

    pub(super) fn serialize<S: Serializer>(params: &Params, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&serde_json::to_string(params).map_err(S::Error::custom)?)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Params, D::Error> {
        serde_json::from_str(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
