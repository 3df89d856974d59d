//! What the programs have in common: options ([`node`]), who they are ([`identity`]), a file with settings ([`settings`]),
//! logs ([`log`]), an address to listen on and the end ([`listen`]), one at which others reach it ([`advertise`]), and
//! asking whether a node is alive ([`check`]).

pub mod advertise;
pub mod check;
#[cfg(unix)]
mod files;
pub mod identity;
pub mod listen;
pub mod log;
pub mod node;
pub mod settings;

/// The allocator of glibc keeps what each of many threads has freed: of a table of ten million rows that is gigabytes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
