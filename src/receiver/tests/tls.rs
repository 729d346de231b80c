use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;

use super::*;
use crate::receiver::config::{Grpc, Tls};

/// A directory with an authority, and what it has signed.
struct Files {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let files = Self { folder: tempfile::tempdir().unwrap(), authority };
        std::fs::write(files.path("ca.pem"), files.authority.pem()).unwrap();
        let (certificate, key) = files.sign("localhost");
        std::fs::write(files.path("cert.pem"), certificate).unwrap();
        std::fs::write(files.path("key.pem"), key).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.authority).unwrap().pem(), key.serialize_pem())
    }

    fn config(&self, client_ca: bool) -> Config {
        let client_ca_file = client_ca.then(|| self.path("ca.pem"));
        let tls = Tls { cert_file: self.path("cert.pem"), key_file: self.path("key.pem"), client_ca_file };
        Config { grpc: Some(Grpc { tls: Some(tls), ..Grpc::default() }), ..Config::default() }
    }

    async fn send(&self, running: &Running, identity: Option<Identity>) -> Result<(), String> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.authority.pem()))
            .domain_name("localhost");
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let endpoint: Endpoint = Channel::from_shared(format!("https://{}", running.grpc)).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect().await.map_err(|error| error.to_string())?;
        let sent = TraceServiceClient::new(channel).export(request(1)).await;
        sent.map(drop).map_err(|status| status.to_string())
    }
}

#[tokio::test]
async fn requests_come_over_tls() {
    let files = Files::new();
    let running = run(files.config(false), FakeIntake::with_budget(1 << 20)).await;
    files.send(&running, None).await.unwrap();
    assert_eq!(running.intake.bodies().len(), 1);
}

#[tokio::test]
async fn clients_without_a_signed_certificate_are_kept_out() {
    let files = Files::new();
    let running = run(files.config(true), FakeIntake::with_budget(1 << 20)).await;
    assert!(files.send(&running, None).await.is_err());
    let (certificate, key) = Files::new().sign("stranger");
    assert!(files.send(&running, Some(Identity::from_pem(certificate, key))).await.is_err());
    assert_eq!(running.intake.bodies().len(), 0);
    let (certificate, key) = files.sign("friend");
    files.send(&running, Some(Identity::from_pem(certificate, key))).await.unwrap();
    assert_eq!(running.intake.bodies().len(), 1);
    assert!(running.metrics.connections.failed() >= 2);
}

#[tokio::test]
async fn unreadable_files_are_named_at_start() {
    let files = Files::new();
    for name in ["cert.pem", "key.pem", "ca.pem"] {
        let config = files.config(true);
        std::fs::write(files.path(name), "not PEM").unwrap();
        let error = crate::receiver::bind(&config).await.unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        std::fs::remove_file(files.path(name)).unwrap();
        let error = crate::receiver::bind(&config).await.unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        let again = Files::new();
        for file in ["cert.pem", "key.pem", "ca.pem"] {
            std::fs::copy(again.path(file), files.path(file)).unwrap();
        }
    }
}
