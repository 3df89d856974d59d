//! What is told of a kind of model, and how the parameters that users write are checked against it.

use dml_core::{Params, Task, Value};
use serde::Serialize;

use crate::learner::Encoding;

/// A kind of model, as `GET /v1/kinds` shows it.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Kind {
    /// What users write: `random_forest`.
    pub name: &'static str,
    /// A sentence about it.
    pub about: &'static str,
    /// The tasks that it can do.
    pub tasks: Vec<Task>,
    /// Its parameters, in the order of interest.
    pub params: Vec<Param>,
    /// Whether it is trained when the user names no kinds.
    pub default: bool,
    /// Whether several workers can work on one fit.
    pub parallel: bool,
    /// Whether results are the same bits on every CPU.
    pub deterministic: bool,
    /// The formats that it can be downloaded in.
    pub exportable: Vec<&'static str>,
    /// What it sees of a table.
    #[serde(skip)]
    pub encoding: Encoding,
}

/// One parameter of a kind.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Param {
    /// Its name, as in scikit-learn where it has one.
    pub name: &'static str,
    /// A sentence about it.
    pub about: &'static str,
    /// What it may be.
    #[serde(flatten)]
    pub domain: Domain,
}

/// The values that a parameter may take.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Domain {
    /// A finite number between two others, both included.
    Float {
        /// Used when none is given.
        default: f64,
        /// The least.
        min: f64,
        /// The greatest.
        max: f64,
    },
    /// A whole number between two others, both included.
    Int {
        /// Used when none is given.
        default: i64,
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// A switch.
    Bool {
        /// Used when none is given.
        default: bool,
    },
    /// One word of a list.
    Choice {
        /// Used when none is given.
        default: &'static str,
        /// The words.
        choices: &'static [&'static str],
    },
}

/// Why parameters were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParamError {
    /// The kind has no such parameter.
    #[error("{kind} has no parameter '{name}'; it has {known}")]
    Unknown {
        /// The kind.
        kind: &'static str,
        /// What was written.
        name: String,
        /// What there is.
        known: String,
    },
    /// The value is of another type or out of range.
    #[error("{name} of {kind} is {wanted}, not {given}")]
    Value {
        /// The kind.
        kind: &'static str,
        /// The parameter.
        name: &'static str,
        /// What it may be.
        wanted: String,
        /// What was written.
        given: String,
    },
}

impl Param {
    /// How much the rows of each class count.
    pub fn class_weight() -> Self {
        Self {
            name: "class_weight",
            about: "none: every row counts the same; balanced: every class does, however many rows it has.",
            domain: Domain::Choice { default: "none", choices: &["none", "balanced"] },
        }
    }
}

impl Domain {
    fn default(&self) -> Value {
        match *self {
            Self::Float { default, .. } => Value::Float(default),
            Self::Int { default, .. } => Value::Int(default),
            Self::Bool { default } => Value::Bool(default),
            Self::Choice { default, .. } => Value::Text(default.into()),
        }
    }

    fn wanted(&self) -> String {
        match self {
            Self::Float { min, max, .. } => format!("a number from {min} to {max}"),
            Self::Int { min, max, .. } => format!("a whole number from {min} to {max}"),
            Self::Bool { .. } => "true or false".into(),
            Self::Choice { choices, .. } => format!("one of {}", choices.join(", ")),
        }
    }

    /// The value in this domain's own type, if it lies in the domain.
    fn accept(&self, value: &Value) -> Option<Value> {
        match (self, value) {
            (Self::Float { min, max, .. }, Value::Float(v)) => {
                (min..=max).contains(&v).then_some(Value::Float(*v))
            }
            (Self::Float { min, max, .. }, Value::Int(v)) => {
                let v = *v as f64;
                (*min..=*max).contains(&v).then_some(Value::Float(v))
            }
            (Self::Int { min, max, .. }, Value::Int(v)) => (min..=max).contains(&v).then_some(Value::Int(*v)),
            (Self::Bool { .. }, Value::Bool(v)) => Some(Value::Bool(*v)),
            (Self::Choice { choices, .. }, Value::Text(v)) => {
                choices.contains(&v.as_str()).then(|| value.clone())
            }
            _ => None,
        }
    }
}

impl Kind {
    /// The parameters with defaults filled in, each in its own type, so that equal parameters have equal digests.
    pub fn check(&self, given: &Params) -> Result<Params, ParamError> {
        if let Some(name) = given.0.keys().find(|name| self.params.iter().all(|param| param.name != **name)) {
            let known = match self.params.as_slice() {
                [] => "none".into(),
                params => params.iter().map(|param| param.name).collect::<Vec<_>>().join(", "),
            };
            return Err(ParamError::Unknown { kind: self.name, name: name.clone(), known });
        }
        let complete = self.params.iter().map(|param| {
            let value = match given.0.get(param.name) {
                None => param.domain.default(),
                Some(value) => param.domain.accept(value).ok_or_else(|| ParamError::Value {
                    kind: self.name,
                    name: param.name,
                    wanted: param.domain.wanted(),
                    given: value.to_string(),
                })?,
            };
            Ok((param.name.to_string(), value))
        });
        Ok(Params(complete.collect::<Result<_, _>>()?))
    }
}
