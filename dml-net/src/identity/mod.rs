//! Who is who. A cluster is known by its certificate authority: whoever has the cluster's key ([`ClusterKey`]) can make
//! certificates, and whoever has one ([`Identity`]) is a db node, a worker or an administrator of that cluster. Nodes
//! show theirs to each other; users may show one, or a token.
//!
//! Nodes change their addresses, so names of machines are not what is checked: a db node's certificate is good for the
//! name `db.dml.internal`, a worker's for `worker.dml.internal`, and whoever connects says which of the two it wants.
//! The rest is the verification that every TLS client does.

mod guard;
pub(crate) mod join;
mod key;
mod party;
mod pinned;
mod revoked;
mod secret;
mod tls;

use std::sync::Arc;

use axum::http::StatusCode;
use dml_core::NodeId;
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName,
        pem::{self, PemObject},
    },
    server::{VerifierBuilderError, WebPkiClientVerifier},
    version::TLS13,
};

use self::pinned::Pinned;
use crate::{
    handshake::ClusterId,
    peer::{self, Dial},
    problem::Problem,
    view::Role,
};

pub(crate) use guard::{nodes_only, refused};
pub use join::{JoinError, JoinToken, NotAJoinToken, join, scope};
pub use key::ClusterKey;
use key::section;
pub use party::{Name, Party};
pub use revoked::Revoked;
pub use secret::{NotASecret, Secret};
pub(crate) use tls::Tls;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The text is not what `dml cluster init` writes.
    #[error("these are no certificates and key in PEM: {0}")]
    Pem(#[from] pem::Error),
    /// The certificates are not those of a key or of a party.
    #[error(
        "a cluster's key has its certificate with it, and a node or an administrator its own and the cluster's; here are {0}"
    )]
    Chain(usize),
    /// The certificate does not say who its holder is.
    #[error("this certificate is of no db node, worker or administrator")]
    Nobody,
    /// A certificate cannot be made.
    #[error("the certificate cannot be made: {0}")]
    Certify(#[from] rcgen::Error),
    /// The certificate or the key is of no use for TLS.
    #[error("the certificate or its key cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    /// The same of the cluster's certificate.
    #[error("the certificate of the cluster cannot be used: {0}")]
    Root(#[from] VerifierBuilderError),
}

/// A party's certificate and its key.
#[derive(Clone)]
pub struct Identity(Arc<Parts>);

struct Parts {
    party: Party,
    ca: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    revoked: Revoked,
}

/// What a file holds that says who somebody is.
pub enum Credentials {
    /// The key of a cluster: its holder can be anybody.
    Key(Box<ClusterKey>),
    /// A certificate of one party.
    Own(Identity),
}

impl Credentials {
    /// The key of a cluster, if that is what it is.
    pub fn into_key(self) -> Option<ClusterKey> {
        match self {
            Self::Key(key) => Some(*key),
            Self::Own(_) => None,
        }
    }

    /// Reads what [`ClusterKey::to_pem`] or [`Identity::to_pem`] wrote.
    pub fn from_pem(text: &[u8]) -> Result<Self, IdentityError> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>()?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(text)?;
        match <[_; 1]>::try_from(certificates) {
            Ok([ca]) => Ok(Self::Key(Box::new(ClusterKey::new(ca, &key)?))),
            Err(certificates) => match <[_; 2]>::try_from(certificates) {
                Ok([certificate, ca]) => Ok(Self::Own(Identity::new(certificate, ca, key)?)),
                Err(others) => Err(IdentityError::Chain(others.len())),
            },
        }
    }
}

impl Identity {
    fn new(
        certificate: CertificateDer<'static>,
        ca: CertificateDer<'static>,
        key: PrivatePkcs8KeyDer<'static>,
    ) -> Result<Self, IdentityError> {
        let party = party(&certificate).ok_or(IdentityError::Nobody)?;
        Ok(Self(Arc::new(Parts { party, ca, certificate, key, revoked: Revoked::default() })))
    }

    /// Who it is.
    pub fn party(&self) -> Party {
        self.0.party
    }

    /// Of which cluster.
    pub fn cluster(&self) -> ClusterId {
        ClusterId::of_certificate(&self.0.ca)
    }

    /// Whom it does not trust any more: all that is made of it shares what it hears.
    pub fn revoked(&self) -> Revoked {
        self.0.revoked.clone()
    }

    /// What is written to a file: the certificates of the party and of the cluster, and the key.
    pub fn to_pem(&self) -> String {
        let Parts { certificate, ca, key, .. } = &*self.0;
        let certificates = section("CERTIFICATE", certificate) + &section("CERTIFICATE", ca);
        certificates + &section("PRIVATE KEY", key.secret_pkcs8_der())
    }

    /// How this party reaches nodes of its cluster, those of that role alone.
    pub fn dial(&self, to: Role) -> Result<Dial, IdentityError> {
        Ok(peer::https(&Trust::identified(self)?, to).of(self.cluster()))
    }

    /// How this party takes connections: whoever shows a certificate must be of the cluster; others remain unknown.
    pub fn accept(&self) -> Result<Arc<ServerConfig>, IdentityError> {
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&self.0.ca)?), provider());
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(clients.allow_unauthenticated().build()?)
            .with_single_cert(self.chain(), self.key())?;
        Ok(Arc::new(config))
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.0.certificate.clone(), self.0.ca.clone()]
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.0.key.clone_key())
    }
}

/// Whom a client trusts, and what it shows.
#[derive(Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
    revoked: Revoked,
}

impl Trust {
    /// Trusts the nodes of the cluster with this certificate (PEM), and shows nothing.
    pub fn cluster(ca: &[u8]) -> Result<Self, IdentityError> {
        let roots = roots(&CertificateDer::from_pem_slice(ca)?)?;
        let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
        Ok(Self::new(config.with_root_certificates(roots).with_no_client_auth()))
    }

    /// Trusts the nodes of the cluster whose certificate has this digest, and shows nothing.
    pub(crate) fn pinned(cluster: ClusterId) -> Result<Self, IdentityError> {
        let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
        let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Pinned::new(cluster)));
        Ok(Self::new(config.with_no_client_auth()))
    }

    fn new(config: ClientConfig) -> Self {
        Self { config: Arc::new(config), revoked: Revoked::default() }
    }

    /// Whom it does not trust any more.
    pub(crate) fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    /// Trusts the nodes of the same cluster, and shows its own certificate.
    pub fn identified(identity: &Identity) -> Result<Self, IdentityError> {
        let roots = roots(&identity.0.ca)?;
        let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
        let config = config.with_root_certificates(roots);
        let config = config.with_client_auth_cert(identity.chain(), identity.key())?;
        Ok(Self { revoked: identity.revoked(), ..Self::new(config) })
    }
}

/// The name for which the certificates of all nodes of a role are good.
fn name(role: Role) -> &'static str {
    match role {
        Role::Db => "db.dml.internal",
        Role::Worker => "worker.dml.internal",
    }
}

fn server_name(role: Role) -> ServerName<'static> {
    ServerName::try_from(name(role)).expect("it is a name of a host")
}

/// Said explicitly: a program that embeds this may have another one as its default.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(ca: &CertificateDer<'static>) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    Ok(roots)
}

/// Whom a certificate names.
fn party(certificate: &CertificateDer<'_>) -> Option<Party> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    certificate.valid_uri_names().find_map(|name| name.parse().ok())
}

/// Who has sent a request over TLS; none is somebody without a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller(pub Option<Party>);

impl Caller {
    /// Refuses what somebody sends in the name of a db node whose certificate it does not have.
    pub(crate) fn must_be(self, sender: NodeId) -> Result<(), Problem> {
        match self.0 {
            Some(Party::Db(id)) if id == sender => Ok(()),
            other => {
                let who = other.map_or_else(|| "none".into(), |party| party.to_string());
                let detail = format!("this is of {sender}, and the certificate is that of {who}");
                Err(Problem::new(StatusCode::FORBIDDEN, "not-the-sender", detail))
            }
        }
    }

    /// Whoever is at the other end of a connection.
    pub(crate) fn of(connection: &rustls::ServerConnection) -> Self {
        Self(connection.peer_certificates().and_then(|chain| party(chain.first()?)))
    }
}

#[cfg(test)]
mod tests;
