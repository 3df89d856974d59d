//! What the programs have in common: options ([`node`]), a file with settings ([`settings`]), logs ([`log`]), an address
//! to listen on and the end ([`listen`]).

pub mod listen;
pub mod log;
pub mod node;
pub mod settings;
