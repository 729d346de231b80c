//! Certificates and keys of the receiver's ports.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::config::Tls;
use super::server::BindError;

/// Reads the files that the configuration names. With `client_ca_file`, a client must show a certificate it has signed.
pub(super) fn server_config(tls: &Tls) -> Result<Arc<ServerConfig>, BindError> {
    let certificates = certificates(&tls.cert_file)?;
    let key =
        PrivateKeyDer::from_pem_file(&tls.key_file).map_err(failed("read the key in", &tls.key_file))?;
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(failed("use", &tls.cert_file))?;
    let builder = match &tls.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(authorities(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(failed("use the certificates in", path))?)
        }
    };
    let mut config = builder
        .with_single_cert(certificates, key)
        .map_err(failed("use the certificate in", &tls.cert_file))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BindError> {
    let read: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(failed("read the certificates in", path))?;
    if read.is_empty() {
        return Err(failed("read the certificates in", path)("expected at least one in PEM"));
    }
    Ok(read)
}

fn authorities(path: &Path) -> Result<RootCertStore, BindError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(failed("use the certificates in", path))?;
    }
    Ok(roots)
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: &'static str,
    path: &Path,
) -> impl Fn(E) -> BindError {
    move |source| BindError::Tls { what, path: path.display().to_string(), source: source.into() }
}
