//! An HTTP/2 connection that requests share.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::Instant;

use crate::chance::chance;
use crate::empty_frames::WithoutEmpty;
use crate::request_body::RequestBody;

/// Streams that are open on one connection at the most, whatever the platform allows.
pub const MOST_STREAMS: usize = 128;
/// Streams that a platform is thought to take until it has said so (RFC 9113, section 6.5.2, asks for
/// no fewer).
pub const USUAL_STREAMS: usize = 100;

/// Bytes of an answer that are on their way without the caller having taken them.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The most there can be: callers who take nothing hold up nobody else. h2 bounds small frames that wait
/// by it as well, each by what it lacks to 256 bytes, and ends the connection beyond half of it.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// Bytes of a request that wait for the platform to take them.
const SEND_BUFFER: usize = 256 * 1024;
/// Bytes of an answer's headers.
const HEADERS: u32 = 64 * 1024;

/// How long a connection that refused a stream is left alone.
const REFUSED_REST: Duration = Duration::from_secs(1);

/// A connection, or its end. Dropping it closes it; while a request is under way, its [`Ticket`]
/// keeps it.
pub struct Shared {
    sender: SendRequest<RequestBody>,
    /// Streams that the platform allows now; 0 once the connection has ended.
    limit: Box<dyn Fn() -> usize>,
    open: Cell<usize>,
    used: Cell<bool>,
    retired: Cell<bool>,
    rests: Cell<Option<Instant>>,
    since: Cell<Instant>,
    /// The address that it leads to first.
    pub peer: IpAddr,
    /// From 0 to 1: which part of the idle time's play is taken from this one's.
    pub spread: f64,
    tasks: [Option<AbortHandle>; 2],
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({}, {} open)", self.peer, self.open.get())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tasks.iter().flatten().for_each(AbortHandle::abort);
    }
}

/// Runs a connection's tasks on this thread, and keeps the first, which owns the socket.
#[derive(Debug, Clone, Default)]
struct Local(Rc<RefCell<Option<AbortHandle>>>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        let handle = spawn_local(future).abort_handle();
        self.0.borrow_mut().get_or_insert(handle);
    }
}

impl Shared {
    /// Begins HTTP/2 on a stream that is known to speak it.
    ///
    /// # Errors
    /// When the preface cannot be sent.
    pub async fn open<S>(stream: S, peer: IpAddr, streams: usize, ping: Duration) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let local = Local::default();
        let (sender, connection) = Builder::new(local.clone())
            .timer(TokioTimer::new())
            .initial_max_send_streams(streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(HEADERS)
            .keep_alive_interval(ping)
            .keep_alive_timeout(ping)
            .handshake(TokioIo::new(WithoutEmpty::new(stream)))
            .await?;
        let connection = Rc::new(RefCell::new(Some(connection)));
        let watched = Rc::clone(&connection);
        let limit =
            move || watched.borrow().as_ref().map_or(0, |connection| connection.current_max_send_streams());
        let task = spawn_local(async move {
            let ended = poll_fn(|cx| {
                let mut slot = connection.borrow_mut();
                let Some(running) = slot.as_mut() else { return Poll::Ready(Ok(())) };
                let polled = Pin::new(running).poll(cx);
                if polled.is_ready() {
                    // What still waits in its queue is handed back.
                    *slot = None;
                }
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        let socket = local.0.borrow().clone();
        Ok(Self {
            sender,
            limit: Box::new(limit),
            open: Cell::new(0),
            used: Cell::new(false),
            retired: Cell::new(false),
            rests: Cell::new(None),
            since: Cell::new(Instant::now()),
            peer,
            spread: chance(),
            tasks: [Some(task.abort_handle()), socket],
        })
    }

    /// Streams that may be open at one time.
    #[must_use]
    pub fn capacity(&self) -> usize {
        (self.limit)().min(MOST_STREAMS)
    }

    /// Whether it takes one more request now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.is_over()
            && self.rests.get().is_none_or(|until| until <= Instant::now())
            && self.open.get() < self.capacity()
    }

    /// Whether it has room but refused a stream a moment ago.
    #[must_use]
    pub fn rests(&self) -> bool {
        !self.is_over()
            && self.rests.get().is_some_and(|until| until > Instant::now())
            && self.open.get() < self.capacity()
    }

    /// Whether it takes no more requests.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.retired.get() || self.sender.is_closed() || (self.limit)() == 0
    }

    /// Takes no more requests; those under way go on.
    pub fn retire(&self) {
        self.retired.set(true);
    }

    /// A stream was not taken: the next go elsewhere for a moment. Where the platform has told of
    /// a lower limit meanwhile, that is the reason, and the limit sees to it.
    pub fn refused(&self) {
        if self.open.get() <= self.capacity() {
            self.rests.set(Some(Instant::now() + REFUSED_REST));
        }
    }

    /// How long nobody has used it; `None` while somebody does.
    #[must_use]
    pub fn idle_for(&self) -> Option<Duration> {
        (self.open.get() == 0).then(|| self.since.get().elapsed())
    }
}

/// A request's place on a connection.
#[derive(Debug)]
pub struct Ticket {
    /// The connection.
    pub shared: Rc<Shared>,
    /// Whether a request had used it before.
    pub reused: bool,
    /// Whether it had refused another a moment ago.
    pub rested: bool,
}

impl Ticket {
    /// A place, whether there is room or not.
    #[must_use]
    pub fn on(shared: &Rc<Shared>) -> Self {
        shared.open.set(shared.open.get() + 1);
        Self { shared: Rc::clone(shared), reused: shared.used.replace(true), rested: shared.rests() }
    }

    /// Sends requests over the connection.
    #[must_use]
    pub fn sender(&self) -> SendRequest<RequestBody> {
        self.shared.sender.clone()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.open.set(self.shared.open.get() - 1);
        self.shared.since.set(Instant::now());
    }
}
