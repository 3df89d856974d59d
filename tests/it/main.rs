//! The whole system, on real tables: in process, and over sockets.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test may panic")]

mod bad_input;
mod common;
mod console;
mod corpus;
mod docs;
mod ensembles;
mod formats;
mod hostile;
mod openapi;
mod replicas;
mod rest;
mod same_bytes;
mod studies;
mod whole;
