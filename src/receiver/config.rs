//! The section `receivers.otlp`.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

/// What a user says about receiving OTLP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// OTLP/gRPC; `null` turns it off.
    pub grpc: Option<Grpc>,
    /// OTLP/HTTP, protobuf and JSON; `null` turns it off.
    pub http: Option<Http>,
    /// Who may send. Unset: anyone who reaches the port.
    pub auth: Option<Auth>,
    /// The request header (gRPC: metadata key) whose value is the tenant.
    pub tenant_header: Option<HeaderName>,
}

impl Default for Config {
    fn default() -> Self {
        Self { grpc: Some(Grpc::default()), http: Some(Http::default()), auth: None, tenant_header: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grpc {
    /// `host:port`.
    pub listen: String,
    pub tls: Option<Tls>,
}

impl Default for Grpc {
    fn default() -> Self {
        Self { listen: "127.0.0.1:4317".into(), tls: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// `host:port`.
    pub listen: String,
    pub cors: Cors,
    pub tls: Option<Tls>,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: "127.0.0.1:4318".into(), cors: Cors::default(), tls: None }
    }
}

/// Which web pages may send from a browser.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Origins such as `https://shop.example`; `*` in an origin stands for any characters, alone for any origin.
    pub allowed_origins: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificate chain, PEM.
    pub cert_file: PathBuf,
    /// Private key, PEM.
    pub key_file: PathBuf,
    /// Certificates that must have signed a client's, PEM. Set: a client without one is refused.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// `Authorization: Bearer <token>` with one of these.
    pub bearer_tokens: Tokens,
}

/// Secrets, at least one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Token>")]
pub struct Tokens(Vec<Token>);

impl Tokens {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Token> {
        self.0.iter()
    }
}

impl TryFrom<Vec<Token>> for Tokens {
    type Error = &'static str;

    fn try_from(tokens: Vec<Token>) -> Result<Self, Self::Error> {
        if tokens.is_empty() {
            return Err("expected at least one bearer token: without any, nobody could send");
        }
        Ok(Self(tokens))
    }
}

/// A secret; shown as `***`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Token(String);

impl Token {
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl TryFrom<String> for Token {
    type Error = &'static str;

    fn try_from(token: String) -> Result<Self, Self::Error> {
        if token.is_empty() {
            return Err("expected a bearer token, found nothing");
        }
        Ok(Self(token))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// The name of a header.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HeaderName(pub http::HeaderName);

impl TryFrom<String> for HeaderName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        http::HeaderName::try_from(&name)
            .map(Self)
            .map_err(|_| format!("expected the name of a header such as X-Scope-OrgID, found {name:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_default_is_the_first_page_of_the_manual() {
        let text = "grpc: { listen: \"127.0.0.1:4317\" }\nhttp: { listen: \"127.0.0.1:4318\" }\n";
        assert_eq!(read(text).unwrap(), Config::default());
    }

    #[test]
    fn everything_can_be_said() {
        let config = read(
            "grpc: { listen: \"0.0.0.0:1\", tls: { cert_file: c, key_file: k, client_ca_file: a } }\n\
             http: null\nauth: { bearer_tokens: [\"secret\"] }\ntenant_header: X-Scope-OrgID\n",
        )
        .unwrap();
        assert!(config.http.is_none());
        assert_eq!(config.tenant_header.as_ref().unwrap().0, "x-scope-orgid");
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(read("grpc: { listn: \"x\" }").unwrap_err().contains("listn"));
        assert!(read("http: { cors: { origins: [] } }").unwrap_err().contains("origins"));
    }

    #[test]
    fn tokens_that_would_let_nobody_in_are_refused() {
        assert!(read("auth: { bearer_tokens: [\"\"] }").is_err());
        assert!(read("auth: { bearer_tokens: [] }").unwrap_err().contains("nobody"));
    }
}
