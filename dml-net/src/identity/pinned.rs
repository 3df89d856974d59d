//! Trust in a cluster of which only the digest of its certificate is known, as a machine does that is to join it.

use std::sync::Arc;

use tokio_rustls::rustls::{
    self, CertificateError, DigitallySignedStruct, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{provider, roots};
use crate::handshake::ClusterId;

/// Takes from what a node shows the cluster's certificate, if it has the digest that is known, and verifies by it.
#[derive(Debug)]
pub(super) struct Pinned {
    cluster: ClusterId,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    pub(super) fn new(cluster: ClusterId) -> Self {
        Self { cluster, provider: provider() }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        status: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = others.iter().find(|ca| ClusterId::of_certificate(ca) == self.cluster);
        let ca = ca.ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let unusable = |error: &dyn std::fmt::Display| rustls::Error::General(error.to_string());
        let roots = roots(&ca.clone().into_owned()).map_err(|error| unusable(&error))?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
        let verifier = verifier.map_err(|error| unusable(&error))?;
        verifier.verify_server_cert(own, others, name, status, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 is spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
