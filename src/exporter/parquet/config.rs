//! The section `exporters.parquet`.

use std::fmt;

use serde::Deserialize;

use crate::units::{ByteSize, HumanDuration};

/// Where Parquet goes, and how much of it makes one object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `file:` and a folder, or `s3://bucket/prefix`.
    pub url: String,
    pub roll: Roll,
    pub s3: S3,
}

impl Default for Config {
    fn default() -> Self {
        Self { url: "file:./tailwater-data/traces".into(), roll: Roll::default(), s3: S3::default() }
    }
}

/// An outbox segment, and so an object, ends at whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Roll {
    pub age: HumanDuration,
    /// In bytes of the outbox, about 12 times the Parquet.
    pub size: ByteSize,
}

impl Default for Roll {
    fn default() -> Self {
        Self { age: HumanDuration::from_secs(300), size: ByteSize::gib(1) }
    }
}

/// How an S3-compatible store is reached. What is not given is taken from the environment (`AWS_REGION`,
/// `AWS_ENDPOINT`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` …) or from where the process runs.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3 {
    pub region: Option<String>,
    /// Of a store that is not Amazon's; one that begins with `http://` is spoken to without TLS.
    pub endpoint: Option<String>,
    /// The bucket is part of the path, not of the host. Without it, true if there is an endpoint.
    pub path_style: Option<bool>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
}

/// Secrets are not printed.
impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3")
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .field("path_style", &self.path_style)
            .field("access_key_id", &self.access_key_id)
            .field("secret_access_key", &self.secret_access_key.as_ref().map(|_| "***"))
            .finish()
    }
}
