//! The parameters of a model: names and values, sorted, so that equal parameters have equal digests.

use alloc::{collections::BTreeMap, string::String};
use core::fmt;

use serde::{Deserialize, Serialize};

/// The value of one parameter.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any finite number.
    Float(f64),
    /// A word, one of a list.
    Text(String),
}

impl Value {
    /// A value as what it looks like when it is written: a switch, a whole number, a number, else a word. None is a number
    /// that is not finite.
    pub fn parse(text: &str) -> Option<Self> {
        match (text.parse(), text.parse(), text.parse::<f64>()) {
            (Ok(switch), _, _) => Some(Self::Bool(switch)),
            (_, Ok(whole), _) => Some(Self::Int(whole)),
            (_, _, Ok(number)) => number.is_finite().then_some(Self::Float(number)),
            (_, _, Err(_)) => Some(Self::Text(text.into())),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(v) => v.fmt(f),
            Self::Int(v) => v.fmt(f),
            Self::Float(v) => v.fmt(f),
            Self::Text(v) => v.fmt(f),
        }
    }
}

/// Parameters by name. Those of a checked job are complete: defaults are filled in, each with its kind's type.
#[derive(Debug, Clone, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Params(pub BTreeMap<String, Value>);

impl Params {
    /// The number under `name`; NaN when there is none, which no checked job has.
    pub fn float(&self, name: &str) -> f64 {
        match self.0.get(name) {
            Some(Value::Float(v)) => *v,
            Some(Value::Int(v)) => *v as f64,
            Some(Value::Bool(_) | Value::Text(_)) | None => f64::NAN,
        }
    }

    /// The whole number under `name`; 0 when there is none, which no checked job has.
    pub fn int(&self, name: &str) -> i64 {
        match self.0.get(name) {
            Some(Value::Int(v)) => *v,
            Some(Value::Bool(_) | Value::Float(_) | Value::Text(_)) | None => 0,
        }
    }

    /// The switch under `name`; off when there is none.
    pub fn bool(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Value::Bool(true)))
    }

    /// The word under `name`; empty when there is none.
    pub fn text(&self, name: &str) -> &str {
        match self.0.get(name) {
            Some(Value::Text(v)) => v,
            Some(Value::Bool(_) | Value::Int(_) | Value::Float(_)) | None => "",
        }
    }
}
