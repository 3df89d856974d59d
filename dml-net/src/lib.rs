//! DML on the network: async begins here.
//!
//! - [`db::Db`]: a db node, the shell around [`dml_core::Node`].
//! - [`worker::Worker`]: serves the users' REST API ([`api`]) and computes units of work.
//! - [`peer::Peer`]: a node that one can send HTTP requests to: an axum `Router` in this process, or an address.
//! - [`client::Client`]: the users' API, typed; [`view`] has what it answers.
//! - [`cluster::Cluster`]: db nodes and workers in one process, wired Router to Router with no socket.
//! - [`membership`]: which db nodes are there. [`link`]: how a worker reaches them.
//! - [`serve`]: the accept loop. [`discover`]: where nodes are, with [`addresses`], its cache.

pub mod addresses;
pub mod api;
pub mod client;
pub mod cluster;
pub mod db;
pub mod discover;
pub mod handshake;
pub mod link;
pub mod membership;
pub mod peer;
pub mod problem;
pub mod serve;
pub mod view;
pub mod worker;

pub use client::{Client, ClientError};
pub use cluster::Cluster;
pub use db::Db;
pub use peer::Peer;
pub use problem::Problem;
pub use worker::Worker;
