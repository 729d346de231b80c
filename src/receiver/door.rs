//! Who may come in, and for whom: bearer tokens and the tenant header.

use http::{HeaderMap, HeaderName, header};

use super::Rejection;
use super::config::{Config, Tokens};

/// The longest tenant, in bytes. It becomes part of paths.
const TENANT_LEN_MAX: usize = 128;

/// What is asked of every request's headers, on both transports.
#[derive(Debug)]
pub(super) struct Door {
    tokens: Option<Tokens>,
    tenant: Option<HeaderName>,
}

impl Door {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            tokens: config.auth.as_ref().map(|auth| auth.bearer_tokens.clone()),
            tenant: config.tenant_header.as_ref().map(|name| name.0.clone()),
        }
    }

    /// The tenant that a request is for; the empty one if it names none.
    pub(super) fn enter<'h>(&self, headers: &'h HeaderMap) -> Result<&'h str, Rejection> {
        if let Some(tokens) = &self.tokens {
            check(tokens, headers)?;
        }
        match self.tenant.as_ref().and_then(|name| headers.get(name)) {
            None => Ok(""),
            Some(value) => match value.to_str() {
                Ok(tenant) if tenant.len() <= TENANT_LEN_MAX => Ok(tenant),
                Ok(_) => Err(Rejection::Tenants(format!("its name is longer than {TENANT_LEN_MAX} bytes"))),
                Err(_) => Err(Rejection::Tenants("its name is not visible ASCII".into())),
            },
        }
    }
}

fn check(tokens: &Tokens, headers: &HeaderMap) -> Result<(), Rejection> {
    let (scheme, shown) = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().split_at_checked("Bearer ".len()))
        .ok_or(Rejection::Unauthenticated)?;
    // Every token is compared, so that the time says nothing about which comes close.
    let known = tokens.iter().fold(false, |known, token| known | equal(token.as_bytes(), shown));
    if known && scheme.eq_ignore_ascii_case(b"Bearer ") { Ok(()) } else { Err(Rejection::Unauthenticated) }
}

/// Compares in a time that depends on the lengths only.
fn equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).fold(0, |difference, (l, r)| difference | (l ^ r)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receiver::config::Auth;

    fn door() -> Door {
        let tokens = ["one", "two"].map(|token| token.to_owned().try_into().unwrap());
        Door::new(&Config {
            auth: Some(Auth { bearer_tokens: tokens.to_vec().try_into().unwrap() }),
            tenant_header: Some("X-Scope-OrgID".to_owned().try_into().unwrap()),
            ..Config::default()
        })
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn without_configuration_everyone_is_the_nameless_tenant() {
        let headers = headers(&[("x-scope-orgid", "team")]);
        assert_eq!(Door::new(&Config::default()).enter(&headers), Ok(""));
    }

    #[test]
    fn any_of_the_tokens_opens() {
        for token in ["Bearer one", "bearer two"] {
            assert_eq!(door().enter(&headers(&[("authorization", token)])), Ok(""));
        }
        for token in ["Bearer three", "Bearer on", "Bearer ", "one", "", "Basic one", "Bearer one "] {
            let answer = door().enter(&headers(&[("authorization", token)])).map(str::to_owned);
            assert_eq!(answer, Err(Rejection::Unauthenticated), "{token}");
        }
    }

    #[test]
    fn the_tenant_is_the_value_of_the_header() {
        let named = headers(&[("authorization", "Bearer one"), ("x-scope-orgid", "team a")]);
        assert_eq!(door().enter(&named), Ok("team a"));
        let long = "t".repeat(129);
        let long = headers(&[("authorization", "Bearer one"), ("x-scope-orgid", &long)]);
        assert_eq!(door().enter(&long).unwrap_err().cause(), crate::receiver::Cause::Tenants);
    }
}
