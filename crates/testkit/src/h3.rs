//! A caller that speaks HTTP/3 through a library that the relay does not use for it.

use std::fmt;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use h3::client::{RequestStream, SendRequest};
use h3_quinn::{BidiStream, OpenStreams};
use http::{Request, Response};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint};
use tokio::task::AbortHandle;

use crate::wire::Tls;

/// What went wrong, in the library's words.
#[derive(Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

fn failure(error: impl fmt::Display) -> Failure {
    Failure(error.to_string())
}

/// Sockets from which connections are made.
#[derive(Debug, Clone)]
pub struct Caller3(Endpoint);

/// A connection. It is closed when the last clone is dropped.
#[derive(Clone)]
pub struct H3 {
    requests: SendRequest<OpenStreams, Bytes>,
    quic: quinn::Connection,
    _driver: Arc<Driver>,
}

/// An answer, and the stream that the rest of it comes on.
pub struct Answer3 {
    /// Its head.
    pub head: Response<()>,
    stream: RequestStream<BidiStream<Bytes>, Bytes>,
}

struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for H3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("H3").field(&self.quic.remote_address()).finish()
    }
}

impl fmt::Debug for Answer3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer3").field(&self.head.status()).finish()
    }
}

impl Caller3 {
    /// One socket, on a port of its own. Call it within a runtime.
    ///
    /// # Errors
    /// When it cannot be bound, or `tls` does not offer TLS 1.3 with `h3`.
    pub fn new(tls: &Tls) -> Result<Self, Failure> {
        let crypto = QuicClientConfig::try_from(tls.config()).map_err(failure)?;
        let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut endpoint = Endpoint::client(unspecified).map_err(failure)?;
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(crypto)));
        Ok(Self(endpoint))
    }

    /// Connects and asks for a name.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn connect(&self, to: SocketAddr, name: &str) -> Result<H3, Failure> {
        let quic = self.0.connect(to, name).map_err(failure)?.await.map_err(failure)?;
        let (mut driver, requests) =
            h3::client::new(h3_quinn::Connection::new(quic.clone())).await.map_err(failure)?;
        let driving = tokio::spawn(async move { poll_fn(|cx| driver.poll_close(cx)).await });
        Ok(H3 { requests, quic, _driver: Arc::new(Driver(driving.abort_handle())) })
    }
}

impl H3 {
    /// Sends a request and waits for the head of its answer. Its target needs a scheme and a host.
    ///
    /// # Errors
    /// When the stream or the connection ends before that.
    pub async fn ask(&mut self, request: Request<()>, body: Bytes) -> Result<Answer3, Failure> {
        let mut stream = self.requests.send_request(request).await.map_err(failure)?;
        if !body.is_empty() {
            stream.send_data(body).await.map_err(failure)?;
        }
        stream.finish().await.map_err(failure)?;
        let head = stream.recv_response().await.map_err(failure)?;
        Ok(Answer3 { head, stream })
    }

    /// The connection below.
    #[must_use]
    pub fn quic(&self) -> &quinn::Connection {
        &self.quic
    }
}

impl Answer3 {
    /// What comes next of the body; `None` at its end.
    ///
    /// # Errors
    /// When the stream breaks off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let chunk = self.stream.recv_data().await.map_err(failure)?;
        Ok(chunk.map(|mut chunk| chunk.copy_to_bytes(chunk.remaining())))
    }
}
