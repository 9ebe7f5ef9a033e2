//! Sockets, bounds, shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::{State, routes};

/// Bytes of a request head.
const HEAD_BYTES: usize = 16 * 1024;
/// Header fields.
const HEADERS: usize = 64;
/// After an accept error (no file descriptors, usually) the listener waits before it tries again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long answers under way may go on after [`Admin::shutdown`].
const DRAIN: Duration = Duration::from_secs(1);

/// What one client may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections at one time; the next wait in the kernel's queue.
    pub(crate) connections: usize,
    /// From the accepted connection to the last byte taken: each serves one request.
    pub(crate) time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: 64, time: Duration::from_secs(10) }
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
        let router = routes::router(Arc::new(state));
        let places = Arc::new(Semaphore::new(bounds.connections));
        let (stopping, stop) = watch::channel(false);
        let mut admin = Self { addresses: Vec::new(), stopping, listeners: JoinSet::new() };
        for address in addresses {
            let listener = TcpListener::bind(address).await.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {address} (admin): {error}"))
            })?;
            let address = listener.local_addr()?;
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "whoever reaches the admin listener reads channels and metrics");
            }
            admin.addresses.push(address);
            admin.listeners.spawn(accept(
                listener,
                router.clone(),
                Arc::clone(&places),
                stop.clone(),
                bounds.time,
            ));
        }
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
    time: Duration,
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
                let router = router.clone();
                connections.spawn(async move {
                    if timeout(time, serve(stream, router)).await.is_err() {
                        tracing::debug!(%peer, "an admin connection took too long");
                    }
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

/// One request: with its own connection, one bound of time covers head, answer and slow readers.
async fn serve(stream: TcpStream, router: Router) {
    let _ = stream.set_nodelay(true);
    let outcome = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = outcome {
        tracing::debug!(%error, "an admin connection failed");
    }
}
