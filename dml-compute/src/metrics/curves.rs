//! What pictures of a model are drawn from: see [`crate::plot`].

use serde::{Deserialize, Serialize};

use super::LearningCurve;

/// Of a classification its ROC curves, of a regression some predictions; of a model that is built up in steps its learning
/// curve.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Curves {
    /// For two classes the curve of the second; else that of each class against all others. None with more classes than
    /// the AUC is told for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roc: Vec<RocCurve>,
    /// True and predicted values of some test rows, drawn by their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub predicted: Vec<[f64; 2]>,
    /// The loss after some steps, for kinds that are built up in steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning: Option<LearningCurve>,
}

/// The receiver operating characteristic of a class, over the scores of all folds together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RocCurve {
    /// The class that counts as positive.
    pub class: String,
    /// The area under the whole curve.
    pub auc: f64,
    /// Rates of false and of true positives, both rising from 0 to 1: points of the curve, thinned.
    pub points: Vec<[f64; 2]>,
}
