//! Tokens: secrets by which a cluster knows its users. What it keeps is the digest of a secret, from which nobody gets
//! the secret back, as secrets are random and long.

use serde::{Deserialize, Serialize};

use crate::id::Digest;

/// What the holder of a token may do. The first two are good once, for a certificate; of the others each includes what
/// comes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Become a worker.
    Worker,
    /// Become a db node.
    Db,
    /// Look at everything, and predict.
    Read,
    /// Create and delete tables, trainings and predictions.
    Write,
    /// Say who may do what.
    Admin,
}

impl Scope {
    /// Whether it is good once, for the certificate of a node.
    pub fn is_to_join(self) -> bool {
        self < Self::Read
    }

    /// The word for it in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Db => "db",
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// A token, as it is stored. It exists until it is deleted, and never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The digest of the secret.
    pub secret: Digest,
    /// What its holder may do.
    pub scope: Scope,
    /// From when on it is of no use (milliseconds since 1970), if ever.
    pub expires_ms: Option<u64>,
}

impl Token {
    /// A token with this secret.
    pub fn new(secret: &str, scope: Scope, expires_ms: Option<u64>) -> Self {
        Self { secret: Digest::of(secret.as_bytes()), scope, expires_ms }
    }

    /// The id under which the token with this secret is stored. It may be shown to everybody.
    pub fn id_of(secret: &str) -> Digest {
        id(Digest::of(secret.as_bytes()))
    }

    /// The id under which it is stored.
    pub fn id(&self) -> Digest {
        id(self.secret)
    }

    /// Whether it is of use at this time to somebody who has this secret. How long the comparison takes says nothing of
    /// the secret.
    pub fn admits(&self, secret: &str, now_ms: u64) -> bool {
        blake3::Hash::from_bytes(*self.secret.as_bytes()) == blake3::hash(secret.as_bytes())
            && self.expires_ms.is_none_or(|end| now_ms < end)
    }
}

fn id(secret: Digest) -> Digest {
    secret.child("token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_admits_who_has_its_secret_until_it_expires() {
        let token = Token::new("a secret", Scope::Read, Some(100));
        assert!(token.admits("a secret", 99));
        assert!(!token.admits("a secret", 100));
        assert!(!token.admits("another", 0));
        assert!(Token { expires_ms: None, ..token.clone() }.admits("a secret", u64::MAX));
        assert_eq!(Token::id_of("a secret"), token.id());
        assert_ne!(token.id(), token.secret, "the id is shown, and gives nothing away");
        assert!(Scope::Read < Scope::Write && Scope::Write < Scope::Admin);
    }
}
