//! Studies as the API shows them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use dml_compute::search::Trial;
use dml_core::{Digest, Dimension, Params, Space, Strategy, Task, Value, training::State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NewValidation;

/// A study to be created: a search for the parameters with which a model is best.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewStudy {
    /// Regression or classification; by default what the target's type suggests.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task: Option<Task>,
    /// The dataset's id or name.
    pub dataset: String,
    /// The column to predict.
    pub target: String,
    /// What is tried; by default gradient boosting.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub models: Vec<NewSpace>,
    /// The columns to predict from; by default all others.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub features: Option<Vec<String>>,
    /// How the next trials are chosen; `tpe` by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub strategy: Option<Strategy>,
    /// How many trials there are: 50 by default, by `grid` all combinations. Never more than the space has points.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trials: Option<u32>,
    /// The metric that says which trial is best; by default accuracy or RMSE.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metric: Option<String>,
    /// How trials are judged; by default on a fifth of the rows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validation: Option<NewValidation>,
    /// By `tpe`: so many trials are chosen at once, and may be made at the same time; 4 by default. The fewer, the more
    /// each learns from those before it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub batch: Option<u32>,
    /// By `halving`: of so many trials one goes on; 4 by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reduction: Option<u32>,
    /// How many of the best models are trained to be kept; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub keep: Option<u32>,
    /// The source of everything random; 0 by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seed: Option<u64>,
    /// A greater one is served first; 0 by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub priority: Option<i32>,
    /// What to call it, and the training of the best; by default after the dataset and the target.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
}

impl NewStudy {
    /// A study of gradient boosting, to predict this column of this dataset (an id or a name) from all others.
    pub fn new(dataset: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            task: None,
            dataset: dataset.into(),
            target: target.into(),
            models: Vec::new(),
            features: None,
            strategy: None,
            trials: None,
            metric: None,
            validation: None,
            batch: None,
            reduction: None,
            keep: None,
            seed: None,
            priority: None,
            name: None,
        }
    }
}

/// A kind of model with what is tried of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSpace {
    /// One of `GET /v1/kinds`.
    pub kind: String,
    /// Parameters that stay as they are.
    #[serde(default)]
    pub params: Params,
    /// Parameters that are looked for, each with its values or its range; by default a set that suits the kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub space: BTreeMap<String, Sought>,
}

impl From<&Space> for NewSpace {
    fn from(space: &Space) -> Self {
        let range = |low, high, log| Sought::Range(Range { low, high, log });
        let sought = |dimension: &Dimension| match *dimension {
            Dimension::Values(ref values) => Sought::Values(values.clone()),
            Dimension::Uniform(low, high) => range(low, high, false),
            Dimension::Log(low, high) => range(low, high, true),
            Dimension::Int(low, high) => range(low as f64, high as f64, false),
            Dimension::LogInt(low, high) => range(low as f64, high as f64, true),
        };
        let dimensions = space.dimensions.iter();
        Self {
            kind: space.kind.clone(),
            params: space.fixed.clone(),
            space: dimensions.map(|(name, dimension)| (name.clone(), sought(dimension))).collect(),
        }
    }
}

impl NewSpace {
    /// Looks for a parameter, or keeps it as it is. False if it was named before.
    #[must_use]
    pub fn name(&mut self, param: &str, tried: Tried) -> bool {
        if self.params.0.contains_key(param) || self.space.contains_key(param) {
            return false;
        }
        match tried {
            Tried::Fixed(value) => drop(self.params.0.insert(param.into(), value)),
            Tried::Sought(sought) => drop(self.space.insert(param.into(), sought)),
        }
        true
    }
}

/// What people write of a parameter of a search: `A..B`, `log:A..B`, `A,B,C`, or one value that stays.
#[derive(Debug, Clone, PartialEq)]
pub enum Tried {
    /// It stays as it is.
    Fixed(Value),
    /// It is looked for.
    Sought(Sought),
}

impl FromStr for Tried {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (log, range) = text.strip_prefix("log:").map_or((false, text), |range| (true, range));
        if let Some((low, high)) = range.split_once("..") {
            let end =
                |text: &str| text.trim_matches([' ', '=']).parse::<f64>().ok().filter(|end| end.is_finite());
            let (Some(low), Some(high)) = (end(low), end(high)) else {
                return Err(format!("'{range}' is no range: write two numbers, such as 0.01..0.3"));
            };
            return Ok(Self::Sought(Sought::Range(Range { low, high, log })));
        }
        if log {
            return Err(format!("'{text}' is no range: write log:A..B, such as log:0.01..0.3"));
        }
        let each = text.split(',').map(str::trim).map(|value| match value {
            "" => Err("a value is missing: write A..B, log:A..B, A,B,C or one value".into()),
            value => Value::parse(value).ok_or_else(|| format!("{value} is not a finite number")),
        });
        let mut each = each.collect::<Result<Vec<_>, String>>()?;
        Ok(if each.len() == 1 { Self::Fixed(each.remove(0)) } else { Self::Sought(Sought::Values(each)) })
    }
}

/// The values among which a parameter is looked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Sought {
    /// One of these.
    Values(Vec<Value>),
    /// A number in a range; a whole number if the parameter is one.
    Range(Range),
}

impl fmt::Display for Sought {
    /// As [`Tried`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Values(values) => {
                let values: Vec<String> = values.iter().map(ToString::to_string).collect();
                f.write_str(&values.join(","))
            }
            Self::Range(Range { low, high, log }) => {
                write!(f, "{}{low}..{high}", if *log { "log:" } else { "" })
            }
        }
    }
}

/// A range of numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The least.
    pub low: f64,
    /// The greatest.
    pub high: f64,
    /// Whether each order of magnitude is as likely as any; then both are above 0.
    #[serde(default)]
    pub log: bool,
}

/// A study.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct StudyView {
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
    /// The columns to predict from.
    pub features: Vec<String>,
    /// The kinds that are tried.
    pub kinds: Vec<String>,
    /// What is tried of each.
    pub models: Vec<NewSpace>,
    /// How the next trials are chosen.
    pub strategy: Strategy,
    /// The metric that says which trial is best.
    pub metric: String,
    /// How trials are judged.
    pub validation: NewValidation,
    /// The source of everything random.
    pub seed: u64,
    /// A greater one is served first.
    pub priority: i32,
    /// When it was created: milliseconds since 1970.
    pub created_ms: u64,
    /// How many trials there are in all.
    pub trials: u32,
    /// By `tpe`: how many are chosen at once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub batch: Option<u32>,
    /// By `halving`: of how many one goes on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reduction: Option<u32>,
    /// How many of the best models are kept.
    pub keep: u32,
    /// How many have been made.
    pub done: u32,
    /// How many of those failed.
    pub failed: u32,
    /// Rounds of learning in all trials so far.
    pub rounds: u64,
    /// The best trials so far, best first; the final ones when the study has succeeded.
    pub leaders: Vec<Trial>,
    /// What part each parameter has in how the scores differ, from 0 to 1: of those that can be told.
    pub importance: BTreeMap<String, f64>,
    /// The training with the models that are kept: it begins when the study ends. None if all trials failed, or if it
    /// was removed.
    pub training: Option<Digest>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

impl StudyView {
    /// What was asked for when the study was created, of this dataset.
    pub fn asked(&self, dataset: impl Into<String>) -> NewStudy {
        NewStudy {
            task: Some(self.task),
            models: self.models.clone(),
            features: Some(self.features.clone()),
            strategy: Some(self.strategy),
            trials: Some(self.trials),
            metric: Some(self.metric.clone()),
            validation: Some(self.validation),
            batch: self.batch,
            reduction: self.reduction,
            keep: Some(self.keep),
            seed: Some(self.seed),
            priority: Some(self.priority),
            name: self.name.clone(),
            ..NewStudy::new(dataset, self.target.as_str())
        }
    }
}

/// All trials of a study.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TrialsView {
    /// The study's id.
    pub study: Digest,
    /// The metric that they are ranked by.
    pub metric: String,
    /// The trials so far, best first.
    pub items: Vec<Trial>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_lists_and_single_values() {
        let tried = |text: &str| text.parse::<Tried>().unwrap();
        let range = |low, high, log| Tried::Sought(Sought::Range(Range { low, high, log }));
        assert_eq!(tried("0.1..0.5"), range(0.1, 0.5, false));
        assert_eq!(tried(" log:1e-3..1 "), range(1e-3, 1.0, true));
        assert_eq!(tried("-2..=3"), range(-2.0, 3.0, false));
        assert_eq!(tried("15"), Tried::Fixed(Value::Int(15)));
        let list = Tried::Sought(Sought::Values(vec![Value::Int(15), Value::Text("sqrt".into())]));
        assert_eq!(tried("15, sqrt"), list);
        for text in ["0.1..0.5", "log:0.001..1", "-2..3", "15,sqrt"] {
            let Tried::Sought(sought) = tried(text) else { panic!("{text} is looked for") };
            assert_eq!(sought.to_string(), text);
        }
        for (text, word) in [
            ("", "missing"),
            ("1,,2", "missing"),
            ("a..b", "'a..b'"),
            ("1..inf", "'1..inf'"),
            ("log:1", "log:A..B"),
            ("1,inf", "finite"),
        ] {
            let error = text.parse::<Tried>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_parameter_is_named_once() {
        let mut space = NewSpace::default();
        assert!(space.name("alpha", Tried::Fixed(Value::Int(1))));
        assert!(!space.name("alpha", Tried::Sought(Sought::Values(vec![Value::Int(1), Value::Int(2)]))));
        assert_eq!((space.params.0.len(), space.space.len()), (1, 0));
    }
}
