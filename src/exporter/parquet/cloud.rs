//! The stores of the clouds, reached as their environment and the section `s3` say.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::multipart::MultipartStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::config::S3;
use super::object::Cloud;
use super::upload::{OpenError, chain};

/// Whole objects, and objects in parts.
pub(super) trait Objects: ObjectStore + MultipartStore + Debug {}

impl<T: ObjectStore + MultipartStore + Debug> Objects for T {}

/// How long a store is waited for before the exporter hears of it. It tries again by itself, and says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// With one request.
    pub(super) request: Duration,
    /// With all attempts at a request.
    pub(super) attempts: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { request: Duration::from_secs(60), attempts: Duration::from_secs(10) }
    }
}

impl Patience {
    fn retry(self) -> RetryConfig {
        let backoff =
            BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: self.attempts, base: 2.0 };
        RetryConfig { backoff, max_retries: 3, retry_timeout: self.attempts }
    }

    fn client(self, plain: bool) -> ClientOptions {
        ClientOptions::new().with_timeout(self.request).with_allow_http(plain)
    }
}

pub(super) fn open(
    cloud: Cloud,
    bucket: &str,
    s3: &S3,
    patience: Patience,
) -> Result<Arc<dyn Objects>, OpenError> {
    // The program may have chosen a provider already; either is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let opened: Result<Arc<dyn Objects>, _> = match cloud {
        Cloud::S3 => s3_builder(bucket, s3, patience)?.build().map(|store| Arc::new(store) as _),
        Cloud::Google => google_builder(bucket, patience).build().map(|store| Arc::new(store) as _),
        Cloud::Azure => azure_builder(bucket, patience).build().map(|store| Arc::new(store) as _),
    };
    opened.map_err(|error| OpenError::Cloud(chain(&error)))
}

fn s3_builder(bucket: &str, s3: &S3, patience: Patience) -> Result<AmazonS3Builder, OpenError> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    if let Some(region) = &s3.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(id) = &s3.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = &s3.secret_access_key {
        builder = builder.with_secret_access_key(secret);
    }
    if s3.access_key_id.is_some() != s3.secret_access_key.is_some() {
        let reason = "access_key_id and secret_access_key stand together or not at all";
        return Err(OpenError::Cloud(reason.into()));
    }
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    let plain = endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let path_style = s3.path_style.unwrap_or(endpoint.is_some());
    Ok(builder
        .with_client_options(patience.client(plain))
        .with_retry(patience.retry())
        .with_virtual_hosted_style_request(!path_style))
}

/// Credentials are in the environment (`GOOGLE_APPLICATION_CREDENTIALS` …), or come from where the process runs.
fn google_builder(bucket: &str, patience: Patience) -> GoogleCloudStorageBuilder {
    // The service account may name an address of its own, without TLS where it is a test's.
    GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(patience.client(true))
        .with_retry(patience.retry())
}

/// The account and its credentials are in the environment (`AZURE_STORAGE_ACCOUNT_NAME` …).
fn azure_builder(container: &str, patience: Patience) -> MicrosoftAzureBuilder {
    MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_client_options(patience.client(false))
        .with_retry(patience.retry())
}
