//! Sockets, bounds, shutdown.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::api::caller::Peer;
use crate::api::tidy;
use crate::stall::Stalling;
use crate::{State, routes};

/// Bytes of a request head.
const HEAD_BYTES: usize = 16 * 1024;
/// Header fields.
const HEADERS: usize = 64;
/// After an accept error (no file descriptors, usually) the listener waits before it tries again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// For the last answer of a connection that has to end.
const LAST: Duration = Duration::from_secs(60);
/// How long answers under way may go on after [`Admin::shutdown`].
const DRAIN: Duration = Duration::from_secs(1);

/// What one client may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections at one time; the next wait in the kernel's queue.
    pub(crate) connections: usize,
    /// For a head, from the end of the answer before: idle connections end so.
    pub(crate) head: Duration,
    /// In which the other end has to take something of an answer.
    pub(crate) stall: Duration,
    /// Of one connection; the answer under way is finished.
    pub(crate) life: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(30),
            stall: Duration::from_secs(10),
            life: Duration::from_secs(300),
        }
    }
}

/// A running admin listener. Dropping it closes it at once.
#[derive(Debug)]
pub struct Admin {
    addresses: Vec<SocketAddr>,
    stopping: watch::Sender<bool>,
    listeners: JoinSet<()>,
}

impl Admin {
    /// Binds the addresses and serves on the current runtime; port 0 takes a free one.
    ///
    /// # Errors
    /// When an address cannot be bound; the message names it.
    pub async fn start(addresses: &[SocketAddr], state: State) -> io::Result<Self> {
        Self::bounded(addresses, state, Bounds::default()).await
    }

    pub(crate) async fn bounded(addresses: &[SocketAddr], state: State, bounds: Bounds) -> io::Result<Self> {
        let state = Arc::new(state);
        let router = routes::router(Arc::clone(&state));
        let places = Arc::new(Semaphore::new(bounds.connections));
        let (stopping, stop) = watch::channel(false);
        let mut admin = Self { addresses: Vec::new(), stopping, listeners: JoinSet::new() };
        for address in addresses {
            let listener = TcpListener::bind(address).await.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {address} (admin): {error}"))
            })?;
            let address = listener.local_addr()?;
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "whoever reaches the admin listener reads channels and metrics, and logins go over it unsealed unless a proxy before it speaks TLS");
            }
            admin.addresses.push(address);
            admin.listeners.spawn(accept(
                listener,
                router.clone(),
                Arc::clone(&places),
                stop.clone(),
                bounds,
            ));
        }
        let mut stop = stop;
        admin.listeners.spawn(async move {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = tidy::run(state) => {}
            }
        });
        Ok(admin)
    }

    /// Where it listens, ports resolved.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Closes the listeners, lets answers under way finish within a second, and ends. To be called
    /// last, so that `/readyz` says that the process drains as long as it does.
    pub async fn shutdown(mut self) {
        self.stopping.send_replace(true);
        while self.listeners.join_next().await.is_some() {}
    }
}

async fn accept(
    listener: TcpListener,
    router: Router,
    places: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
    bounds: Bounds,
) {
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            next = next => next,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    serve(stream, peer, router, bounds, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an admin connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let _ = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
}

/// One connection: requests one after the other. A head, a body (see `api::auth`), an answer that is
/// not taken and the whole connection are each bounded in time.
async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    bounds: Bounds,
    mut stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        router.call(request)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.head)
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEADERS)
            .serve_connection(TokioIo::new(Stalling::new(stream, bounds.stall)), service)
    );
    let ended = tokio::select! {
        outcome = connection.as_mut() => Some(outcome),
        _ = stop.wait_for(|stop| *stop) => None,
        () = sleep(bounds.life) => None,
    };
    let outcome = match ended {
        Some(outcome) => Ok(outcome),
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST, connection).await
        }
    };
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "an admin connection failed"),
        Err(_) => tracing::debug!(%peer, "an admin connection took too long"),
    }
}
