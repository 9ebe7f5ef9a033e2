//! The listener, its connections, and their end.

use crate::calls::{Calls, SeenCall};
use crate::gates::Gates;
use crate::ids::Ids;
use crate::openai::{FileStore, ResponseStore};
use crate::pace::Reset;
use crate::route::{self, State};
use crate::seen::{Counters, Log, SeenRequest};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// How to start a [`Sandbox`].
#[derive(Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one. Default `127.0.0.1:0`.
    pub bind: SocketAddr,
    /// The one key that the platform accepts. Default `sk-sandbox-key`.
    pub api_key: String,
    /// Models besides [`crate::MODELS`].
    pub extra_models: Vec<String>,
    /// Bound of all stored files together, in bytes; uploads beyond it get 413. Default 512 MiB.
    pub max_file_bytes: u64,
    /// Bound of a call's duration. Default one hour.
    pub max_call: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            api_key: "sk-sandbox-key".to_owned(),
            extra_models: Vec::new(),
            max_file_bytes: 512 << 20,
            max_call: Duration::from_secs(3600),
        }
    }
}

/// Leaves the key out.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("bind", &self.bind)
            .field("extra_models", &self.extra_models)
            .field("max_file_bytes", &self.max_file_bytes)
            .field("max_call", &self.max_call)
            .finish_non_exhaustive()
    }
}

/// A running stand-in platform; it stops when dropped.
pub struct Sandbox {
    addr: SocketAddr,
    pub(crate) state: Arc<State>,
    accepting: JoinHandle<()>,
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Binds and starts to serve on the current tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be bound, or the system has no randomness to give.
    pub async fn start(options: Options) -> io::Result<Sandbox> {
        let listener = TcpListener::bind(options.bind).await?;
        let addr = listener.local_addr()?;
        let state = Arc::new(State {
            key: options.api_key,
            extra_models: options.extra_models,
            ids: Ids::new()?,
            log: Log::default(),
            gates: Gates::default(),
            files: FileStore::new(options.max_file_bytes),
            responses: ResponseStore::default(),
            calls: Calls::new(addr.ip(), options.max_call),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Sandbox { addr, state, accepting })
    }

    /// The bound address, port included.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:PORT`, without a path; a wildcard address shows as the loopback one.
    pub fn base_url(&self) -> String {
        let mut addr = self.addr;
        if addr.ip().is_unspecified() {
            addr.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        format!("http://{addr}")
    }

    /// The last 1000 requests, oldest first.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.state.log.snapshot()
    }

    /// Totals since the start.
    pub fn counters(&self) -> Counters {
        self.state.log.counters()
    }

    /// The last 300 calls, oldest first, those that go on among them.
    pub fn calls(&self) -> Vec<SeenCall> {
        self.state.calls.snapshot()
    }

    /// Opens a gate that `hold=` waits at, now and for later requests.
    pub fn release(&self, gate: &str) {
        self.state.gates.release(gate);
    }

    /// Stops at once; returns when every connection is closed and every call has ended.
    pub async fn shutdown(mut self) {
        self.accepting.abort();
        // The error is the cancellation that was just asked for.
        let _ = (&mut self.accepting).await;
        self.state.calls.end_all();
        self.state.calls.ended().await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.accepting.abort();
        self.state.calls.end_all();
    }
}

/// Owns all connections: when this future goes, they go.
async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&state)));
                }
                // Out of descriptors, most likely: give connections time to end.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    // Small chunks of a stream leave at once; a socket that refuses this works all the same.
    let _ = stream.set_nodelay(true);
    let reset = Reset::default();
    let socket = Socket { stream, reset: reset.clone() };
    let service = service_fn(move |request| {
        let (state, reset) = (Arc::clone(&state), reset.clone());
        // Boxed, so that a connection costs no more than its endpoint needs.
        Box::pin(async move { route::serve(&state, reset, request).await })
    });
    // An error here is the peer's end (or a scenario's cut); the record already says so.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).with_upgrades().await;
}

/// A stream that ends with a reset when a scenario asks for it.
struct Socket {
    stream: TcpStream,
    reset: Reset,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.demanded() {
            // With no time to linger the close below becomes a reset.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.demanded() {
            // A FIN would make it an orderly end.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
