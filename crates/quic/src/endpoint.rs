//! UDP sockets, and the QUIC endpoints on them: one for each thread that serves, one for each that asks.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{hkdf, hmac, rand};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{EndpointConfig, IdleTimeout, Runtime as _, TokioRuntime, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::cid::Ids;
use crate::client;
use crate::code::Code;
use crate::head::HeadLimits;
use crate::routed::{Routed, Ways};
use crate::server;

/// What HTTP/3 is called in a handshake.
pub const ALPN: &[u8] = b"h3";

/// Bytes of one body that may wait for this side to take them.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes that are on their way to the other side without having been acknowledged.
const SEND_WINDOW: u64 = 2 << 20;
/// Streams of control that a peer may have open: its own three, and some that are not known.
const UNI_STREAMS: u32 = 16;
/// Handshakes of which the first packets wait to be looked at.
const WAITING: usize = 1024;
/// Bytes of one of them, and of all.
const WAITING_BYTES: u64 = 16 * 1024;
const ALL_WAITING_BYTES: u64 = 4 << 20;
/// Bytes that a socket may hold for each direction, where the system allows it.
const SOCKET_BUFFER: usize = 2 << 20;
/// A silent connection is asked for a sign of life this often before it counts as lost.
const SIGNS: u32 = 3;

/// The sockets of one listener: one for each thread, on the same address.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<UdpSocket>,
    ways: Arc<Ways>,
    /// What all threads have to agree upon.
    config: EndpointConfig,
    local: SocketAddr,
}

impl Listener {
    /// Binds one socket for each thread. Port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound, or somebody else listens there.
    pub fn bind(address: SocketAddr, threads: usize) -> io::Result<Self> {
        if address.port() != 0 {
            // Without asking first, `SO_REUSEPORT` would let two processes share the port in silence.
            socket(address)?.bind(&address.into())?;
        }
        // An id has room for so many.
        let threads = threads.clamp(1, 256);
        let mut local = address;
        let mut sockets = Vec::with_capacity(threads);
        for _ in 0..threads {
            let socket = socket(local)?;
            socket.set_reuse_port(true)?;
            socket.bind(&local.into())?;
            let socket = UdpSocket::from(socket);
            local = socket.local_addr()?;
            sockets.push(socket);
        }
        let reset = hmac::Key::new(hmac::HMAC_SHA256, &random()?);
        let config = EndpointConfig::new(Arc::new(reset));
        Ok(Self { sockets, ways: Ways::new(threads), config, local })
    }

    /// The address, its port resolved.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Datagrams that came to another thread than the one that has their connection.
    #[must_use]
    pub fn strayed(&self) -> u64 {
        self.ways.handed()
    }

    /// The endpoint of one thread; call it there, within its runtime, once.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub fn endpoint(&self, thread: usize, secure: &Secure) -> io::Result<Endpoint> {
        let socket = self.sockets.get(thread).ok_or(io::ErrorKind::NotFound)?.try_clone()?;
        let runtime = Arc::new(TokioRuntime);
        let socket = runtime.wrap_udp_socket(socket)?;
        let routed = Arc::new(Routed::new(socket, Arc::clone(&self.ways), thread));
        let mut config = self.config.clone();
        let mask = self.ways.mask.clone();
        let thread = u8::try_from(thread).unwrap_or(u8::MAX);
        config.cid_generator(move || Box::new(Ids { mask: mask.clone(), thread }));
        let server = (*secure.0).clone();
        let endpoint = quinn::Endpoint::new_with_abstract_socket(config, Some(server), routed, runtime)?;
        Ok(Endpoint(endpoint))
    }
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // As much as the system allows: it caps in silence.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    Ok(socket)
}

fn random() -> io::Result<[u8; 64]> {
    let mut bytes = [0; 64];
    rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(bytes)
}

/// What a server says in handshakes, and how much it lets callers have under way.
#[derive(Debug, Clone)]
pub struct Secure(Arc<quinn::ServerConfig>);

/// What makes [`Secure`]s that know each other's tokens. One per process.
#[derive(Clone)]
pub struct Secrets(Arc<dyn quinn::crypto::HandshakeTokenKey>);

impl Secrets {
    /// New ones.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new() -> io::Result<Self> {
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&random()?);
        Ok(Self(Arc::new(key)))
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

/// Bounds of a server's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// Requests under way on one connection.
    pub streams: u32,
    /// How long a connection without a sign of life is kept.
    pub idle: Duration,
}

impl Secure {
    /// From a configuration that TLS over TCP uses as well. Early data stays off: it could be replayed.
    ///
    /// # Errors
    /// For people: when the configuration cannot do TLS 1.3.
    pub fn new(tls: &rustls::ServerConfig, secrets: &Secrets, limits: ServerLimits) -> Result<Self, String> {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.max_early_data_size = 0;
        let crypto = QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?;
        let mut config = quinn::ServerConfig::new(Arc::new(crypto), Arc::clone(&secrets.0));
        config
            .transport_config(Arc::new(transport(limits.streams, limits.idle)))
            .migration(true)
            .max_incoming(WAITING)
            .incoming_buffer_size(WAITING_BYTES)
            .incoming_buffer_size_total(ALL_WAITING_BYTES);
        Ok(Self(Arc::new(config)))
    }
}

fn transport(streams: u32, idle: Duration) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(window(streams))
        .send_window(SEND_WINDOW)
        .max_idle_timeout(IdleTimeout::try_from(idle).ok())
        .keep_alive_interval(Some(idle / SIGNS))
        .datagram_receive_buffer_size(None);
    transport
}

/// Room for every body's window, so that those which wait hold up no other.
fn window(streams: u32) -> VarInt {
    VarInt::from_u32(STREAM_WINDOW.saturating_mul(streams).clamp(1 << 20, (1 << 30) - 1))
}

/// The endpoint of one thread. A clone is the same endpoint: whoever accepts has the connection.
#[derive(Debug, Clone)]
pub struct Endpoint(quinn::Endpoint);

impl Endpoint {
    /// The next caller that wants a connection; `None` once the endpoint is closed.
    pub async fn accept(&self) -> Option<Attempt> {
        self.0.accept().await.map(Attempt)
    }

    /// Takes no more callers; connections that are open go on.
    pub fn retire(&self) {
        self.0.set_server_config(None);
    }

    /// Waits until what its connections had to say has been said.
    pub async fn quiet(&self) {
        self.0.wait_idle().await;
    }

    /// Ends all connections at once.
    pub fn close(&self) {
        self.0.close(Code::NO_ERROR.wire(), b"");
    }
}

/// A caller that wants a connection.
#[derive(Debug)]
pub struct Attempt(quinn::Incoming);

impl Attempt {
    /// The address that it gives: anybody's, unless it [`is_proven`](Self::is_proven).
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.0.remote_address()
    }

    /// Whether it has shown that it can be reached there.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.0.remote_address_validated()
    }

    /// Asks it to come again and show that; keeps nothing of it meanwhile.
    pub fn ask_proof(self) {
        if let Err(error) = self.0.retry() {
            error.into_incoming().refuse();
        }
    }

    /// Tells it to go.
    pub fn refuse(self) {
        self.0.refuse();
    }

    /// Drops it without a word.
    pub fn ignore(self) {
        self.0.ignore();
    }

    /// Shakes hands, and begins HTTP/3 on this thread.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn connect(self, secure: &Secure, limits: HeadLimits) -> Result<server::Connection, String> {
        let connecting = self.0.accept_with(Arc::clone(&secure.0)).map_err(|error| error.to_string())?;
        let connection = connecting.await.map_err(|error| error.to_string())?;
        Ok(server::Connection::begin(connection, limits))
    }
}

/// Where connections to others come from: one thread's sockets, one for each family of addresses.
#[derive(Debug)]
pub struct Dialler {
    four: Option<quinn::Endpoint>,
    six: Option<quinn::Endpoint>,
}

/// How others are asked.
#[derive(Clone)]
pub struct Trust(Arc<QuicClientConfig>);

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trust")
    }
}

impl Trust {
    /// From a configuration that TLS over TCP uses as well.
    ///
    /// # Errors
    /// For people: when the configuration cannot do TLS 1.3.
    pub fn new(tls: &rustls::ClientConfig) -> Result<Self, String> {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.enable_early_data = false;
        QuicClientConfig::try_from(tls)
            .map(|config| Self(Arc::new(config)))
            .map_err(|error| error.to_string())
    }
}

/// Why a connection to somebody did not come to be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    /// No socket for it.
    #[error("no UDP socket: {0}")]
    Socket(Arc<io::Error>),
    /// The name cannot stand in a certificate.
    #[error("the host's name cannot be used: {0}")]
    Name(String),
    /// TLS failed: usually the certificate.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The other side does not answer, or not in QUIC.
    #[error("no QUIC connection: {0}")]
    Quic(quinn::ConnectionError),
}

impl Dialler {
    /// Without sockets: they are opened when they are needed.
    #[must_use]
    pub fn new() -> Self {
        Self { four: None, six: None }
    }

    /// The endpoint for addresses of this family.
    fn endpoint(&mut self, address: IpAddr) -> io::Result<quinn::Endpoint> {
        let (slot, any) = match address {
            IpAddr::V4(_) => (&mut self.four, SocketAddr::from(([0; 4], 0))),
            IpAddr::V6(_) => (&mut self.six, SocketAddr::from(([0_u16; 8], 0))),
        };
        if let Some(endpoint) = slot {
            return Ok(endpoint.clone());
        }
        let socket = socket(any)?;
        if any.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&any.into())?;
        let runtime = Arc::new(TokioRuntime);
        let endpoint = quinn::Endpoint::new(EndpointConfig::default(), None, socket.into(), runtime)?;
        Ok(slot.insert(endpoint).clone())
    }

    /// Begins a connection; what it returns shakes hands when it is polled, within a runtime and a
    /// `LocalSet`. A connection on which nothing comes for `idle` is lost.
    ///
    /// # Errors
    /// See [`DialError`].
    pub fn dial(
        &mut self,
        address: SocketAddr,
        host: &str,
        trust: &Trust,
        idle: Duration,
        limits: HeadLimits,
    ) -> Result<impl Future<Output = Result<client::Connection, DialError>> + use<>, DialError> {
        let endpoint = self.endpoint(address.ip()).map_err(|error| DialError::Socket(Arc::new(error)))?;
        let mut config = quinn::ClientConfig::new(trust.0.clone());
        config.transport_config(Arc::new(transport(0, idle)));
        let connecting = endpoint
            .connect_with(config, address, host)
            .map_err(|error| DialError::Name(error.to_string()))?;
        Ok(async move {
            match connecting.await {
                Ok(connection) => Ok(client::Connection::begin(connection, limits)),
                // Alerts of TLS are 0x100 to 0x1ff (RFC 9001, section 4.8).
                Err(quinn::ConnectionError::TransportError(error))
                    if (0x100..0x200).contains(&u64::from(error.code)) =>
                {
                    Err(DialError::Tls(error.to_string()))
                }
                Err(error) => Err(DialError::Quic(error)),
            }
        })
    }
}

impl Dialler {
    /// Closes what is open; what it returns ends when the other sides have been told.
    pub fn part(&self) -> impl Future<Output = ()> + use<> {
        let endpoints: Vec<quinn::Endpoint> = self.four.iter().chain(&self.six).cloned().collect();
        async move {
            for endpoint in endpoints {
                endpoint.close(Code::NO_ERROR.wire(), b"");
                endpoint.wait_idle().await;
            }
        }
    }
}

impl Default for Dialler {
    fn default() -> Self {
        Self::new()
    }
}
