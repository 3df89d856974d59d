//! Revocations: certificates that are not to be trusted any more, by the names of their holders. Who was revoked stays so.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::id::Digest;

/// Says that nobody trusts this holder of a certificate any more. Every db node keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Who, as its certificate says.
    pub holder: String,
}

impl Revocation {
    /// The id under which it is stored.
    pub fn id(&self) -> Digest {
        Digest::of(self.holder.as_bytes()).child("revocation")
    }
}
