//! A bucket of an object store.

use std::time::Duration;

use bytes::Bytes;
use dml_core::Digest;
use object_store::{
    Attribute, Attributes, BackoffConfig, GetOptions, ObjectStore, ObjectStoreExt, PutOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
};

use super::{
    connector::Connector,
    index::is_plain,
    refusal::{self, failure},
    settings::Settings,
    url::Url,
};
use crate::failure::Failure;

/// The metadata that says which bytes an object has: `x-amz-meta-blake3`. The store's own ETag depends on how they came.
const DIGEST: Attribute = Attribute::Metadata(std::borrow::Cow::Borrowed("blake3"));

/// A bucket, and where its store is.
pub(super) struct Bucket {
    store: AmazonS3,
    endpoint: String,
}

impl Bucket {
    /// The bucket of an address, as the environment says. Nothing is sent yet.
    pub(super) fn open(url: &Url) -> Result<Self, Failure> {
        let Settings { key, secret, token, region, endpoint } =
            Settings::read(|name| std::env::var(name).ok())?;
        let amazon = || format!("https://s3.{region}.amazonaws.com");
        let shown = endpoint.clone().unwrap_or_else(amazon);
        let connector = Connector::new(shown.starts_with("https://")).map_err(|error| {
            Failure::failed(format!("{shown} cannot be reached over TLS: {error}"))
                .hint("SSL_CERT_FILE names a file with the certificates of authorities to trust")
        })?;
        let backoff = BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() };
        let retry = RetryConfig { backoff, max_retries: 3, retry_timeout: Duration::from_secs(60) };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&url.bucket)
            .with_region(&region)
            .with_access_key_id(key)
            .with_secret_access_key(secret)
            .with_endpoint(&shown)
            .with_retry(retry)
            .with_http_connector(connector);
        if let Some(token) = token {
            builder = builder.with_token(token);
        }
        let store = builder.build().map_err(|error| failure(&error, url, &shown))?;
        Ok(Self { store, endpoint: shown })
    }

    /// Whether an object with these bytes is there. If the store does not tell it is not: who sends it then learns why.
    pub(super) async fn has(&self, url: &Url, digest: &Digest) -> Result<bool, Failure> {
        let head = GetOptions::new().with_head(true);
        match self.store.get_opts(&url.path, head).await {
            Ok(found) => Ok(found.attributes.get(&DIGEST).is_some_and(|kept| **kept == *digest.to_string())),
            Err(error) if refusal::is_silence(&error) => Err(failure(&error, url, &self.endpoint)),
            Err(_) => Ok(false),
        }
    }

    /// Puts bytes there, in place of any others. It is there whole or not at all.
    pub(super) async fn put(&self, url: &Url, kind: &'static str, bytes: Bytes) -> Result<(), Failure> {
        let digest = Digest::of(&bytes).to_string();
        let attributes =
            Attributes::from_iter([(Attribute::ContentType, kind.to_string()), (DIGEST, digest)]);
        let options = PutOptions { attributes, ..PutOptions::default() };
        let put = self.store.put_opts(&url.path, bytes.into(), options).await;
        put.map(drop).map_err(|error| failure(&error, url, &self.endpoint))
    }

    /// The bytes there; none if there is no such object.
    pub(super) async fn get(&self, url: &Url) -> Result<Option<Bytes>, Failure> {
        let got = match self.store.get(&url.path).await {
            Ok(got) => got.bytes().await,
            Err(error) => Err(error),
        };
        match got {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if refusal::is_missing(&error) => Ok(None),
            Err(error) => Err(failure(&error, url, &self.endpoint)),
        }
    }

    /// What there is right below an address: parts of keys.
    pub(super) async fn below(&self, url: &Url) -> Result<Vec<String>, Failure> {
        let listed = self.store.list_with_delimiter(Some(&url.path)).await;
        let listed = listed.map_err(|error| failure(&error, url, &self.endpoint))?;
        let parts = listed.common_prefixes.iter().filter_map(|path| path.filename().map(String::from));
        Ok(parts.filter(|part| is_plain(part)).collect())
    }

    /// There is nothing of use at an address.
    pub(super) fn nothing(&self, url: &Url) -> Failure {
        Failure::not_found(format!("there is no model at {url} in the store at {}", self.endpoint))
    }
}
