//! A platform that does exactly what the test says.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::http1::{Head, Reader};
use crate::net;
use crate::wait::within;

/// A scripted TCP platform. It stops when dropped.
#[derive(Debug)]
pub struct RawUpstream {
    addr: SocketAddr,
    seen: Arc<Seen>,
    accepting: AbortHandle,
}

/// A request that was read whole.
#[derive(Debug, Clone)]
pub struct Received {
    /// Number of the connection that it came on, from 0.
    pub connection: usize,
    /// Head.
    pub head: Head,
    /// Body, chunks joined.
    pub body: Bytes,
    /// Trailers.
    pub trailers: Head,
}

impl Received {
    /// The request target.
    #[must_use]
    pub fn target(&self) -> &str {
        self.head.word(1)
    }

    /// A header's values, joined with `, `.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        self.head.get(name)
    }
}

#[derive(Debug)]
struct Seen {
    /// Exact bytes per connection.
    bytes: Mutex<Vec<Vec<u8>>>,
    received: watch::Sender<Vec<Received>>,
    ended: AtomicUsize,
}

impl RawUpstream {
    /// Accepts connections and plays `script` on each; it may look at [`Conn::index`].
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn start<F, P>(script: F) -> Self
    where
        F: Fn(Conn) -> P + Send + Sync + 'static,
        P: Future<Output = ()> + Send + 'static,
    {
        let seen = Arc::new(Seen {
            bytes: Mutex::default(),
            received: watch::channel(Vec::new()).0,
            ended: AtomicUsize::new(0),
        });
        let listener = net::run(TcpListener::bind(("127.0.0.1", 0))).await.expect("a free port");
        let addr = listener.local_addr().expect("a bound socket");
        let theirs = Arc::clone(&seen);
        let accepting = net::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let index = {
                    let mut bytes = lock(&theirs.bytes);
                    bytes.push(Vec::new());
                    bytes.len() - 1
                };
                let tapped = Recorded { stream, index, seen: Arc::clone(&theirs) };
                let playing = script(Conn { stream: tapped, reader: Reader::new() });
                let theirs = Arc::clone(&theirs);
                tokio::spawn(async move {
                    playing.await;
                    theirs.ended.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        Self { addr, seen, accepting: accepting.abort_handle() }
    }

    /// Answers every request with `answer`, exact bytes (of which a HEAD gets the head), and keeps
    /// connections open.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn answering(answer: impl AsRef<[u8]>) -> Self {
        let answer = Bytes::copy_from_slice(answer.as_ref());
        Self::start(move |mut conn| {
            let answer = answer.clone();
            async move {
                while let Some(request) = conn.request().await {
                    let end = match request.head.word(0) {
                        "HEAD" => memchr::memmem::find(&answer, b"\r\n\r\n").map_or(0, |at| at + 4),
                        _ => answer.len(),
                    };
                    conn.send(&answer[..end]).await;
                }
            }
        })
        .await
    }

    /// Answers every request with a small JSON body and keeps connections open: for tests that
    /// look at what arrived.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn recording() -> Self {
        Self::answering(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"ok\":true}",
        )
        .await
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.seen.bytes).len()
    }

    /// Connections whose script has come to its end.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.seen.ended.load(Ordering::Relaxed)
    }

    /// The exact bytes that came on a connection so far.
    #[must_use]
    pub fn bytes(&self, connection: usize) -> Vec<u8> {
        lock(&self.seen.bytes).get(connection).cloned().unwrap_or_default()
    }

    /// The requests that were read whole so far, in order.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.seen.received.borrow().clone()
    }

    /// The request with this number, from 0, once it has come.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn request(&self, number: usize) -> Received {
        let mut received = self.seen.received.subscribe();
        let all = within("a request at the platform", received.wait_for(|all| all.len() > number)).await;
        all.expect("the platform is alive")[number].clone()
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An address that refuses connections for as long as the socket lives.
///
/// # Panics
/// When no port can be bound.
#[must_use]
pub fn refusing() -> (SocketAddr, socket2::Socket) {
    // Bound, so that nobody else gets the port, and not listening.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let addr = socket.local_addr().expect("an address").as_socket().expect("an IP address");
    (addr, socket)
}

/// A listener whose queue of connections is full: who connects waits for the end of the handshake.
#[derive(Debug)]
pub struct Hanging {
    addr: SocketAddr,
    listener: socket2::Socket,
    /// What fills the queue.
    _queued: Vec<TcpStream>,
}

impl Hanging {
    /// Listens and fills its own queue.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn start() -> Self {
        let (addr, listener) = refusing();
        listener.listen(0).expect("a port to listen on");
        let mut queued = Vec::new();
        // The system says how many a queue of none takes; then it drops what else comes.
        while let Ok(Ok(stream)) = tokio::time::timeout(FULL, TcpStream::connect(addr)).await {
            queued.push(stream);
        }
        Self { addr, listener, _queued: queued }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether somebody is in the midst of connecting.
    ///
    /// # Panics
    /// Where there is no `/proc`.
    #[must_use]
    pub fn is_knocked_at(&self) -> bool {
        let sockets = std::fs::read_to_string("/proc/net/tcp").expect("the system's sockets");
        let port = format!(":{:04X}", self.addr.port());
        sockets.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(2);
            // Remote address, then state 2: SYN_SENT.
            fields.next().is_some_and(|remote| remote.ends_with(&port)) && fields.next() == Some("02")
        })
    }

    /// Takes what has come so far: the bytes that each connection sent.
    ///
    /// # Panics
    /// When the listener breaks.
    pub async fn taken(self) -> Vec<Bytes> {
        drop(self._queued);
        self.listener.set_nonblocking(true).expect("a socket that does not block");
        let listener = TcpListener::from_std(self.listener.into()).expect("a listener");
        let mut taken = Vec::new();
        while let Ok(Ok((mut stream, _))) = tokio::time::timeout(FULL, listener.accept()).await {
            taken.push(within("the end of a connection", Reader::new().rest(&mut stream)).await);
        }
        taken
    }
}

/// Connections on one machine are taken at once, or not at all.
const FULL: Duration = Duration::from_millis(200);

/// One connection of a script.
#[derive(Debug)]
pub struct Conn {
    stream: Recorded,
    reader: Reader,
}

impl Conn {
    /// Number of the connection, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.stream.index
    }

    /// Reads a request head; `None` when the relay closes.
    pub async fn head(&mut self) -> Option<Head> {
        self.reader.head(&mut self.stream).await
    }

    /// Reads a whole request and records it; `None` when the relay closes before its end.
    pub async fn request(&mut self) -> Option<Received> {
        let head = self.head().await?;
        self.body_of(head).await
    }

    /// Reads the body that belongs to a head and records the request.
    pub async fn body_of(&mut self, head: Head) -> Option<Received> {
        let (body, trailers) = self.reader.body(&mut self.stream, head.framing(false)).await?;
        let received = Received { connection: self.index(), head, body, trailers };
        self.stream.seen.received.send_modify(|all| all.push(received.clone()));
        Some(received)
    }

    /// Reads so many bytes, or fewer when the relay closes.
    pub async fn exact(&mut self, count: usize) -> Bytes {
        self.reader.exact(&mut self.stream, count).await
    }

    /// Writes these bytes; false when the relay has gone.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Waits until the relay closes; what it sends meanwhile is recorded and thrown away.
    pub async fn closed(&mut self) {
        self.reader.rest(&mut self.stream).await;
    }

    /// Sends nothing any more; the relay may go on.
    pub async fn half_close(&mut self) {
        let _ = self.stream.stream.shutdown().await;
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let _ = self.stream.stream.set_zero_linger();
    }
}

/// A stream that keeps what was read from it.
#[derive(Debug)]
struct Recorded {
    stream: TcpStream,
    index: usize,
    seen: Arc<Seen>,
}

/// Bytes kept per connection.
const KEPT: usize = 1 << 20;

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        let mut bytes = lock(&self.seen.bytes);
        let kept = &mut bytes[self.index];
        let fresh = &buf.filled()[before..];
        kept.extend_from_slice(&fresh[..fresh.len().min(KEPT - kept.len())]);
        outcome
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
