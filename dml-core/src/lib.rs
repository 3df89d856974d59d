//! The brain of DML, pure: no clock, socket, file, thread or dice.
//!
//! What the cluster shares is a value that merges ([`record`]); what it computes is a pure function of
//! content-hashed inputs ([`job`]). A db node's whole behaviour is one value, [`node::Node`]: events and the time go
//! in, effects come out. It is `no_std`, so that purity is checked by the compiler.
#![no_std]

extern crate alloc;

pub mod consistency;
pub mod dataset;
mod dice;
pub mod ensemble;
pub mod id;
pub mod job;
pub mod lease;
pub mod member;
pub mod merge;
pub mod node;
pub mod param;
pub mod parent;
pub mod planted;
pub mod record;
pub mod replication;
pub mod revocation;
pub mod rng;
pub mod routing;
pub mod schedule;
pub mod sim;
pub mod split;
pub mod study;
pub mod swim;
pub mod token;
pub mod training;

pub use dataset::{Chunk, Column, ColumnType, Dataset, Summary};
pub use ensemble::{Bag, EnsembleSpec, Method};
pub use id::Digest;
pub use job::{Job, JobSpec, Plan, Progress, Task, Work};
pub use member::{Member, NodeId};
pub use merge::Merge;
pub use node::Node;
pub use param::{Params, Value};
pub use parent::Parent;
pub use record::{Body, Kind, Record};
pub use revocation::Revocation;
pub use split::Split;
pub use study::{Dimension, Space, Strategy, Study, StudySpec};
pub use token::{Scope, Token};
pub use training::{ModelSpec, Training, TrainingSpec, Validation};
