//! What the users' REST API takes and answers. The server and the client share these types.

mod ensemble;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use dml_compute::metrics::{Curves, Permutation, Report};
use dml_core::{
    Column, Digest, Params, Scope, Task, Validation,
    lease::Piece,
    node::{Holder, LeaseSeen, WorkerSeen},
    routing::Held,
    swim::Health,
    training::State,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::identity::Secret;
pub use ensemble::{EnsemblePredictions, EnsembleView, MemberError, MemberView, NewEnsemble, NewFit, Step};

mod study;

pub use study::{NewSpace, NewStudy, Range, Sought, StudyView, TrialsView, Tried};

/// A page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// The things, newest first.
    pub items: Vec<T>,
    /// Goes into `?cursor=` for the next page; absent on the last.
    pub next_cursor: Option<String>,
}

/// A dataset.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DatasetView {
    /// The digest of its content.
    pub id: Digest,
    /// The name given last.
    pub name: Option<String>,
    /// How many rows.
    pub rows: u64,
    /// The size of the stored table.
    pub bytes: u64,
    /// Name, type, blanks and statistics of each column.
    pub columns: Vec<Column>,
    /// When it was uploaded: milliseconds since 1970.
    pub created_ms: u64,
    /// How many nodes keep it; known to the answer to an upload.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replicas: Option<u32>,
}

/// Some rows of a dataset.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RowsView {
    /// One object a row, one key a column.
    pub rows: Vec<serde_json::Map<String, Json>>,
    /// The first of them.
    pub offset: u64,
    /// How many rows the dataset has.
    pub total: u64,
}

/// A training to be created.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTraining {
    /// Regression or classification; by default what the target's type suggests.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task: Option<Task>,
    /// The dataset's id or name.
    pub dataset: String,
    /// The column to predict.
    pub target: String,
    /// The models to train; by default every kind that suits the task by default.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub models: Vec<NewModel>,
    /// The columns to predict from; by default all others.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub features: Option<Vec<String>>,
    /// How the models are judged; by default on a fifth of the rows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validation: Option<NewValidation>,
    /// The source of everything random; 0 by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seed: Option<u64>,
    /// A greater one is served first; 0 by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub priority: Option<i32>,
    /// What to call it; by default after the dataset and the target.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// Whether the models predict together, and how.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensemble: Option<NewEnsemble>,
}

impl NewTraining {
    /// Every default kind, to predict this column of this dataset (an id or a name) from all others.
    pub fn new(dataset: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            task: None,
            dataset: dataset.into(),
            target: target.into(),
            models: Vec::new(),
            features: None,
            validation: None,
            seed: None,
            priority: None,
            name: None,
            ensemble: None,
        }
    }
}

/// A model to be trained.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewModel {
    /// One of `GET /v1/kinds`.
    pub kind: String,
    /// Those parameters that are not to have their defaults.
    #[serde(default)]
    pub params: Params,
}

/// How models are judged: one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NewValidation {
    /// By this part of the rows, kept from training.
    Holdout(f64),
    /// By each of so many parts of the rows in turn.
    Folds(u32),
}

impl From<Validation> for NewValidation {
    fn from(validation: Validation) -> Self {
        match validation {
            Validation::Holdout(fraction) => Self::Holdout(fraction),
            Validation::Folds(folds) => Self::Folds(folds),
        }
    }
}

/// A training.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TrainingView {
    /// The digest of what was asked for.
    pub id: Digest,
    /// The name given last.
    pub name: Option<String>,
    /// Queued, running, succeeded, failed or cancelled.
    pub state: State,
    /// How much is done, from 0 to 1.
    pub progress: f64,
    /// Regression or classification.
    pub task: Task,
    /// The dataset's id.
    pub dataset: Digest,
    /// The column to predict.
    pub target: String,
    /// The columns to predict it from.
    pub features: Vec<String>,
    /// How the models are judged.
    pub validation: NewValidation,
    /// The source of everything random.
    pub seed: u64,
    /// A greater one is served first.
    pub priority: i32,
    /// When it was created: milliseconds since 1970.
    pub created_ms: u64,
    /// The id of the best finished model.
    pub best: Option<Digest>,
    /// Its models, best first, those without metrics last.
    pub models: Vec<TrainedView>,
    /// Whether they predict together, and how.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensemble: Option<NewEnsemble>,
}

/// A model of a training.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TrainedView {
    /// Its id, known before it is trained.
    pub id: Digest,
    /// What it is called within its training: its kind, numbered if there are several.
    pub name: String,
    /// Its place among the models that were asked for, from 0.
    #[serde(default)]
    pub place: usize,
    /// Its kind.
    pub kind: String,
    /// Its parameters, complete.
    pub params: Params,
    /// Queued, running, succeeded, failed or cancelled.
    pub state: State,
    /// How much is done, from 0 to 1.
    pub progress: f64,
    /// The round that the fit is in.
    pub round: u32,
    /// How many rounds the fit has at most.
    pub rounds: u32,
    /// The units done in this round.
    pub units_done: u32,
    /// The units of a round.
    pub units: u32,
    /// How good it is on rows that it has not seen.
    #[schemars(with = "Option<Report>")]
    pub metrics: Option<Json>,
    /// The digest of the model's bytes.
    pub digest: Option<Digest>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// The metrics of a model, if it has been judged.
pub fn report(metrics: Option<&Json>) -> Option<Report> {
    serde_json::from_value(metrics?.clone()).ok()
}

/// A model that can predict.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ModelView {
    /// Its id.
    pub id: Digest,
    /// `training/kind`.
    pub name: String,
    /// The training's id.
    pub training: Digest,
    /// The dataset that it learned from.
    pub dataset: Digest,
    /// Regression or classification.
    pub task: Task,
    /// What it predicts.
    pub target: String,
    /// Its kind.
    pub kind: String,
    /// Its parameters, complete.
    pub params: Params,
    /// How good it is on rows that it has not seen.
    #[schemars(with = "Option<Report>")]
    pub metrics: Option<Json>,
    /// The part that each column has in its predictions; they sum to 1.
    pub importance: Option<BTreeMap<String, f64>>,
    /// How much worse it predicts rows that it has not seen when the values of a column are dealt out anew among them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub permutation: Option<Permutation>,
    /// What pictures of it are drawn from; in the answer to a request for one model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub curves: Option<Curves>,
    /// The digest of its bytes.
    pub digest: Digest,
    /// When its training was created: milliseconds since 1970.
    pub created_ms: u64,
    /// The columns that it wants; in the answer to a request for one model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub features: Option<Vec<FeatureView>>,
    /// The classes that it tells apart, likewise.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub classes: Option<Vec<String>>,
}

/// A column that a model wants.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct FeatureView {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub r#type: dml_core::ColumnType,
}

/// A batch prediction to be created.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPrediction {
    /// The model's id or name, or that of a training: its best model.
    pub model: String,
    /// The dataset's id or name.
    pub dataset: String,
    /// What to call it; `prediction` by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
}

/// A batch prediction.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PredictionView {
    /// The digest of model and dataset.
    pub id: Digest,
    /// The name given last.
    pub name: Option<String>,
    /// Queued, running, succeeded or failed.
    pub state: State,
    /// How much is done, from 0 to 1.
    pub progress: f64,
    /// The digest of the model's bytes.
    pub model: Digest,
    /// The dataset's id.
    pub dataset: Digest,
    /// The units done.
    pub units_done: u32,
    /// The units in all.
    pub units: u32,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// When it was created: milliseconds since 1970.
    pub created_ms: u64,
}

/// A token that is to be.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// For whom or what it is, for people.
    pub label: String,
    /// What its holder may do.
    pub scope: Scope,
    /// For how long, such as `30d`, `12h`, `90m` or `60s`; for good if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<String>,
}

/// A token.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TokenView {
    /// Follows from the digest of the secret; it gives nothing away.
    pub id: Digest,
    /// For whom or what it is.
    pub label: Option<String>,
    /// What its holder may do.
    pub scope: Scope,
    /// When it was created: milliseconds since 1970.
    pub created_ms: u64,
    /// From when on it is of no use: milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// The secret, when it is created and never again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub secret: Option<Secret>,
}

/// A certificate that is to be trusted no more.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRevocation {
    /// The name of its holder: a db node or worker as it is listed, or the administrator that `dml cluster init` named.
    pub node: String,
}

/// A certificate that is not trusted any more.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RevocationView {
    /// The name of its holder.
    pub node: String,
    /// When it was revoked: milliseconds since 1970.
    pub created_ms: u64,
}

/// A node of the cluster.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct NodeView {
    /// Its name, one of its own.
    pub id: String,
    /// What it does.
    pub role: Role,
    /// Where it answers; absent for a node of the same process.
    pub address: Option<String>,
    /// Whether it answered last time.
    pub active: bool,
    /// How it is: active, suspected, failed or left.
    pub state: String,
    /// How many pieces of work it can do at a time; 0 for a db node.
    pub slots: u32,
    /// How many it does.
    pub busy: u32,
    /// How many data it holds; 0 for a worker.
    pub data: u64,
    /// How long ago it was last heard of.
    pub age_ms: u64,
    /// How many of the data that a db node owns have fewer copies than they should and could have; absent if it did not
    /// say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub under_replicated: Option<u64>,
    /// How many results of work were reported to a db node since it started, and were news; absent likewise.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pieces: Option<u64>,
    /// How many were no news: work that was done twice, or told twice; absent likewise.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub repeated: Option<u64>,
    /// The disk of a db node; absent likewise.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disk: Option<DiskView>,
}

/// The disk of a db node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskView {
    /// How many bytes may still be written.
    pub free: u64,
    /// How many there are in all.
    pub total: u64,
    /// Whether so little is free that the node takes no uploads and no results.
    pub full: bool,
}

impl NodeView {
    /// A db node.
    pub fn db(id: &str, address: Option<SocketAddr>, health: Health, data: u64, age: Duration) -> Self {
        Self {
            id: id.into(),
            role: Role::Db,
            address: address.map(|address| address.to_string()),
            active: health.is_active(),
            state: state_name(health).into(),
            slots: 0,
            busy: 0,
            data,
            age_ms: age.as_millis() as u64,
            under_replicated: None,
            pieces: None,
            repeated: None,
            disk: None,
        }
    }

    /// A worker, as db nodes have heard of it.
    pub fn worker(seen: WorkerSeen) -> Self {
        let active = seen.age_ms < ACTIVE_MS;
        Self {
            id: seen.worker,
            role: Role::Worker,
            address: seen.address.map(|address| address.to_string()),
            active,
            state: if active { "active" } else { "failed" }.into(),
            slots: seen.capacity,
            busy: seen.leases,
            data: 0,
            age_ms: seen.age_ms,
            under_replicated: None,
            pieces: None,
            repeated: None,
            disk: None,
        }
    }
}

/// What people call the state of a db node.
pub(crate) fn state_name(health: Health) -> &'static str {
    match health {
        Health::Active => "active",
        Health::Suspected => "suspected",
        Health::Failed => "failed",
        Health::Left => "left",
    }
}

/// A worker claims at least every half minute; one that is full for long renews its leases more often.
const ACTIVE_MS: u64 = 45_000;

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Stores and coordinates.
    Db,
    /// Serves users and computes.
    Worker,
}

/// Where something is, who owns it, and who works on it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RoutingView {
    /// What was asked for.
    pub id: Digest,
    /// The dataset, training or prediction that it is part of, or itself: what is kept and moved as one.
    pub root: Digest,
    /// The node that hands out its work: of the active holders the one with the lowest address.
    pub owner: Option<String>,
    /// How many active nodes hold it.
    pub copies: u32,
    /// How many are to hold it.
    pub factor: u32,
    /// The nodes that hold it.
    pub holders: Vec<HolderView>,
    /// Who works on it.
    pub leases: Vec<LeaseView>,
}

/// A node that holds something.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct HolderView {
    /// Which.
    pub node: String,
    /// Where it answers.
    pub address: Option<String>,
    /// Whether it is there.
    pub active: bool,
    /// Whether it holds no more than the note that this was deleted.
    pub deleted: bool,
}

impl HolderView {
    pub(crate) fn new(holder: Holder) -> Self {
        Self {
            node: holder.node.to_string(),
            address: holder.address.map(|address| address.to_string()),
            active: holder.active,
            deleted: holder.held == Held::Dead,
        }
    }
}

/// A piece of work that a worker has.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LeaseView {
    /// The job.
    pub job: Digest,
    /// The round.
    pub round: u32,
    /// The unit; none for the end of the round.
    pub unit: Option<u32>,
    /// The worker.
    pub worker: String,
    /// How soon it is free again unless the worker says that it is still at it.
    pub left_ms: u64,
}

impl LeaseView {
    pub(crate) fn new(lease: LeaseSeen) -> Self {
        let unit = match lease.slot.piece {
            Piece::Unit(unit) => Some(unit),
            Piece::Fold => None,
        };
        let LeaseSeen { slot, worker, left_ms } = lease;
        Self { job: slot.job, round: slot.round, unit, worker, left_ms }
    }
}

/// Rows to be predicted at once.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RowsToPredict {
    /// One object a row, one key a column.
    pub rows: Vec<serde_json::Map<String, Json>>,
}

/// The answer to [`RowsToPredict`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PredictedRows {
    /// One object a row: `prediction`, and for classifiers `probability_CLASS` for each class.
    pub predictions: Vec<serde_json::Map<String, Json>>,
}
