//! Models as ONNX files, preprocessing inside: what other programs predict with, without DML. See [`Model::to_onnx`].
//!
//! ```text
//! a column an input ──> pipeline ──> the kind's own nodes ──> scores ──> outputs
//!                       pipeline.rs  Predict::onnx            shapes.rs
//!                                    shapes.rs, neighbors.rs, trees.rs
//! ```
//!
//! | input, `[N, 1]` | for a column of type | blank |
//! |---|---|---|
//! | double | integer, float; date (days since 1970-01-01); datetime (milliseconds since then); boolean (1 true, 0 false) | NaN |
//! | string | text | "" |
//!
//! Inputs are named as the columns are. Outputs: `prediction`, double `[N, 1]`, of a regression; `label`, string `[N]`,
//! and `probabilities`, double `[N, K]`, of a classification. An output whose name is that of a column has an underscore
//! behind it. Everything is computed in double precision. The same model gives the same bytes.
//!
//! Facts beside the graph (`metadata_props`): `dml.version`, `dml.model` (its id), `dml.digest` (of its native bytes),
//! `dml.kind`, `dml.params`, `dml.task`, `dml.target`, `dml.classes` in the order of `probabilities`, `dml.schema` (the
//! inputs and their columns' types), `dml.outputs`. All but the plain words are JSON.
//!
//! Leaves out single precision, and versions of `ai.onnx.ml` below 5: onnxruntime reads it since its version 1.21.

mod graph;
mod neighbors;
mod pipeline;
mod proto;
mod shapes;
mod trees;

#[cfg(test)]
mod tests;

use dml_core::{Digest, Task};
use serde_json::json;

use crate::{error::WorkError, model::Model, registry::Registry};
pub use graph::{Attribute, Graph, Type, Value};

/// The greatest file that protocol buffers allow.
const MAX_BYTES: usize = i32::MAX as usize;

/// Why there is no ONNX file of a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// Models of the kind have none.
    #[error("a model of the kind {kind} cannot be taken away as ONNX; kinds that can are {known}")]
    Kind {
        /// The kind.
        kind: String,
        /// What can.
        known: String,
    },
    /// The model is too large.
    #[error(
        "as ONNX the model would have {0} bytes, and the format allows 2 GiB: take the native format, or train fewer or \
         smaller trees"
    )]
    Size(usize),
    /// The model itself is at fault.
    #[error(transparent)]
    Model(#[from] WorkError),
}

impl Model {
    /// The model as an ONNX file: see [`crate::onnx`]. `id` is the name that the file shall know it by.
    pub fn to_onnx(&self, registry: &Registry, id: &str) -> Result<Vec<u8>, OnnxError> {
        let bytes = self.to_onnx_of(registry, id, env!("CARGO_PKG_VERSION"))?;
        if bytes.len() > MAX_BYTES { Err(OnnxError::Size(bytes.len())) } else { Ok(bytes) }
    }

    fn to_onnx_of(&self, registry: &Registry, id: &str, version: &str) -> Result<Vec<u8>, OnnxError> {
        let learner = registry.get(&self.kind).map_err(|error| WorkError::Input(error.to_string()))?;
        let loaded = learner.load(&self.learner)?;
        let mut graph = Graph::default();
        let x = pipeline::encode(&mut graph, &self.features, &self.pipeline);
        let Some(scores) = loaded.onnx(&mut graph, x) else {
            let kinds = registry.kinds();
            let known = kinds.iter().filter(|kind| kind.exportable.contains(&"onnx")).map(|kind| kind.name);
            let known = known.collect::<Vec<_>>().join(", ");
            return Err(OnnxError::Kind { kind: self.kind.clone(), known });
        };
        let outputs = self.outputs(&mut graph, scores);
        Ok(graph.into_bytes(version, &self.facts(id, version, &outputs)))
    }

    fn outputs(&self, graph: &mut Graph, scores: Value) -> Vec<String> {
        match self.task {
            Task::Regression => vec![graph.output("prediction", scores, Type::Double, &[None, Some(1)])],
            Task::Classification => {
                use Attribute::Int;
                let best = graph.node("ArgMax", &[scores], &[("axis", Int(1)), ("keepdims", Int(0))]);
                let classes = graph.texts(&self.classes);
                let label = graph.node("Gather", &[classes, best], &[("axis", Int(0))]);
                let shape = [None, Some(self.classes.len())];
                vec![
                    graph.output("label", label, Type::Text, &[None]),
                    graph.output("probabilities", scores, Type::Double, &shape),
                ]
            }
        }
    }

    fn facts(&self, id: &str, version: &str, outputs: &[String]) -> Vec<(&'static str, String)> {
        let column = |(name, r#type): &(String, _)| {
            let (input, blank) = match pipeline::input_type(*r#type) {
                Type::Text => ("string", ""),
                Type::Byte | Type::Integer | Type::Double => ("double", "NaN"),
            };
            json!({"blank": blank, "input": input, "name": name, "type": r#type})
        };
        let schema: Vec<_> = self.features.iter().map(column).collect();
        let task = match self.task {
            Task::Regression => "regression",
            Task::Classification => "classification",
        };
        vec![
            ("dml.version", version.into()),
            ("dml.model", id.into()),
            ("dml.digest", Digest::of(&self.to_bytes()).to_string()),
            ("dml.kind", self.kind.clone()),
            ("dml.params", json!(self.params).to_string()),
            ("dml.task", task.into()),
            ("dml.target", self.target.clone()),
            ("dml.classes", json!(self.classes).to_string()),
            ("dml.schema", json!(schema).to_string()),
            ("dml.outputs", json!(outputs).to_string()),
        ]
    }
}
