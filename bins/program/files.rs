//! How many files and connections a process may have open. What systems grant at first is often 1,024, fewer than the
//! connections that a server takes; a process may help itself to more, up to what its administrator has set.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Takes what may be had.
pub(crate) fn open_as_many_as_may_be() {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    if raised != limit && setrlimit(Resource::Nofile, raised).is_err() {
        tracing::debug!(?limit, "the limit on open files cannot be raised");
    }
}
