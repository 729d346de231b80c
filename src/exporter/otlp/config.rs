//! What a user says of one OTLP backend.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use crate::units::HumanDuration;

/// One backend that gets every kept span, from the cursor of this name on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Names the cursor file and the metrics: a renamed exporter is a new one.
    pub name: Name,
    pub endpoint: Endpoint,
    /// Absent: `http` if the endpoint has port 4318 or a path, else `grpc`.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// Sent with every request, for example `Authorization`.
    #[serde(default)]
    pub headers: BTreeMap<HeaderKey, HeaderText>,
    #[serde(default)]
    pub tls: TlsConfig,
    #[serde(default)]
    pub compression: Compression,
    /// Of one request; then it is sent again.
    #[serde(default = "timeout")]
    pub timeout: HumanDuration,
    /// Header that carries the tenant; absent: the tenant is not told.
    #[serde(default)]
    pub tenant_header: Option<HeaderKey>,
}

fn timeout() -> HumanDuration {
    HumanDuration::from_secs(10)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Grpc,
    Http,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Zstd,
}

/// For endpoints that begin with `https://`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// PEM; instead of the certificate authorities of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM; with `key_file`, what the backend knows us by.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// A value of the configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not {expected}")]
pub struct Invalid {
    found: String,
    expected: &'static str,
}

/// A newtype that is read from a string and checked, so that a mistake is reported where it stands.
macro_rules! checked {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(found: String) -> Result<Self, Invalid> {
                let check: fn(&str) -> bool = $check;
                if check(&found) { Ok(Self(found)) } else { Err(Invalid { found, expected: $expected }) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked!(
    /// Part of a file name and a metric label.
    Name,
    "a name of 1 to 64 lower-case letters, digits, '-' and '_' (other than \"parquet\")",
    |name| (1..=64).contains(&name.len())
        && name != "parquet"
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
);

checked!(
    /// `http://host:port` or `https://host:port`; over HTTP, a path other than `/` is used instead of `/v1/traces`.
    Endpoint,
    "a URL such as http://tempo:4317",
    |endpoint| url::Url::parse(endpoint)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none())
);

checked!(
    /// The name of a header.
    HeaderKey,
    "a header name that is free to set",
    |key| HeaderName::from_bytes(key.as_bytes()).is_ok_and(|name| !reserved(&name))
);

/// Headers that the protocol sets.
fn reserved(name: &HeaderName) -> bool {
    const RESERVED: [&str; 7] = [
        "content-type",
        "content-length",
        "content-encoding",
        "host",
        "te",
        "connection",
        "transfer-encoding",
    ];
    RESERVED.contains(&name.as_str()) || name.as_str().starts_with("grpc-") || name.as_str().ends_with("-bin")
}

impl Endpoint {
    fn url(&self) -> url::Url {
        url::Url::parse(&self.0).expect("checked when it was made")
    }

    /// The port is the scheme's if none is written.
    pub fn host_and_port(&self) -> Option<(String, u16)> {
        let url = self.url();
        url.host_str().map(str::to_owned).zip(url.port_or_known_default())
    }

    pub(super) fn is_tls(&self) -> bool {
        self.0.starts_with("https:")
    }

    /// Where requests go over HTTP.
    pub(super) fn traces_url(&self) -> String {
        let mut url = self.url();
        if !self.has_path() {
            url.set_path("/v1/traces");
        }
        url.into()
    }

    fn names_user(&self) -> bool {
        let url = self.url();
        !url.username().is_empty() || url.password().is_some()
    }

    fn has_path(&self) -> bool {
        self.url().path() != "/"
    }
}

impl Config {
    /// With the defaults of every key that may be absent.
    pub fn new(name: Name, endpoint: Endpoint) -> Self {
        Self {
            name,
            endpoint,
            protocol: None,
            headers: BTreeMap::new(),
            tls: TlsConfig::default(),
            compression: Compression::default(),
            timeout: timeout(),
            tenant_header: None,
        }
    }

    pub fn protocol(&self) -> Protocol {
        let http = || self.endpoint.url().port() == Some(4318) || self.endpoint.has_path();
        self.protocol.unwrap_or_else(|| if http() { Protocol::Http } else { Protocol::Grpc })
    }

    /// What serde cannot see because it takes two keys: the key at fault and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if self.tls.cert_file.is_some() != self.tls.key_file.is_some() {
            return Err(("tls", "cert_file and key_file stand together"));
        }
        if self.tls != TlsConfig::default() && !self.endpoint.is_tls() {
            return Err(("tls", "the endpoint does not begin with https://"));
        }
        if self.endpoint.names_user() {
            return Err((
                "endpoint",
                "a user and password are sent by headers: { Authorization: \"Basic …\" }",
            ));
        }
        if self.timeout.get().is_zero() {
            return Err(("timeout", "found 0s, expected a duration such as 10s"));
        }
        if self.protocol() == Protocol::Grpc && self.endpoint.has_path() {
            return Err(("endpoint", "gRPC takes no path"));
        }
        Ok(())
    }
}

/// The value of a header: shown by nothing, because it may be a password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HeaderText(HeaderValue);

impl HeaderText {
    pub(super) fn value(&self) -> &HeaderValue {
        &self.0
    }
}

impl TryFrom<String> for HeaderText {
    type Error = Invalid;

    fn try_from(found: String) -> Result<Self, Invalid> {
        let invalid =
            |_| Invalid { found: "…".to_owned(), expected: "a header value of visible ASCII characters" };
        let mut value: HeaderValue = found.parse().map_err(invalid)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Config, String> {
        serde_saphyr::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn name_and_endpoint_are_enough() {
        let config = read("{ name: tempo, endpoint: 'http://tempo:4317' }").unwrap();
        assert_eq!(config.protocol(), Protocol::Grpc);
        assert_eq!(config.timeout, HumanDuration::from_secs(10));
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn port_4318_or_a_path_means_http() {
        let config = read("{ name: a, endpoint: 'http://tempo:4318' }").unwrap();
        assert_eq!(config.protocol(), Protocol::Http);
        assert_eq!(config.endpoint.traces_url(), "http://tempo:4318/v1/traces");
        let config = read("{ name: a, endpoint: 'https://vendor.example/otlp/traces' }").unwrap();
        assert_eq!(config.protocol(), Protocol::Http);
        assert_eq!(config.endpoint.traces_url(), "https://vendor.example/otlp/traces");
    }

    #[test]
    fn a_mistake_is_found_where_it_stands() {
        for (yaml, expected) in [
            ("{ name: a, endpoint: tempo }", "is not a URL such as"),
            ("{ name: A, endpoint: 'http://tempo' }", "is not a name of"),
            ("{ name: parquet, endpoint: 'http://tempo' }", "is not a name of"),
            ("{ name: a, endpoint: 'http://tempo', timeout: ten }", "expected a duration"),
            (
                "{ name: a, endpoint: 'http://tempo', headers: { grpc-timeout: '1S' } }",
                "is not a header name",
            ),
            ("{ name: a, endpoint: 'http://tempo', tls: { insecure: true } }", "insecure"),
        ] {
            let error = read(yaml).unwrap_err();
            assert!(error.contains(expected), "{yaml}: {error}");
        }
    }

    #[test]
    fn keys_that_exclude_each_other_are_refused() {
        let refused = |yaml| read(yaml).unwrap().check().is_err();
        assert!(refused("{ name: a, endpoint: 'http://tempo:4317', tls: { ca_file: ca.pem } }"));
        assert!(refused("{ name: a, endpoint: 'https://tempo:4317', tls: { cert_file: c.pem } }"));
        assert!(refused("{ name: a, endpoint: 'http://tempo:4317/x', protocol: grpc }"));
        assert!(refused("{ name: a, endpoint: 'http://tempo:4317', timeout: 0s }"));
        assert!(refused("{ name: a, endpoint: 'http://user:secret@tempo:4317' }"));
    }

    #[test]
    fn a_header_value_is_not_shown() {
        let config =
            read("{ name: a, endpoint: 'http://t', headers: { Authorization: Bearer abc } }").unwrap();
        assert!(!format!("{config:?}").contains("abc"));
    }
}
