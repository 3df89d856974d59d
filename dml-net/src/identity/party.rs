//! Whom a certificate makes its holder.

use std::{fmt, str::FromStr};

use dml_core::NodeId;

use super::IdentityError;

/// Whom a certificate makes its holder. Each has a name of its own, by which its certificate can be revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// The db node of this name.
    Db(NodeId),
    /// A worker.
    Worker(Name),
    /// Somebody who may do everything that users can.
    Admin(Name),
}

/// What tells a worker or an administrator from others: a random number of 48 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name(u64);

impl Name {
    fn random() -> Self {
        Self(crate::db::random() & ((1 << 48) - 1))
    }
}

impl Party {
    /// A worker that is new.
    pub fn worker() -> Self {
        Self::Worker(Name::random())
    }

    /// An administrator who is new.
    pub fn admin() -> Self {
        Self::Admin(Name::random())
    }

    /// A db node that is new.
    pub fn db() -> Self {
        Self::Db(NodeId::new(crate::db::random()))
    }

    /// What it is called: the db node or the worker as `dml cluster` shows it.
    pub fn name(&self) -> String {
        match self {
            Self::Db(id) => id.to_string(),
            Self::Worker(Name(number)) => format!("worker-{number:012x}"),
            Self::Admin(Name(number)) => format!("admin-{number:012x}"),
        }
    }

    /// Who is called so.
    pub fn named(name: &str) -> Result<Self, IdentityError> {
        let number = |prefix| {
            let digits = name.strip_prefix(prefix).filter(|digits| digits.len() == 12)?;
            let plain = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
            u64::from_str_radix(digits, 16).ok().filter(|_| plain).map(Name)
        };
        let db = || name.parse().ok().map(Self::Db);
        let other = || number("worker-").map(Self::Worker).or_else(|| number("admin-").map(Self::Admin));
        db().or_else(other).ok_or(IdentityError::Nobody)
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self {
            Self::Db(_) => "db",
            Self::Worker(_) => "worker",
            Self::Admin(_) => "admin",
        };
        write!(f, "dml:{role}/{}", self.name())
    }
}

impl FromStr for Party {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let party = text.rsplit('/').next().map_or(Err(IdentityError::Nobody), Self::named)?;
        if party.to_string() == text { Ok(party) } else { Err(IdentityError::Nobody) }
    }
}
