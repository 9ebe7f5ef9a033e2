//! A platform that speaks HTTP/2 (or HTTP/1.1 by ALPN), over TLS, and does what the test says.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use crate::http1::Reader;
use crate::needles::Needles;
use crate::net;

/// What the platform is like.
#[derive(Debug, Clone)]
pub struct Manner {
    /// TLS, with what it offers in ALPN; plain HTTP/2 from the first byte without.
    pub tls: Option<Arc<ServerConfig>>,
    /// The streams that it allows on a connection.
    pub streams: Option<u32>,
    /// Where it listens.
    pub ip: IpAddr,
    /// The port; 0 is any.
    pub port: u16,
}

impl Default for Manner {
    fn default() -> Self {
        Self { tls: None, streams: None, ip: Ipv4Addr::LOCALHOST.into(), port: 0 }
    }
}

/// A scripted HTTP/2 platform. It stops when dropped, connections included.
#[derive(Debug)]
pub struct Platform {
    addr: SocketAddr,
    seen: Arc<Seen>,
    accepting: AbortHandle,
}

/// All that it was sent, after decryption.
#[derive(Debug, Clone, Default)]
pub struct Record(Arc<Mutex<Vec<u8>>>);

#[derive(Debug, Default)]
struct Seen {
    record: Record,
    connections: AtomicUsize,
    exchanges: AtomicUsize,
    ended: AtomicUsize,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// One request of a script.
pub struct Exchange {
    /// Number of the connection, from 0.
    pub connection: usize,
    /// Number of the request on its connection, from 0.
    pub number: usize,
    /// The request's head.
    pub head: http::request::Parts,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    closing: mpsc::Sender<()>,
    record: Record,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.head.method, self.head.uri)
    }
}

impl Record {
    /// Most bytes that are kept.
    const KEPT: usize = 8 << 20;

    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = Self::KEPT.saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn headers(&self, headers: &HeaderMap) {
        for (name, value) in headers {
            self.push(name.as_str().as_bytes());
            self.push(b": ");
            self.push(value.as_bytes());
            self.push(b"\n");
        }
    }

    /// The name of a secret that stands in it.
    pub(crate) fn holds(&self, needles: &Needles) -> Option<String> {
        needles.search(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether these bytes stand in it.
    #[must_use]
    pub fn contains(&self, bytes: &[u8]) -> bool {
        memchr::memmem::find(&self.0.lock().unwrap_or_else(PoisonError::into_inner), bytes).is_some()
    }
}

impl Platform {
    /// Listens and plays `script` for each request.
    ///
    /// # Panics
    /// When the port cannot be bound.
    pub async fn start<F, P>(manner: Manner, script: F) -> Self
    where
        F: Fn(Exchange) -> P + Send + Sync + 'static,
        P: Future<Output = ()> + Send + 'static,
    {
        let address = SocketAddr::new(manner.ip, manner.port);
        let listener = net::run(TcpListener::bind(address)).await.expect("a free port");
        let addr = listener.local_addr().expect("a bound socket");
        let seen = Arc::<Seen>::default();
        let (theirs, script) = (Arc::clone(&seen), Arc::new(script));
        let accepting = net::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let index = theirs.connections.fetch_add(1, Ordering::Relaxed);
                let serving = serve(stream, index, manner.clone(), Arc::clone(&theirs), Arc::clone(&script));
                let theirs_too = Arc::clone(&theirs);
                let task = tokio::spawn(async move {
                    serving.await;
                    theirs_too.ended.fetch_add(1, Ordering::Relaxed);
                });
                theirs.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task.abort_handle());
            }
        });
        Self { addr, seen, accepting: accepting.abort_handle() }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// Requests whose head has come so far.
    #[must_use]
    pub fn exchanges(&self) -> usize {
        self.seen.exchanges.load(Ordering::Relaxed)
    }

    /// Connections that have ended.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.seen.ended.load(Ordering::Relaxed)
    }

    /// All that it was sent.
    #[must_use]
    pub fn record(&self) -> Record {
        self.seen.record.clone()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.accepting.abort();
        let tasks = self.seen.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn serve<F, P>(stream: TcpStream, index: usize, manner: Manner, seen: Arc<Seen>, script: Arc<F>)
where
    F: Fn(Exchange) -> P + Send + Sync + 'static,
    P: Future<Output = ()> + Send + 'static,
{
    let _ = stream.set_nodelay(true);
    let Some(config) = manner.tls.clone() else {
        return multiplexed(stream, index, &manner, seen, script).await;
    };
    let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else { return };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        multiplexed(stream, index, &manner, seen, script).await;
    } else {
        one_by_one(stream, &seen).await;
    }
}

/// HTTP/1.1 has no script: each request gets a small answer.
async fn one_by_one(mut stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Seen) {
    let mut reader = Reader::new();
    while let Some(head) = reader.head(&mut stream).await {
        seen.exchanges.fetch_add(1, Ordering::Relaxed);
        seen.record.push(head.start.as_bytes());
        for (name, value) in &head.headers {
            seen.record.push(format!("\n{name}: {value}").as_bytes());
        }
        let Some((body, _)) = reader.body(&mut stream, head.framing(false)).await else { return };
        seen.record.push(&body);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nover http1";
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

async fn multiplexed<F, P>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    index: usize,
    manner: &Manner,
    seen: Arc<Seen>,
    script: Arc<F>,
) where
    F: Fn(Exchange) -> P + Send + Sync + 'static,
    P: Future<Output = ()> + Send + 'static,
{
    let mut builder = h2::server::Builder::new();
    if let Some(streams) = manner.streams {
        builder.max_concurrent_streams(streams);
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let (closing, mut close) = mpsc::channel(1);
    let mut number = 0;
    loop {
        tokio::select! {
            Some(()) = close.recv() => connection.graceful_shutdown(),
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                seen.exchanges.fetch_add(1, Ordering::Relaxed);
                let exchange = Exchange::new(request, respond, [index, number], closing.clone(), &seen.record);
                number += 1;
                tokio::spawn(script(exchange));
            }
        }
    }
}

impl Exchange {
    fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        [connection, number]: [usize; 2],
        closing: mpsc::Sender<()>,
        record: &Record,
    ) -> Self {
        let (head, body) = request.into_parts();
        record.push(format!("{} {}\n", head.method, head.uri).as_bytes());
        record.headers(&head.headers);
        Self { connection, number, head, body, respond, closing, record: record.clone() }
    }

    /// The path that is asked for.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The next piece of the body; `None` at its end, or when the relay has reset the stream.
    pub async fn piece(&mut self) -> Option<Bytes> {
        let bytes = self.body.data().await?.ok()?;
        let _ = self.body.flow_control().release_capacity(bytes.len());
        self.record.push(&bytes);
        Some(bytes)
    }

    /// The whole body.
    pub async fn body(&mut self) -> Bytes {
        let mut all = Vec::new();
        while let Some(piece) = self.piece().await {
            all.extend_from_slice(&piece);
        }
        all.into()
    }

    /// The trailers, once the body has been read.
    pub async fn trailers(&mut self) -> Option<HeaderMap> {
        let trailers = self.body.trailers().await.ok()??;
        self.record.headers(&trailers);
        Some(trailers)
    }

    /// Answers whole, after having read the request.
    pub async fn answer(mut self, status: u16, body: impl Into<Bytes>) {
        self.body().await;
        let mut stream = self.begin(status);
        let _ = stream.send_data(body.into(), true);
    }

    /// Begins an answer; the body is the script's.
    ///
    /// # Panics
    /// When the status is none.
    pub fn begin(&mut self, status: u16) -> Answering {
        self.begin_with(status, &[])
    }

    /// Begins an answer with these headers.
    ///
    /// # Panics
    /// When status or headers are none.
    pub fn begin_with(&mut self, status: u16, headers: &[(&'static str, &str)]) -> Answering {
        let mut head = Response::new(());
        for (name, value) in headers {
            head.headers_mut().insert(*name, value.parse().expect("a value"));
        }
        *head.status_mut() = http::StatusCode::from_u16(status).expect("a status");
        Answering(self.respond.send_response(head, false).ok())
    }

    /// Says that nothing was done about the request.
    pub fn refuse(mut self) {
        self.respond.send_reset(Reason::REFUSED_STREAM);
    }

    /// Ends the stream with an error.
    pub fn reset(mut self) {
        self.respond.send_reset(Reason::INTERNAL_ERROR);
    }

    /// Lets the connection end: no new requests, those under way go on.
    pub fn go_away(&self) {
        let _ = self.closing.try_send(());
    }

    /// Waits until the relay gives the request up.
    pub async fn given_up(&mut self) {
        let _ = std::future::poll_fn(|cx| self.respond.poll_reset(cx)).await;
    }
}

/// An answer's body under way.
pub struct Answering(Option<SendStream<Bytes>>);

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answering")
    }
}

impl Answering {
    /// Sends a piece as the relay takes it; false when it has given the stream up.
    pub async fn send(&mut self, mut bytes: Bytes) -> bool {
        let Some(stream) = &mut self.0 else { return false };
        while !bytes.is_empty() {
            stream.reserve_capacity(bytes.len());
            match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(room)) => {
                    let piece = bytes.split_to(room.min(bytes.len()));
                    if stream.send_data(piece, false).is_err() {
                        return false;
                    }
                }
                _ => return false,
            }
        }
        true
    }

    /// Sends the last piece at once.
    ///
    /// # Errors
    /// When the relay has given the stream up.
    pub fn send_data(&mut self, bytes: Bytes, end: bool) -> Result<(), h2::Error> {
        self.0.as_mut().map_or(Ok(()), |stream| stream.send_data(bytes, end))
    }

    /// Ends the body with trailers.
    pub fn trailers(mut self, trailers: HeaderMap) {
        if let Some(stream) = &mut self.0 {
            let _ = stream.send_trailers(trailers);
        }
    }

    /// Ends the stream with an error.
    pub fn reset(mut self) {
        if let Some(stream) = &mut self.0 {
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
    }

    /// Waits until the relay gives the stream up.
    pub async fn given_up(&mut self) {
        if let Some(stream) = &mut self.0 {
            let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
        }
    }
}
