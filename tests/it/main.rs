//! The whole system, on real tables: in process, and over sockets.

mod bad_input;
mod common;
mod same_bytes;
mod whole;
