//! DML on the network: async begins here.
//!
//! - [`db::Db`]: a db node, the shell around [`dml_core::Node`].
//! - [`worker::Worker`]: serves the users' REST API ([`api`]) and computes units of work.
//! - [`peer::Peer`]: a node that one can send HTTP requests to: an axum `Router` in this process, or an address.
//! - [`client::Client`]: the users' API, typed; [`view`] has what it answers.
//! - `console`: the same in the browser, on every worker.
//! - [`cluster::Cluster`]: db nodes and workers in one process, wired Router to Router with no socket.
//! - [`membership`]: which db nodes are there. [`link`]: how a worker reaches them.
//! - [`logs`]: the last lines of the log, for whoever looks from outside.
//! - [`identity`]: who is who, over TLS. `metrics`, `trace`: what nodes tell those who watch them.
//! - [`serve`]: the accept loop. [`discover`]: where nodes are, with [`addresses`], its cache.

pub mod addresses;
pub mod api;
pub mod client;
pub mod cluster;
mod console;
pub mod db;
pub mod discover;
pub mod handshake;
pub mod identity;
pub mod link;
pub mod logs;
pub mod membership;
mod metrics;
pub mod peer;
pub mod problem;
pub mod serve;
mod trace;
pub mod view;
pub mod words;
pub mod worker;

pub use client::{Client, ClientError};
pub use cluster::Cluster;
pub use db::Db;
pub use peer::Peer;
pub use problem::Problem;
pub use worker::Worker;
