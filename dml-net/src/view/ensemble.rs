//! Ensembles as users see them.

use dml_compute::metrics::Report;
use dml_core::{Digest, Method, Task};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::NewModel;

/// How the models of a training predict together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEnsemble {
    /// How members are brought together.
    pub method: Method,
    /// With fewer members than these it does not predict; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub min_members: Option<u32>,
}

/// An ensemble to be fitted. Everything may be left out: then the prices of the houses that come with DML are learned.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewFit {
    /// The dataset's id or name; by default the table of houses that comes with DML.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dataset: Option<String>,
    /// The column to predict; it may be left out with the dataset alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
    /// Regression or classification; by default what the target's type suggests.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task: Option<Task>,
    /// The columns to predict from; by default all others.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub features: Option<Vec<String>>,
    /// How members are brought together; averaging by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub method: Option<Method>,
    /// The members; of a bagged ensemble the one model that each of them is.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub models: Vec<NewModel>,
    /// How many members there are when `models` does not say: 5 by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub members: Option<u32>,
    /// With fewer members than these it does not predict; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub min_members: Option<u32>,
    /// The part of the rows by which it is judged; a fifth by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub holdout: Option<f64>,
    /// The source of everything random; 0 by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seed: Option<u64>,
    /// What to call it; `ml-distributed` by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
}

/// An ensemble as it answered: which members were there, and how good exactly these are.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EnsembleView {
    /// The id of its training.
    pub training: Digest,
    /// The name by which it was asked.
    pub name: String,
    /// The dataset that it learned from.
    pub dataset: Digest,
    /// Regression or classification.
    pub task: Task,
    /// What it predicts.
    pub target: String,
    /// How members are brought together.
    pub method: Method,
    /// How many members this answer is from.
    pub members_used: usize,
    /// How many members there should be.
    pub members_total: usize,
    /// With fewer it does not answer.
    pub min_members: u32,
    /// The members that this answer is from.
    pub members: Vec<MemberView>,
    /// What failed.
    pub errors: Vec<MemberError>,
    /// How good these members are together on rows that none has learned from; none if that could not be measured.
    pub quality: Option<Report>,
}

/// A member of an ensemble.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemberView {
    /// Its name within the training.
    pub name: String,
    /// The model's id.
    pub model: Digest,
    /// How much it counts; the weights sum to 1.
    pub weight: f64,
}

/// A failure that an ensemble answered in spite of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemberError {
    /// The member that was left out; none if it is not about one.
    pub member: Option<String>,
    /// What failed.
    pub step: Step,
    /// Why.
    pub why: String,
}

/// A step of an ensemble's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The member was not fitted.
    Fit,
    /// The member's bytes could not be had.
    Load,
    /// The quality could not be measured.
    Evaluate,
    /// The member could not predict.
    Predict,
}

/// The predictions of an ensemble.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EnsemblePredictions {
    /// One object a row: `prediction`, and for classifiers `probability_CLASS` for each class (of a vote, its share).
    pub predictions: Vec<Map<String, Json>>,
    /// Who made them.
    #[serde(flatten)]
    pub ensemble: EnsembleView,
}
