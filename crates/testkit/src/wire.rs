//! A caller's stream, with or without TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::{Authority, Issued};
use crate::wait::within;

/// A stream to the relay.
#[derive(Debug)]
pub enum Wire {
    /// In the clear.
    Plain(TcpStream),
    /// Over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// How a caller speaks TLS. Clones share their session tickets.
#[derive(Debug, Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Trusts this authority and offers these protocols.
    ///
    /// # Panics
    /// When there is no such version of TLS.
    #[must_use]
    pub fn new(authority: &Authority, alpn: &[&str]) -> Self {
        Self::with(authority, alpn, None, rustls::ALL_VERSIONS)
    }

    /// Trusts the authority in this PEM and offers these protocols.
    ///
    /// # Panics
    /// When the text holds no certificate.
    #[must_use]
    pub fn trusting(pem: &str, alpn: &[&str]) -> Self {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        roots.add(root).expect("a root");
        Self::from_roots(Arc::new(roots), alpn, None, rustls::ALL_VERSIONS)
    }

    /// As [`Tls::new`], with a certificate of the caller's own.
    ///
    /// # Panics
    /// When it cannot be used.
    #[must_use]
    pub fn presenting(authority: &Authority, alpn: &[&str], own: &Issued) -> Self {
        Self::with(authority, alpn, Some(own), rustls::ALL_VERSIONS)
    }

    /// As [`Tls::new`], TLS 1.2 only.
    ///
    /// # Panics
    /// When there is no such version of TLS.
    #[must_use]
    pub fn version_1_2(authority: &Authority, alpn: &[&str]) -> Self {
        Self::with(authority, alpn, None, &[&rustls::version::TLS12])
    }

    fn with(
        authority: &Authority,
        alpn: &[&str],
        own: Option<&Issued>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        Self::from_roots(authority.roots(), alpn, own, versions)
    }

    fn from_roots(
        roots: Arc<RootCertStore>,
        alpn: &[&str],
        own: Option<&Issued>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions of TLS")
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                builder.with_client_auth_cert(vec![own.der()], own.private()).expect("a certificate")
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self(Arc::new(config))
    }

    /// For QUIC, which makes its handshake itself.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }

    /// Connects and asks for a name.
    ///
    /// # Errors
    /// When the handshake fails.
    ///
    /// # Panics
    /// When the connection is not accepted.
    pub async fn connect(&self, to: SocketAddr, name: &str) -> io::Result<Wire> {
        let tcp = Wire::tcp(to).await;
        self.over(tcp, name).await
    }

    /// A handshake on a connection that is there.
    ///
    /// # Errors
    /// When it fails.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn over(&self, tcp: TcpStream, name: &str) -> io::Result<Wire> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connecting = TlsConnector::from(Arc::clone(&self.0)).connect(name, tcp);
        Ok(Wire::Tls(Box::new(within("a TLS handshake", connecting).await?)))
    }
}

impl Wire {
    /// A connection without TLS.
    ///
    /// # Panics
    /// When it is not accepted.
    pub async fn tcp(to: SocketAddr) -> TcpStream {
        let stream = within("a connection", TcpStream::connect(to)).await.expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream
    }

    /// The certificate that the relay showed.
    ///
    /// # Panics
    /// Without TLS.
    #[must_use]
    pub fn certificate(&self) -> CertificateDer<'static> {
        let shown = self.session().peer_certificates().expect("certificates");
        shown[0].clone().into_owned()
    }

    /// The protocol that was agreed on.
    #[must_use]
    pub fn protocol(&self) -> Option<String> {
        self.session().alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned())
    }

    /// The key exchange that was agreed on, and whether a session was resumed.
    ///
    /// # Panics
    /// Without TLS.
    #[must_use]
    pub fn agreed(&self) -> (String, bool) {
        let session = self.session();
        let group = session.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()));
        let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        (group.unwrap_or_default(), resumed)
    }

    fn session(&self) -> &rustls::ClientConnection {
        match self {
            Self::Plain(_) => panic!("no TLS on this stream"),
            Self::Tls(stream) => stream.get_ref().1,
        }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
