//! What a unit of DML's work does: tables in ([`table`]), preprocessing fitted by mergeable statistics ([`prepare`],
//! [`pipeline`]), learners ([`learner`], [`learners`]), models that carry their whole pipeline ([`model`]), and
//! [`metrics`]. [`Engine`] runs the units and folds of any [`dml_core::Job`].
//!
//! Same inputs, same bytes: no function here reads a clock, a random device or a hash map's order.

pub mod engine;
pub mod ensemble;
pub mod error;
pub mod kind;
pub mod learner;
pub mod learners;
pub mod metrics;
pub mod model;
pub mod onnx;
pub mod pipeline;
pub mod plot;
pub mod prepare;
pub mod registry;
pub mod search;
pub mod table;

pub use engine::{Engine, Inputs, MemoryInputs, Outcome};
pub use error::WorkError;
pub use kind::{Domain, Kind, Param, ParamError};
pub use learner::{Block, Encoding, Fit, Folded, Learner, Predict, Rows, Scores, Shape};
pub use model::Model;
pub use registry::Registry;
