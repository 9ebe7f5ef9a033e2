//! A certificate authority for one test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use crate::net;

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

    /// Its certificate and key as files, for who presents them to others.
    ///
    /// # Panics
    /// When they cannot be written.
    #[must_use]
    pub fn files(&self) -> [PathBuf; 2] {
        let files = ["leaf.pem", "leaf.key"].map(|name| self.folder.path().join(name));
        std::fs::write(&files[0], self.certificate.pem()).expect("a file");
        std::fs::write(&files[1], self.key.serialize_pem()).expect("a file");
        files
    }

    /// What a server that offers these protocols needs, and that lets in only who has a certificate
    /// of this authority.
    ///
    /// # Panics
    /// When the certificate does not fit its key.
    #[must_use]
    pub fn strict_server(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        let pem = std::fs::read(self.path()).expect("the authority's file");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem).expect("a certificate")).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        self.configured(alpn, verifier.build().expect("a verifier"))
    }

    /// What a server that offers these protocols needs.
    ///
    /// # Panics
    /// When the certificate does not fit its key.
    #[must_use]
    pub fn server(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        self.configured(alpn, WebPkiClientVerifier::no_client_auth())
    }

    fn configured(&self, alpn: &[&str], verifier: Arc<dyn ClientCertVerifier>) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the usual versions")
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .expect("a certificate and its key");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// Ends TLS before something that speaks none. It stops when dropped.
#[derive(Debug)]
pub struct TlsFront {
    addr: SocketAddr,
    accepting: AbortHandle,
}

impl TlsFront {
    /// Listens and passes what it decrypts on to `target`.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn start(target: SocketAddr, config: Arc<ServerConfig>) -> Self {
        let listener = net::run(TcpListener::bind(("127.0.0.1", 0))).await.expect("a free port");
        let addr = listener.local_addr().expect("a bound socket");
        let acceptor = TlsAcceptor::from(config);
        let accepting = net::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let (Ok(mut near), Ok(mut far)) =
                        (acceptor.accept(near).await, TcpStream::connect(target).await)
                    else {
                        return;
                    };
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { addr, accepting: accepting.abort_handle() }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Default for TestCa {
    fn default() -> Self {
        Self::new()
    }
}
