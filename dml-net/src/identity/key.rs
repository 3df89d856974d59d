//! The key of a cluster, which makes certificates.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SignatureAlgorithm,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::{Identity, IdentityError, Party, name};
use crate::{handshake::ClusterId, view::Role};

/// A certificate is good from a day ago, for clocks that are behind.
const BEHIND: Duration = Duration::from_secs(24 * 3600);

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long the certificate of a cluster is good, and one that it has made.
const CLUSTER_YEARS: u32 = 30;
const PARTY_YEARS: u32 = 10;

/// The key of a cluster and its certificate. Whoever has it can be any node and any administrator.
pub struct ClusterKey {
    ca: CertificateDer<'static>,
    key: KeyPair,
}

impl ClusterKey {
    /// The key of a new cluster.
    pub fn generate() -> Result<Self, IdentityError> {
        let key = KeyPair::generate()?;
        let ca = params(CLUSTER_YEARS).self_signed(&key)?.der().clone();
        Ok(Self { ca, key })
    }

    pub(super) fn new(
        ca: CertificateDer<'static>,
        key: &PrivatePkcs8KeyDer<'_>,
    ) -> Result<Self, IdentityError> {
        Ok(Self { ca, key: KeyPair::try_from(key)? })
    }

    /// Which cluster it is the key of.
    pub fn cluster(&self) -> ClusterId {
        ClusterId::of_certificate(&self.ca)
    }

    /// What is kept secret: the certificate and the key.
    pub fn to_pem(&self) -> String {
        self.certificate_pem() + &section("PRIVATE KEY", self.key.serialized_der())
    }

    /// What everybody may have: the certificate.
    pub fn certificate_pem(&self) -> String {
        section("CERTIFICATE", &self.ca)
    }

    /// Makes a party of the cluster, with a key of its own. A node can be asked for at these addresses, too, by programs
    /// that compare them with the certificate; and at those of its own machine.
    pub fn certify(&self, party: Party, addresses: &[IpAddr]) -> Result<Identity, IdentityError> {
        let key = KeyPair::generate()?;
        let certificate = self.sign(party, &key, addresses)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Identity::new(certificate, self.ca.clone(), key)
    }

    /// The certificates of a party that keeps its key for itself, and of the cluster, in PEM. The key is a point of the
    /// curve P-256, uncompressed.
    pub(crate) fn certify_key(
        &self,
        party: Party,
        key: &[u8],
        addresses: &[IpAddr],
    ) -> Result<String, IdentityError> {
        let certificate = self.sign(party, &Point(key), addresses)?;
        Ok(section("CERTIFICATE", &certificate) + &self.certificate_pem())
    }

    fn sign(
        &self,
        party: Party,
        key: &impl PublicKeyData,
        addresses: &[IpAddr],
    ) -> Result<CertificateDer<'static>, IdentityError> {
        let mut params = params(PARTY_YEARS);
        params.is_ca = IsCa::ExplicitNoCa;
        params.distinguished_name = named(&party.to_string());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(party.to_string().try_into()?)];
        params.use_authority_key_identifier_extension = true;
        let role = match party {
            Party::Db(_) => Some(Role::Db),
            Party::Worker(_) => Some(Role::Worker),
            Party::Admin(_) => None,
        };
        if let Some(role) = role {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            for name in [name(role), "localhost"] {
                params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
            }
            let own = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            params.subject_alt_names.extend(own.iter().chain(addresses).map(|ip| SanType::IpAddress(*ip)));
        }
        let issuer = Issuer::new(self::params(CLUSTER_YEARS), &self.key);
        Ok(params.signed_by(key, &issuer)?.der().clone())
    }
}

/// A public key that somebody has sent.
struct Point<'a>(&'a [u8]);

impl PublicKeyData for Point<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// What a cluster's own certificate says, but for how long.
fn params(years: u32) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_before = (now - BEHIND).into();
    params.not_after = (now + YEAR * years).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name = named("DML cluster");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

/// Bytes as a section of a PEM file (RFC 7468).
pub(super) fn section(label: &str, der: &[u8]) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), lines)
}
