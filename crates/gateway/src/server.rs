//! Threads, shutdown.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use aiproxy_config::model::Limits;
use aiproxy_core::ports::{OwnUsage, UpgradeHandler, UsageSink};
use aiproxy_quic::endpoint::Endpoint;
use aiproxy_registry::Registry;
use aiproxy_registry::live;
use aiproxy_registry::owned::OwnedObjects;
use aiproxy_registry::status::TurnedAway;
use aiproxy_upstream::tls::TlsConfigs;
use aiproxy_upstream::{Pool, ReplayBudget};
use http::HeaderValue;
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet, LocalSet, spawn_local};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use crate::activity::Connections;
use crate::calls::Calls;
use crate::door::{self, Accepted, Doors, Permit};
use crate::endpoints::Endpoints;
use crate::listen::{self, Bound, Kind, Sockets};
use crate::phases::Core;
use crate::quic;
use crate::secrets::ClientSecrets;

/// After an accept error (no file descriptors, usually) the thread waits before it tries again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often connections are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long sockets have to close when the drain time is over.
const PARTING: Duration = Duration::from_millis(2500);
/// How long the last packets over QUIC may take.
const QUIET: Duration = Duration::from_millis(300);
/// Refusals under way per thread; beyond, connections are closed without a word.
const REFUSALS: usize = 64;

/// What a server needs.
#[derive(Clone)]
pub struct Options {
    /// What may be and what is.
    pub registry: Arc<Registry>,
    /// Who made what at the platforms.
    pub objects: Arc<OwnedObjects>,
    /// What opens client secrets, and which of them count.
    pub secrets: Arc<ClientSecrets>,
    /// Where usage events go.
    pub sink: Arc<dyn UsageSink>,
    /// Plain HTTP listeners; port 0 takes a free one.
    pub http: Vec<SocketAddr>,
    /// HTTPS listeners.
    pub https: Vec<SocketAddr>,
    /// HTTP/3 listeners, over UDP.
    pub quic: QuicListeners,
    /// The certificates of the HTTPS listeners.
    pub tls: Option<Arc<ServerConfig>>,
    /// Threads; `None` is one per core.
    pub workers: Option<usize>,
    /// Relays WebSockets; `None` refuses them.
    pub upgrades: Option<Arc<dyn UpgradeHandler>>,
    /// What WebRTC calls are made of, if they are served.
    pub calls: Option<Calls>,
    /// What users are told of their own use; `None` tells them nothing of it.
    pub own_usage: Option<Arc<dyn OwnUsage>>,
}

/// A running gateway. Dropping it shuts it down.
#[derive(Debug)]
pub struct Server {
    listening: watch::Sender<Vec<Arc<Bound>>>,
    draining: watch::Sender<bool>,
    doors: Arc<Doors>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    workers: usize,
}

/// Where HTTP/3 is served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuicListeners {
    /// At the addresses of the HTTPS listeners, and on their ports' numbers.
    pub like_https: bool,
    /// At these.
    pub at: Vec<SocketAddr>,
    /// The port that `Alt-Svc` names in place of the listener's own.
    pub advertise: Option<u16>,
}

impl Server {
    /// Binds the listeners and starts the threads.
    ///
    /// # Errors
    /// When a listener cannot be bound (the message names the address) or a thread not started.
    pub fn start(options: &Options) -> io::Result<Self> {
        let workers = options
            .workers
            .or_else(|| std::thread::available_parallelism().ok().map(std::num::NonZero::get))
            .unwrap_or(1);
        let (bound, _) = listen::open(&[], &options.http, &options.https, &options.quic, workers)?;
        let server = Self {
            listening: watch::channel(bound).0,
            draining: watch::channel(false).0,
            doors: Arc::default(),
            threads: Mutex::default(),
            workers,
        };
        server.doors.set_tls(options.tls.clone());
        server.advertise(options.quic.advertise);
        let configs = Arc::new(TlsConfigs::default());
        let replay = Arc::<ReplayBudget>::default();
        let endpoints = Arc::<Endpoints>::default();
        for index in 0..workers {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let options = options.clone();
            let configs = Arc::clone(&configs);
            let (replay, endpoints) = (Arc::clone(&replay), Arc::clone(&endpoints));
            let listening = server.listening.subscribe();
            let draining = server.draining.subscribe();
            let doors = Arc::clone(&server.doors);
            let thread = std::thread::Builder::new().name(format!("relay-{index}")).spawn(move || {
                let pool = Pool::new(configs);
                let core = Rc::new(Core {
                    registry: options.registry,
                    objects: options.objects,
                    secrets: options.secrets,
                    pool,
                    sink: options.sink,
                    replay,
                    endpoints,
                    upgrades: options.upgrades,
                    calls: options.calls,
                    own_usage: options.own_usage,
                    calls_here: Rc::default(),
                    unknown: Rc::default(),
                });
                LocalSet::new().block_on(&runtime, run(core, doors, index, listening, draining));
            })?;
            server.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(server)
    }

    /// Where plain HTTP is served, ports resolved.
    #[must_use]
    pub fn http(&self) -> Vec<SocketAddr> {
        self.at(Kind::Http)
    }

    /// Where HTTPS is served, ports resolved.
    #[must_use]
    pub fn https(&self) -> Vec<SocketAddr> {
        self.at(Kind::Https)
    }

    /// Where HTTP/3 is served, ports resolved.
    #[must_use]
    pub fn quic(&self) -> Vec<SocketAddr> {
        self.at(Kind::Quic)
    }

    fn at(&self, kind: Kind) -> Vec<SocketAddr> {
        self.listening.borrow().iter().filter(|bound| bound.kind == kind).map(|bound| bound.local).collect()
    }

    /// What HTTPS listeners say about HTTP/3 from now on: the port of the same number, where HTTP/3 is
    /// served there, else the first one.
    fn advertise(&self, port: Option<u16>) {
        let quic: Vec<u16> = self.quic().iter().map(SocketAddr::port).collect();
        let of = |https: u16| port.or_else(|| quic.iter().copied().find(|port| *port == https));
        let named = |https: u16| {
            let port = of(https).or_else(|| quic.first().copied())?;
            Some((https, HeaderValue::from_str(&format!("h3=\":{port}\"; ma=86400")).ok()?))
        };
        let ports =
            self.https().into_iter().map(|at| at.port()).filter(|_| !quic.is_empty()).filter_map(named);
        self.doors.set_alt_svc(ports.collect::<HashMap<_, _>>());
    }

    /// Handshakes use these certificates from now on; connections that are open stay.
    pub fn set_tls(&self, tls: Option<Arc<ServerConfig>>) {
        self.doors.set_tls(tls);
    }

    /// Whether there are certificates to use.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.doors.tls().is_some()
    }

    /// Listens on these addresses from now on. Listeners that stay are not touched; connections of those
    /// that go are served to their end. Returns the new listeners' addresses, ports resolved.
    ///
    /// # Errors
    /// When an address cannot be bound; then all stays as it was.
    pub fn relisten(
        &self,
        http: &[SocketAddr],
        https: &[SocketAddr],
        quic: &QuicListeners,
    ) -> io::Result<Vec<(SocketAddr, Kind)>> {
        if *self.draining.borrow() {
            return Ok(Vec::new());
        }
        let old = self.listening.borrow().clone();
        let (new, opened) = listen::open(&old, http, https, quic, self.workers)?;
        self.listening.send_replace(new);
        self.advertise(quic.advertise);
        Ok(opened)
    }

    /// Stops accepting, lets requests in flight finish within `drain.timeout`, and ends. Blocks.
    pub fn shutdown(&self) {
        self.draining.send_replace(true);
        self.listening.send_replace(Vec::new());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// One thread's life.
async fn run(
    core: Rc<Core>,
    doors: Arc<Doors>,
    index: usize,
    mut listening: watch::Receiver<Vec<Arc<Bound>>>,
    mut draining: watch::Receiver<bool>,
) {
    let connections = Rc::<Connections>::default();
    let ticker = spawn_local(tick(Rc::clone(&core), Rc::clone(&connections)));
    let mut acceptors: Vec<(Arc<Bound>, AbortHandle)> = Vec::new();
    let mut endpoints: Vec<(Arc<Bound>, Rc<Endpoint>)> = Vec::new();
    listening.mark_changed();
    loop {
        tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => break,
            changed = listening.changed() => if changed.is_err() { break },
        }
        let wanted = listening.borrow_and_update().clone();
        acceptors.retain(|(bound, acceptor)| {
            let stays = wanted.iter().any(|wanted| Arc::ptr_eq(wanted, bound));
            if !stays {
                acceptor.abort();
            }
            stays
        });
        // Connections hold what they need of theirs until they end, and the port with it.
        endpoints.retain(|(bound, _)| wanted.iter().any(|wanted| Arc::ptr_eq(wanted, bound)));
        for bound in wanted {
            if acceptors.iter().any(|(have, _)| Arc::ptr_eq(have, &bound)) {
                continue;
            }
            let (core, connections, doors) = (Rc::clone(&core), Rc::clone(&connections), Arc::clone(&doors));
            let draining = draining.clone();
            let limits = core.registry.snapshot().system.limits;
            let accepting = match &bound.sockets {
                Sockets::Tcp(sockets) => {
                    sockets[index].try_clone().and_then(TcpListener::from_std).map(|listener| {
                        let alt_svc = bound.local.port();
                        let listener = Listening { listener, tls: bound.kind == Kind::Https, port: alt_svc };
                        spawn_local(accept(core, connections, doors, listener, draining))
                    })
                }
                Sockets::Udp(listener) => endpoint(listener, index, &doors, &limits).map(|endpoint| {
                    let endpoint = Rc::new(endpoint);
                    endpoints.push((Arc::clone(&bound), Rc::clone(&endpoint)));
                    spawn_local(quic::accept(core, connections, doors, endpoint, draining))
                }),
            };
            match accepting {
                Ok(accepting) => acceptors.push((bound, accepting.abort_handle())),
                Err(error) => tracing::error!(address = %bound.local, %error, "a listener cannot be used"),
            }
        }
    }
    // The accept sockets close here; connections in flight go on.
    for (_, acceptor) in acceptors {
        acceptor.abort();
    }
    let end = Instant::now() + core.registry.snapshot().system.drain.timeout;
    let calls = &core.calls_here;
    while connections.len() + calls.get() > 0 && Instant::now() < end {
        sleep_until(end.min(Instant::now() + Duration::from_millis(20))).await;
    }
    // Sockets and calls never end by themselves: they are told, and get a moment to say it to both sides. A thread
    // that has none left has nothing to say to those of others.
    if connections.len() + calls.get() > 0 {
        let sessions = core.registry.live.list().into_iter().filter(|live| live.kind != live::Kind::Http);
        sessions.for_each(|live| live.retire());
        let end = Instant::now() + PARTING;
        while connections.len() + calls.get() > 0 && Instant::now() < end {
            sleep(Duration::from_millis(20)).await;
        }
    }
    if connections.len() > 0 {
        tracing::warn!(connections = connections.len(), "the drain time is over; closing connections");
    }
    ticker.abort();
    // What closes connections may still be on its way.
    let quiet = async {
        for (_, endpoint) in &endpoints {
            endpoint.close();
            endpoint.quiet().await;
        }
        core.pool.part().await;
    };
    let _ = timeout(QUIET, quiet).await;
}

fn endpoint(
    listener: &aiproxy_quic::endpoint::Listener,
    thread: usize,
    doors: &Doors,
    limits: &Limits,
) -> io::Result<Endpoint> {
    let secure = doors.secure(limits).ok_or_else(|| io::Error::other("there is no certificate"))?;
    listener.endpoint(thread, &secure)
}

/// An accept socket, and what it is for.
struct Listening {
    listener: TcpListener,
    tls: bool,
    port: u16,
}

async fn tick(core: Rc<Core>, connections: Rc<Connections>) {
    let mut interval = interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let snapshot = core.registry.snapshot();
        connections.tick(&snapshot.system.limits);
        core.pool.sweep();
        core.pool.keep(&snapshot.channels);
    }
}

async fn accept(
    core: Rc<Core>,
    connections: Rc<Connections>,
    doors: Arc<Doors>,
    Listening { listener, tls, port }: Listening,
    draining: watch::Receiver<bool>,
) {
    let mut refusals = JoinSet::new();
    loop {
        let (tcp, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while refusals.try_join_next().is_some() {}
        let max_connections = core.registry.snapshot().system.max_connections;
        let Some(permit) = Permit::take(&core.registry, max_connections) else {
            core.registry.status.turn_away(TurnedAway::Connections);
            // Over TLS nothing can be said before a handshake, which is what is saved here.
            if !tls && refusals.len() < REFUSALS {
                refusals.spawn_local(door::refuse(tcp));
            }
            continue;
        };
        prepare(&tcp);
        let serving = door::receive(
            Rc::clone(&core),
            Rc::clone(&connections),
            Arc::clone(&doors),
            Accepted { tcp, peer, tls, alt_svc: doors.alt_svc(port) },
            permit,
            draining.clone(),
        );
        spawn_local(serving);
    }
}

/// Small answers leave at once; callers that vanished without a word are noticed.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}
