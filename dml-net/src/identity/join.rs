//! Joining a cluster with a token that is good once. The machine that joins makes its own key, which never leaves it; a db
//! node that has the cluster's key makes the certificate.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use axum::body::Body;
use dml_core::Scope;
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, header};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};

use super::{Identity, IdentityError, Secret, Trust};
use crate::{
    handshake::ClusterId,
    peer::{self, PeerError},
    problem::Problem,
    view::Role,
};

/// Where a db node takes tokens.
pub(crate) const PATH: &str = "/v1/join";

/// What a machine needs to know to join a cluster: which one, as what, and the secret of a token. The digest of the
/// cluster's certificate is in it, so that the machine shows the secret to nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The cluster.
    pub cluster: ClusterId,
    /// What the machine is to be.
    pub role: Role,
    /// The secret of the token.
    pub secret: Secret,
}

/// By this tokens to join are known.
const PREFIX: &str = "dmljoin_";

impl JoinToken {
    /// The token as it is handed on.
    pub fn reveal(&self) -> String {
        let secret = self.secret.reveal().trim_start_matches("dml_");
        format!("{PREFIX}{}_{}_{secret}", scope(self.role).name(), self.cluster)
    }
}

/// What a token is for, that makes nodes of this role.
pub fn scope(role: Role) -> Scope {
    match role {
        Role::Db => Scope::Db,
        Role::Worker => Scope::Worker,
    }
}

/// The text is no token to join; what it is stays untold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no token to join a cluster with, as `dml cluster token` prints it")]
pub struct NotAJoinToken;

impl FromStr for JoinToken {
    type Err = NotAJoinToken;

    fn from_str(text: &str) -> Result<Self, NotAJoinToken> {
        let read = || {
            let mut parts = text.trim().strip_prefix(PREFIX)?.split('_');
            let role = match parts.next()? {
                "worker" => Role::Worker,
                "db" => Role::Db,
                _ => return None,
            };
            let cluster = parts.next()?.parse().ok()?;
            let secret = format!("dml_{}", parts.next()?).parse().ok()?;
            parts.next().is_none().then_some(Self { cluster, role, secret })
        };
        read().ok_or(NotAJoinToken)
    }
}

/// What the machine asks for.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Joining {
    /// The secret of the token.
    pub(crate) secret: Secret,
    /// What it is to be.
    pub(crate) role: Role,
    /// Its public key: a point of the curve P-256, uncompressed, in hexadecimal digits.
    pub(crate) key: String,
    /// Where it is reached by programs that compare addresses with the certificate.
    pub(crate) addresses: Vec<IpAddr>,
}

/// What it is given.
#[derive(Serialize, Deserialize)]
pub(crate) struct Joined {
    /// Its certificate and that of the cluster, in PEM.
    pub(crate) certificates: String,
}

/// Why a machine has not joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The address is none.
    #[error("'{0}' is not the address of a db node: write HOST:PORT")]
    Address(String),
    /// Nobody is there, or somebody else.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The node refuses.
    #[error("{0}")]
    Refused(#[from] Problem),
    /// The answer is not a certificate of the cluster.
    #[error("the answer is no certificate of this cluster for this key: is it a node of another version?")]
    Garbled,
    /// No key can be made, or the certificate is of no use.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// The largest answer, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// Asks the db node at an address, which has to have the cluster's key, for a certificate. The token is used up by that.
pub async fn join(token: &JoinToken, at: &str, addresses: &[IpAddr]) -> Result<Identity, JoinError> {
    let bad = || JoinError::Address(at.into());
    let plain = at.trim_start_matches("https://");
    let there: SocketAddr =
        tokio::net::lookup_host(plain).await.ok().and_then(|mut found| found.next()).ok_or_else(bad)?;
    let key = KeyPair::generate().map_err(IdentityError::from)?;
    let digits = key.public_key_raw().iter().map(|byte| format!("{byte:02x}")).collect();
    let (secret, role) = (token.secret.clone(), token.role);
    let joining = Joining { secret, role, key: digits, addresses: addresses.to_vec() };
    let body = serde_json::to_vec(&joining).expect("plain fields");
    let trust = Trust::pinned(token.cluster)?;
    let request = Request::builder().method(Method::POST).uri(PATH);
    let request = request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body));
    let peer = peer::https(&trust, Role::Db).of(token.cluster).peer(there);
    let answer = peer.call(request.expect("a plain path")).await?;
    let status = answer.status();
    let bytes = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let bytes = bytes.map_err(|_| JoinError::Garbled)?.to_bytes();
    if !status.is_success() {
        return Err(serde_json::from_slice::<Problem>(&bytes).map_or(JoinError::Garbled, JoinError::Refused));
    }
    let joined: Joined = serde_json::from_slice(&bytes).map_err(|_| JoinError::Garbled)?;
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(joined.certificates.as_bytes()).collect();
    let [own, ca] = certificates.ok().and_then(|both| both.try_into().ok()).ok_or(JoinError::Garbled)?;
    let own = Identity::new(own, ca, PrivatePkcs8KeyDer::from(key.serialize_der()))?;
    // That the certificate fits the key is found out when TLS is set up with both.
    own.accept()?;
    if own.cluster() == token.cluster { Ok(own) } else { Err(JoinError::Garbled) }
}

/// The public key in a request.
pub(crate) fn public_key(digits: &str) -> Option<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
    bytes.filter(|bytes| digits.len() == 130 && bytes.first() == Some(&4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_to_join_are_read_as_they_are_written() {
        for role in [Role::Db, Role::Worker] {
            let secret = Secret::random().expect("the system has randomness");
            let token = JoinToken { cluster: ClusterId::named("ours"), role, secret };
            let text = token.reveal();
            assert_eq!(text.parse(), Ok(token.clone()));
            assert_eq!(format!(" {text}\n").parse(), Ok(token.clone()));
            assert!(!format!("{token:?}").contains(&token.secret.reveal()[4..]), "it is not shown");
            for bad in [&text[1..], &text[..text.len() - 1], &format!("{text}_"), &text.replace("_d", "_x")] {
                assert!(bad == text || bad.parse::<JoinToken>().is_err(), "{bad}");
            }
        }
    }

    #[test]
    fn a_public_key_is_a_point() {
        let key = KeyPair::generate().expect("the system has randomness");
        let digits: String = key.public_key_raw().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(public_key(&digits).as_deref(), Some(key.public_key_raw()));
        for bad in ["", "04", &digits[2..], &digits.replacen("04", "05", 1), &"é".repeat(65)] {
            assert_eq!(public_key(bad), None, "{bad}");
        }
    }
}
