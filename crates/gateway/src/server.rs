//! Threads, shutdown.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use aiproxy_core::ports::UsageSink;
use aiproxy_registry::Registry;
use aiproxy_registry::owned::OwnedObjects;
use aiproxy_upstream::tls::TlsConfigs;
use aiproxy_upstream::{Pool, ReplayBudget};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet, spawn_local};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::connection::{self, Connections, Permit};
use crate::listen;
use crate::phases::Core;

/// After an accept error (no file descriptors, usually) the thread waits before it tries again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often connections are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Refusals under way per thread; beyond, connections are closed without a word.
const REFUSALS: usize = 64;

/// What a server needs.
#[derive(Clone)]
pub struct Options {
    /// What may be and what is.
    pub registry: Arc<Registry>,
    /// Who made what at the platforms.
    pub objects: Arc<OwnedObjects>,
    /// Where usage events go.
    pub sink: Arc<dyn UsageSink>,
    /// Plain HTTP listeners; port 0 takes a free one.
    pub http: Vec<SocketAddr>,
    /// Threads; `None` is one per core.
    pub workers: Option<usize>,
}

/// A running gateway. Dropping it shuts it down.
#[derive(Debug)]
pub struct Server {
    http: Vec<SocketAddr>,
    draining: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
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
        let mut per_thread: Vec<Vec<StdListener>> = (0..workers).map(|_| Vec::new()).collect();
        let mut http = Vec::new();
        for address in &options.http {
            let sockets = listen::bind(*address, workers).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
            })?;
            http.extend(sockets.first().map(StdListener::local_addr).transpose()?);
            per_thread.iter_mut().zip(sockets).for_each(|(thread, socket)| thread.push(socket));
        }
        let configs = Arc::new(TlsConfigs::default());
        let replay = Arc::<ReplayBudget>::default();
        let (draining, _) = watch::channel(false);
        let mut threads = Vec::with_capacity(workers);
        for (index, sockets) in per_thread.into_iter().enumerate() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let options = options.clone();
            let configs = Arc::clone(&configs);
            let replay = Arc::clone(&replay);
            let draining = draining.subscribe();
            let thread = std::thread::Builder::new().name(format!("relay-{index}")).spawn(move || {
                let pool = Pool::new(configs);
                let core = Rc::new(Core {
                    registry: options.registry,
                    objects: options.objects,
                    pool,
                    sink: options.sink,
                    replay,
                });
                LocalSet::new().block_on(&runtime, run(core, sockets, draining));
            })?;
            threads.push(thread);
        }
        Ok(Self { http, draining, threads })
    }

    /// Where plain HTTP is served, ports resolved.
    #[must_use]
    pub fn http(&self) -> &[SocketAddr] {
        &self.http
    }

    /// Stops accepting, lets requests in flight finish within `drain.timeout`, and ends.
    pub fn shutdown(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.draining.send_replace(true);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.finish();
    }
}

/// One thread's life.
async fn run(core: Rc<Core>, sockets: Vec<StdListener>, mut draining: watch::Receiver<bool>) {
    let connections = Rc::<Connections>::default();
    let ticker = spawn_local(tick(Rc::clone(&core), Rc::clone(&connections)));
    let mut acceptors = JoinSet::new();
    for socket in sockets {
        match TcpListener::from_std(socket) {
            Ok(listener) => {
                let accepting = accept(Rc::clone(&core), Rc::clone(&connections), listener, draining.clone());
                acceptors.spawn_local(accepting);
            }
            Err(error) => tracing::error!(%error, "a listener cannot be used"),
        }
    }
    let _ = draining.wait_for(|draining| *draining).await;
    // The accept sockets close here; connections in flight go on.
    acceptors.shutdown().await;
    let end = Instant::now() + core.registry.snapshot().system.drain.timeout;
    while connections.len() > 0 && Instant::now() < end {
        sleep_until(end.min(Instant::now() + Duration::from_millis(20))).await;
    }
    if connections.len() > 0 {
        tracing::warn!(connections = connections.len(), "the drain time is over; closing connections");
    }
    ticker.abort();
}

async fn tick(core: Rc<Core>, connections: Rc<Connections>) {
    let mut interval = interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        connections.tick(&core.registry.snapshot().system.limits);
        core.pool.sweep();
    }
}

async fn accept(
    core: Rc<Core>,
    connections: Rc<Connections>,
    listener: TcpListener,
    draining: watch::Receiver<bool>,
) {
    let mut refusals = JoinSet::new();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while refusals.try_join_next().is_some() {}
        let system = &core.registry.snapshot().system;
        let Some(permit) = Permit::take(&core.registry, system.max_connections) else {
            if refusals.len() < REFUSALS {
                refusals.spawn_local(connection::refuse(stream));
            }
            continue;
        };
        prepare(&stream);
        let serving = connection::serve(
            Rc::clone(&core),
            Rc::clone(&connections),
            stream,
            peer,
            system.limits,
            draining.clone(),
        );
        spawn_local(async move {
            serving.await;
            drop(permit);
        });
    }
}

/// Small answers leave at once; callers that vanished without a word are noticed.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}
