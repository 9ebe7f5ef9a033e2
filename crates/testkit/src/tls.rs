//! A certificate authority for one test.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

/// An authority, and a certificate of it for this machine under its usual names and `platform.test`.
#[derive(Debug)]
pub struct TestCa {
    folder: tempfile::TempDir,
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl TestCa {
    /// A new one.
    ///
    /// # Panics
    /// When its file cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).expect("a file");
        let issuer = Issuer::from_params(&params, &key);
        let names = ["platform.test", "localhost", "127.0.0.1", "127.0.0.2", "::1"];
        let leaf = CertificateParams::new(names.map(str::to_owned)).expect("names");
        let leaf_key = KeyPair::generate().expect("a key");
        let certificate = leaf.signed_by(&leaf_key, &issuer).expect("a certificate");
        Self { folder, certificate, key: leaf_key }
    }

    /// The authority's certificate: a channel's `ca`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Certificate and key of the server, as files.
    ///
    /// # Panics
    /// When they cannot be written.
    #[must_use]
    pub fn server_files(&self) -> [PathBuf; 2] {
        let folder: &Path = self.folder.path();
        let files = [folder.join("server.pem"), folder.join("server.key")];
        std::fs::write(&files[0], self.certificate.pem()).expect("a file");
        std::fs::write(&files[1], self.key.serialize_pem()).expect("a file");
        files
    }

    /// What a server that offers these protocols needs.
    ///
    /// # Panics
    /// When the certificate does not fit its key.
    #[must_use]
    pub fn server(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the usual versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .expect("a certificate and its key");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

impl Default for TestCa {
    fn default() -> Self {
        Self::new()
    }
}
