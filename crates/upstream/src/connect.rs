//! One connection: address, TCP, proxy, TLS, and the HTTP version that comes of it.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use aiproxy_config::model::{BaseUrl, Channel, Egress, EgressProxy, HttpVersion, ProxyScheme};
use aiproxy_core::ports::SocketStream;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::environment::Environment;
use crate::error::ConnectError;
use crate::multiplex::Shared;
use crate::race;
use crate::request_body::RequestBody;
use crate::resolve::Resolver;
use crate::tls::TlsConfigs;
use crate::tunnel::{self, Destination};

/// An HTTP/1.1 connection. Dropping it closes it, whatever is under way on it: that is how an
/// exchange is cancelled, and how a platform that has stopped reading is left.
#[derive(Debug)]
pub struct Conn {
    /// Sends requests over it.
    pub sender: SendRequest<RequestBody>,
    /// The address that it leads to first.
    pub peer: IpAddr,
    task: AbortHandle,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What connecting gave.
#[derive(Debug)]
pub enum Opened {
    /// HTTP/1.1: one exchange at a time.
    One(Conn),
    /// HTTP/2.
    Many(Shared),
}

/// The first hop towards a platform.
#[derive(Debug, Clone)]
pub enum Route {
    /// The platform itself.
    Direct,
    /// A proxy.
    Proxy(Arc<EgressProxy>),
}

impl Route {
    /// The channel's own, else the environment's.
    #[must_use]
    pub fn of(channel: &Channel) -> Self {
        match &channel.reach.egress {
            Egress::Direct => Self::Direct,
            Egress::Proxy(proxy) => Self::Proxy(Arc::clone(proxy)),
            Egress::Environment => Environment::read()
                .proxy_of(&channel.base)
                .map_or(Self::Direct, |proxy| Self::Proxy(Arc::clone(proxy))),
        }
    }

    /// Host and port that a connection leads to first.
    #[must_use]
    pub fn first_hop<'a>(&'a self, base: &'a BaseUrl) -> (&'a str, u16) {
        match self {
            Self::Direct => (&base.host, base.port),
            Self::Proxy(proxy) => (&proxy.host, proxy.port),
        }
    }
}

/// All that connecting needs.
#[derive(Debug, Clone, Copy)]
pub struct Dialler<'a> {
    /// Whose platform.
    pub channel: &'a Channel,
    /// The way there.
    pub route: &'a Route,
    /// TLS settings.
    pub configs: &'a TlsConfigs,
    /// The thread's resolver.
    pub resolver: &'a Resolver,
    /// Streams that an HTTP/2 platform is thought to take before it has said so.
    pub streams: usize,
}

/// A stream whose kind no longer matters.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// What is to be made of a stream that leads to the platform.
trait Finish {
    type Made;

    async fn finish<S: Stream + 'static>(
        self,
        dialler: &Dialler<'_>,
        stream: S,
        peer: IpAddr,
    ) -> Result<Self::Made, ConnectError>;
}

/// A connection that HTTP is spoken over.
struct Speak;

impl Finish for Speak {
    type Made = Opened;

    async fn finish<S: Stream + 'static>(
        self,
        dialler: &Dialler<'_>,
        stream: S,
        peer: IpAddr,
    ) -> Result<Opened, ConnectError> {
        dialler.platform(stream, peer).await
    }
}

/// The bare stream, over TLS where the platform is.
struct Bare;

impl Finish for Bare {
    type Made = Box<dyn SocketStream>;

    async fn finish<S: Stream + 'static>(
        self,
        dialler: &Dialler<'_>,
        stream: S,
        _: IpAddr,
    ) -> Result<Self::Made, ConnectError> {
        let base = &dialler.channel.base;
        if !base.tls {
            return Ok(Box::new(stream));
        }
        let config = dialler.configs.for_sockets(dialler.channel)?;
        Ok(Box::new(tls(stream, &base.host, config).await?))
    }
}

impl Dialler<'_> {
    /// Opens a connection. Its own tasks run on this thread and end with it.
    ///
    /// # Errors
    /// See [`ConnectError`]; resolving, connecting, the proxy and TLS together are bounded by
    /// `timeouts.connect`.
    pub async fn open(&self) -> Result<Opened, ConnectError> {
        self.within_time(Speak).await
    }

    /// Opens a connection for a WebSocket, over which HTTP/1.1 is spoken first, whatever the channel's
    /// `http_versions`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn bare(&self) -> Result<Box<dyn SocketStream>, ConnectError> {
        self.within_time(Bare).await
    }

    async fn within_time<F: Finish>(&self, finish: F) -> Result<F::Made, ConnectError> {
        // On the heap: what waits for a connection is many times as large as what has one.
        let dial = Box::pin(self.dial(finish));
        timeout(self.channel.timeouts.connect, dial).await.unwrap_or(Err(ConnectError::Timeout))
    }

    async fn dial<F: Finish>(&self, finish: F) -> Result<F::Made, ConnectError> {
        let base = &self.channel.base;
        let mut tcp = match (self.tcp().await, self.route) {
            (Err(error), Route::Proxy(_)) => return Err(ConnectError::ProxyUnreachable(Box::new(error))),
            (tcp, _) => tcp?,
        };
        let peer = tcp.peer_addr().map_err(ConnectError::tcp)?.ip().to_canonical();
        let Route::Proxy(proxy) = self.route else { return finish.finish(self, tcp, peer).await };
        match proxy.scheme {
            ProxyScheme::Http => tunnel::connect(&mut tcp, proxy, base).await?,
            ProxyScheme::Https => {
                let config = self.configs.for_proxy(self.channel.ca_pem.as_ref())?;
                let tls = tls(tcp, &proxy.host, config).await;
                let mut tls = tls.map_err(|error| ConnectError::ProxyUnreachable(Box::new(error)))?;
                tunnel::connect(&mut tls, proxy, base).await?;
                return finish.finish(self, Box::new(tls) as Box<dyn Stream>, peer).await;
            }
            ProxyScheme::Socks5 | ProxyScheme::Socks5h => {
                let to = self.destination(proxy).await?;
                tunnel::socks5(&mut tcp, proxy, to, base.port).await?;
            }
        }
        finish.finish(self, tcp, peer).await
    }

    async fn tcp(&self) -> Result<TcpStream, ConnectError> {
        let (host, port) = self.route.first_hop(&self.channel.base);
        let found = addresses(self.channel, host, self.resolver).await?;
        let tcp = race::connect(&found, port).await.map_err(ConnectError::tcp)?;
        tcp.set_nodelay(true).map_err(ConnectError::tcp)?;
        Ok(tcp)
    }

    /// What a SOCKS proxy is asked for: an address where the configuration or the scheme says so.
    async fn destination(&self, proxy: &EgressProxy) -> Result<Destination<'_>, ConnectError> {
        let host = &self.channel.base.host;
        if let Some(given) = self.channel.reach.addresses_of(host).and_then(<[IpAddr]>::first) {
            return Ok(Destination::Address(*given));
        }
        if let Ok(address) = host.parse() {
            return Ok(Destination::Address(address));
        }
        if proxy.scheme == ProxyScheme::Socks5h {
            return Ok(Destination::Name(host));
        }
        let found = self.resolver.lookup(host).await.map_err(ConnectError::Resolve)?;
        found.first().copied().map(Destination::Address).ok_or_else(|| {
            ConnectError::Resolve(Arc::new(io::Error::new(io::ErrorKind::NotFound, "no address")))
        })
    }

    /// Speaks with the platform, over whatever leads there.
    async fn platform<S: Stream + 'static>(&self, stream: S, peer: IpAddr) -> Result<Opened, ConnectError> {
        let base = &self.channel.base;
        let reach = &self.channel.reach;
        if !base.tls {
            return self.speak(stream, peer, reach.may_be_h2(false)).await;
        }
        let versions = reach.versions(true);
        let config = self.configs.get(self.channel)?;
        let stream = tls(stream, &base.host, config).await?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if !h2 && !versions.contains(&HttpVersion::H1) {
            return Err(ConnectError::Version);
        }
        self.speak(stream, peer, h2).await
    }

    async fn speak<S: Stream + 'static>(
        &self,
        stream: S,
        peer: IpAddr,
        h2: bool,
    ) -> Result<Opened, ConnectError> {
        if h2 {
            let shared = Shared::open(stream, peer, self.streams, self.channel.pool.ping).await;
            return shared.map(Opened::Many).map_err(|error| ConnectError::Preface(Arc::new(error)));
        }
        // One flat write for head and body is cheaper than a vectored one at the sizes seen here.
        let (sender, connection) = http1::Builder::new()
            .writev(false)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ConnectError::Preface(Arc::new(error)))?;
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Ok(Opened::One(Conn { sender, peer, task: task.abort_handle() }))
    }
}

/// A host's addresses: what the channel gives for it, else what the system finds.
pub(crate) async fn addresses(
    channel: &Channel,
    host: &str,
    resolver: &Resolver,
) -> Result<Rc<[IpAddr]>, ConnectError> {
    match channel.reach.addresses_of(host) {
        Some(given) => Ok(given.into()),
        None => resolver.lookup(host).await.map_err(ConnectError::Resolve),
    }
}

async fn tls<S: Stream>(
    stream: S,
    host: &str,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<S>, ConnectError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| ConnectError::tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    TlsConnector::from(config).connect(name, stream).await.map_err(ConnectError::tls)
}
