//! From an accepted socket to a connection of which it is known who is at its other end and what
//! is spoken: PROXY protocol header, places, TLS handshake, version of HTTP.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use aiproxy_config::model::{Limits, System};
use aiproxy_core::ErrorKind;
use aiproxy_quic::endpoint::{Secrets, Secure, ServerLimits};
use aiproxy_registry::Registry;
use aiproxy_registry::status::TurnedAway;
use aiproxy_routing::client_ip::within;
use bytes::{Buf as _, BytesMut};
use http::HeaderValue;
use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::activity::{Activity, Connections, Doing};
use crate::connection::{self, Peer};
use crate::per_ip::{self, PerIp};
use crate::phases::Core;
use crate::proxy_header::{self, Header};
use crate::refuse;
use crate::socket::{Socket, Stream};

/// A first request fits, mostly.
const FIRST_READ: usize = 4096;
/// A QUIC connection of which nothing is heard for so long is lost: its caller is asked in between.
const QUIC_IDLE: Duration = Duration::from_secs(60);
/// How HTTP/2 begins.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the listeners of all threads share.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    tls: RwLock<Option<Arc<ServerConfig>>>,
    /// What QUIC handshakes use, made of the certificates and limits beside it.
    quic: Mutex<Option<(Arc<ServerConfig>, ServerLimits, Secure)>>,
    quic_secrets: OnceLock<Option<Secrets>>,
    /// What listeners say about HTTP/3, by their port.
    alt_svc: RwLock<HashMap<u16, HeaderValue>>,
    handshakes: Mutex<Handshakes>,
    per_ip: Arc<PerIp>,
}

impl Doors {
    /// Handshakes use these certificates from now on.
    pub(crate) fn set_tls(&self, tls: Option<Arc<ServerConfig>>) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
    }

    /// What QUIC handshakes use now. Nothing where there are no certificates.
    pub(crate) fn secure(&self, limits: &Limits) -> Option<Secure> {
        let tls = self.tls()?;
        let limits = ServerLimits { streams: limits.streams_per_connection, idle: QUIC_IDLE };
        let mut quic = self.quic.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_of, within, secure)) = &*quic
            && Arc::ptr_eq(made_of, &tls)
            && *within == limits
        {
            return Some(secure.clone());
        }
        let secrets = self.quic_secrets.get_or_init(|| Secrets::new().ok()).as_ref()?;
        let secure = Secure::new(&tls, secrets, limits)
            .inspect_err(|error| tracing::error!(%error, "the certificates cannot be used for HTTP/3"))
            .ok()?;
        *quic = Some((tls, limits, secure.clone()));
        Some(secure)
    }

    /// Where HTTP/3 is to be had, as listeners on these ports say it.
    pub(crate) fn set_alt_svc(&self, ports: HashMap<u16, HeaderValue>) {
        *self.alt_svc.write().unwrap_or_else(PoisonError::into_inner) = ports;
    }

    /// What a listener on this port says about HTTP/3.
    pub(crate) fn alt_svc(&self, port: u16) -> Option<HeaderValue> {
        self.alt_svc.read().unwrap_or_else(PoisonError::into_inner).get(&port).cloned()
    }

    /// Handshakes under way.
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner).under_way.len()
    }

    /// The certificates of now.
    pub(crate) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Handshakes under way, of all threads together, by age.
#[derive(Debug, Default)]
struct Handshakes {
    next: u64,
    under_way: BTreeMap<u64, Arc<Notify>>,
}

/// A place among `limits.handshakes`. Where there is none left, the oldest one is given up: a handshake
/// takes a moment, unless its caller stalls it.
pub(crate) struct Handshake<'a> {
    doors: &'a Doors,
    number: u64,
    pub(crate) given_up: Arc<Notify>,
}

impl<'a> Handshake<'a> {
    pub(crate) fn take(doors: &'a Doors, max: usize) -> Self {
        let given_up = Arc::new(Notify::new());
        let mut handshakes = doors.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        while handshakes.under_way.len() >= max.max(1) {
            if let Some((_, oldest)) = handshakes.under_way.pop_first() {
                oldest.notify_one();
            }
        }
        let number = handshakes.next;
        handshakes.next += 1;
        handshakes.under_way.insert(number, Arc::clone(&given_up));
        Self { doors, number, given_up }
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        let mut handshakes = self.doors.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        handshakes.under_way.remove(&self.number);
    }
}

/// A place among `max_connections`, of all threads together.
pub(crate) struct Permit(Arc<Registry>);

impl Permit {
    pub(crate) fn take(registry: &Arc<Registry>, max: usize) -> Option<Self> {
        let permit = Self(Arc::clone(registry));
        let before = registry.status.connections.fetch_add(1, Ordering::Relaxed);
        // Dropping it gives the place back.
        (before < max).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.status.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Refuses a connection early and cheaply, and waits a moment for the caller to read it: closing
/// a socket with unread bytes resets the connection and can take the answer with it.
pub(crate) async fn refuse(mut stream: TcpStream) {
    let parting = async {
        let _ = stream.write_all(&refuse::bare(ErrorKind::Overloaded)).await;
        let _ = stream.shutdown().await;
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await.is_ok_and(|bytes| bytes > 0) {}
    };
    let _ = timeout(Duration::from_millis(500), parting).await;
}

/// A connection as it was accepted.
pub(crate) struct Accepted {
    pub(crate) tcp: TcpStream,
    pub(crate) peer: SocketAddr,
    /// On an HTTPS listener.
    pub(crate) tls: bool,
    /// Where HTTP/3 is to be had.
    pub(crate) alt_svc: Option<HeaderValue>,
}

/// Why a connection comes to no request.
enum Stop {
    /// It took too long.
    Late,
    /// The caller has gone.
    Closed,
    /// The process ends.
    Ending,
    /// It may not go on.
    Away(TurnedAway),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

/// Takes a connection from its first byte to its last.
pub(crate) async fn receive(
    core: Rc<Core>,
    connections: Rc<Connections>,
    doors: Arc<Doors>,
    accepted: Accepted,
    permit: Permit,
    mut draining: watch::Receiver<bool>,
) {
    let snapshot = core.registry.snapshot();
    let system = &snapshot.system;
    let limits = system.limits;
    let Accepted { tcp, peer, tls, alt_svc } = accepted;
    let entry = connections.enter(if system.proxy_protocol { Doing::Opening } else { Doing::Head });
    let activity = Rc::clone(&entry.activity);
    let mut socket = Socket::new(tcp);
    let stopped = |stop: &Stop| {
        if let Stop::Away(why) = stop {
            core.registry.status.turn_away(*why);
            tracing::debug!(%peer, why = why.as_str(), "connection turned away");
        }
    };
    let (mut address, mut named) = (peer, true);
    if system.proxy_protocol {
        let reading = proxy_header(&mut socket, peer, &system.trusted_proxies);
        match bounded(reading, &activity, &mut draining).await {
            Ok(caller) => {
                named = caller.is_some();
                address = caller.unwrap_or(peer);
            }
            Err(Stop::Late) => return stopped(&Stop::Away(TurnedAway::ProxyHeader)),
            Err(stop) => return stopped(&stop),
        }
    }
    let Ok(place) = place(&doors, address.ip(), system) else {
        stopped(&Stop::Away(TurnedAway::PerIp));
        if !tls {
            refuse(socket.tcp).await;
        }
        return;
    };
    drop(snapshot);
    let stream = if tls {
        activity.now(Doing::Handshake);
        match bounded(handshake(socket, &doors, &limits), &activity, &mut draining).await {
            Ok(stream) => stream,
            Err(Stop::Late) => return stopped(&Stop::Away(TurnedAway::Handshake)),
            Err(stop) => return stopped(&stop),
        }
    } else {
        activity.now(Doing::Head);
        match bounded(begins_http2(&mut socket), &activity, &mut draining).await {
            Ok(http2) => activity.shared.set(http2),
            Err(Stop::Late) => {
                let _ = socket.tcp.try_write(&refuse::bare(ErrorKind::RequestTimeout));
                return;
            }
            Err(stop) => return stopped(&stop),
        }
        Stream::Plain(socket)
    };
    if let Stream::Tls(stream) = &stream {
        activity.now(Doing::Head);
        activity.shared.set(stream.get_ref().1.alpn_protocol() == Some(b"h2"));
    }
    let alt_svc = alt_svc.filter(|_| tls);
    let peer = Peer { address, named, tls, alt_svc };
    let session = Box::pin(connection::serve(core, activity, stream, peer, limits, draining)).await;
    // A task has the size of all that it may be doing: a socket gets one of its own.
    if let Some(session) = session {
        spawn_local(async move {
            session.await;
            drop((entry, place, permit));
        });
    }
}

/// A stage before the first request: ends when it takes too long, or when the process ends.
async fn bounded<T>(
    stage: impl Future<Output = Result<T, Stop>>,
    activity: &Activity,
    draining: &mut watch::Receiver<bool>,
) -> Result<T, Stop> {
    tokio::select! {
        biased;
        outcome = stage => outcome,
        () = activity.cut.notified() => Err(Stop::Late),
        _ = draining.wait_for(|draining| *draining) => Err(Stop::Ending),
    }
}

/// Whom the header names; `None` where it names nobody. What was read beyond it is put back.
async fn proxy_header(
    socket: &mut Socket,
    peer: SocketAddr,
    trusted: &[IpNet],
) -> Result<Option<SocketAddr>, Stop> {
    if !within(trusted, peer.ip()) {
        return Err(Stop::Away(TurnedAway::ProxyHeader));
    }
    let mut bytes = BytesMut::with_capacity(256);
    loop {
        match proxy_header::parse(&bytes) {
            Header::Whole(length, caller) => {
                bytes.advance(length);
                socket.put_back(bytes);
                return Ok(caller);
            }
            Header::Bad => return Err(Stop::Away(TurnedAway::ProxyHeader)),
            Header::Partial if socket.tcp.read_buf(&mut bytes).await? == 0 => return Err(Stop::Closed),
            Header::Partial => {}
        }
    }
}

/// A place among those of the caller's address, where there is a limit. Proxies bring many callers.
pub(crate) fn place(doors: &Doors, address: IpAddr, system: &System) -> Result<Option<per_ip::Place>, ()> {
    match system.limits.connections_per_ip {
        Some(max) if !within(&system.trusted_proxies, address) => {
            doors.per_ip.take(address, max).map(Some).ok_or(())
        }
        _ => Ok(None),
    }
}

async fn handshake(socket: Socket, doors: &Doors, limits: &Limits) -> Result<Stream, Stop> {
    // Who says nothing takes no place among the handshakes.
    if !socket.has_ahead() {
        socket.tcp.readable().await?;
    }
    let place = Handshake::take(doors, limits.handshakes);
    let Some(config) = doors.tls() else { return Err(Stop::Away(TurnedAway::Handshake)) };
    let accepted = tokio::select! {
        biased;
        accepted = TlsAcceptor::from(config).accept(socket) => accepted,
        () = place.given_up.notified() => return Err(Stop::Away(TurnedAway::Handshakes)),
    };
    match accepted {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
        Err(error) => {
            tracing::debug!(%error, "TLS handshake failed");
            Err(Stop::Away(TurnedAway::Handshake))
        }
    }
}

/// Whether HTTP/2 is spoken without having been agreed on. What was read is put back.
async fn begins_http2(socket: &mut Socket) -> Result<bool, Stop> {
    let mut bytes = BytesMut::from(&*socket.take_ahead());
    loop {
        let same = bytes.iter().zip(PREFACE).take_while(|(have, want)| have == want).count();
        if same < bytes.len().min(PREFACE.len()) || same == PREFACE.len() {
            socket.put_back(bytes);
            return Ok(same == PREFACE.len());
        }
        bytes.reserve(FIRST_READ);
        if socket.tcp.read_buf(&mut bytes).await? == 0 {
            return Err(Stop::Closed);
        }
    }
}
