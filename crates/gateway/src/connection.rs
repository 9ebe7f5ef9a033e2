//! One caller's connection, with its time limits.
//!
//! Instead of arming a timer per connection and request, each connection notes what it is doing
//! and since when; a ticker of its thread looks at all of them once a second.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use aiproxy_config::model::Limits;
use aiproxy_registry::Registry;
use aiproxy_registry::live::Live;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::phases::{self, Core};
use crate::relayed::{AnswerBody, BrokenOff};

/// A caller that takes nothing for this long while bytes wait for it is gone.
const WRITE_STALL: Duration = Duration::from_secs(300);

/// After the last answer, a caller that is still sending is read for so long, so that it gets to
/// read the answer: closing a socket with unread bytes resets the connection and takes the
/// answer with it (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(30);
/// The longest silence meanwhile.
const LINGER_SILENCE: Duration = Duration::from_secs(2);

/// Sent, as far as the socket takes it at once, to callers whose head does not come.
const HEAD_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
/// Sent to callers beyond `max_connections`.
const OVERLOADED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: 122\r\nconnection: close\r\n\r\n{\"error\":{\"message\":\"AIProxy is at its limit. Try again shortly.\",\"type\":\"server_error\",\"param\":null,\"code\":\"overloaded\"}}";

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Between requests, nothing of the next one received.
    Idle,
    /// Receiving a head.
    Head,
    /// Serving a request.
    Request,
}

#[derive(Debug)]
struct Activity {
    doing: Cell<Doing>,
    since: Cell<Instant>,
    /// Since when the socket has refused bytes.
    stalled: Cell<Option<Instant>>,
    /// The answer under way.
    live: RefCell<Option<Arc<Live>>>,
    /// Whether the connection is closed because its head did not come.
    head_late: Cell<bool>,
    /// The socket, where hyper is done with it and the caller is not.
    leftover: RefCell<Option<OwnedFd>>,
    cut: Notify,
}

impl Activity {
    fn now(&self, doing: Doing) {
        self.doing.set(doing);
        self.since.set(Instant::now());
    }

    fn overdue(&self, limits: &Limits) -> bool {
        let limit = match self.doing.get() {
            // Bytes of the last answer are still on their way.
            Doing::Idle if self.stalled.get().is_some() => Duration::MAX,
            Doing::Idle => limits.keep_alive,
            Doing::Head => limits.header_timeout,
            Doing::Request => Duration::MAX,
        };
        self.since.get().elapsed() > limit
            || self.stalled.get().is_some_and(|since| since.elapsed() > WRITE_STALL || self.is_cut())
    }

    fn is_cut(&self) -> bool {
        self.live.borrow().as_ref().is_some_and(|live| live.is_cut().is_some())
    }
}

/// All connections of one thread.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    next: Cell<u64>,
    open: RefCell<HashMap<u64, Rc<Activity>>>,
}

impl Connections {
    /// Cuts those that take too long. Called once a second.
    pub(crate) fn tick(&self, limits: &Limits) {
        for activity in self.open.borrow().values().filter(|activity| activity.overdue(limits)) {
            activity.cut.notify_one();
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.open.borrow().len()
    }

    fn enter(self: &Rc<Self>) -> Entry {
        let id = self.next.get();
        self.next.set(id + 1);
        let activity = Rc::new(Activity {
            doing: Cell::new(Doing::Head),
            since: Cell::new(Instant::now()),
            stalled: Cell::new(None),
            live: RefCell::default(),
            head_late: Cell::new(false),
            leftover: RefCell::default(),
            cut: Notify::new(),
        });
        self.open.borrow_mut().insert(id, Rc::clone(&activity));
        Entry { id, activity, connections: Rc::clone(self) }
    }
}

struct Entry {
    id: u64,
    activity: Rc<Activity>,
    connections: Rc<Connections>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.open.borrow_mut().remove(&self.id);
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
        let _ = stream.write_all(OVERLOADED).await;
        let _ = stream.shutdown().await;
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await.is_ok_and(|bytes| bytes > 0) {}
    };
    let _ = timeout(Duration::from_millis(500), parting).await;
}

/// Serves requests until either side has enough, a limit is passed, or `draining` turns true.
pub(crate) async fn serve(
    core: Rc<Core>,
    connections: Rc<Connections>,
    stream: TcpStream,
    peer: SocketAddr,
    limits: Limits,
    mut draining: watch::Receiver<bool>,
) {
    let entry = connections.enter();
    let activity = Rc::clone(&entry.activity);
    let watched = Watched { stream, activity: Rc::clone(&activity), ended: false };
    let service = {
        let activity = Rc::clone(&activity);
        service_fn(move |request| {
            activity.now(Doing::Request);
            let core = Rc::clone(&core);
            let activity = Rc::clone(&activity);
            async move {
                let response = phases::handle(&core, peer, request).await;
                *activity.live.borrow_mut() = response.body().live();
                Ok::<_, Infallible>(response.map(|body| Tracked { body, activity }))
            }
        })
    };
    let mut builder = http1::Builder::new();
    // One flat write for head and body is cheaper than a vectored one at the sizes seen here.
    builder.writev(false).max_buf_size(limits.header_bytes.max(8 * 1024)).max_headers(limits.headers);
    let mut drained = false;
    {
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(watched), service));
        loop {
            tokio::select! {
                biased;
                outcome = connection.as_mut() => {
                    if let Err(error) = outcome {
                        tracing::debug!(%peer, %error, "connection ended");
                    }
                    break;
                }
                () = activity.cut.notified() => {
                    tracing::debug!(%peer, doing = ?activity.doing.get(), "connection took too long");
                    activity.head_late.set(activity.doing.get() == Doing::Head);
                    return;
                }
                _ = draining.wait_for(|draining| *draining), if !drained => {
                    drained = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
    let leftover = activity.leftover.take();
    if let Some(socket) = leftover.filter(|_| !drained) {
        tokio::select! {
            _ = timeout(LINGER, linger(socket)) => {}
            _ = draining.wait_for(|draining| *draining) => {}
        }
    }
}

/// Reads and throws away what a caller still sends.
async fn linger(socket: OwnedFd) -> io::Result<()> {
    let mut stream = TcpStream::from_std(std::net::TcpStream::from(socket))?;
    stream.shutdown().await?;
    let mut unread = vec![0; 16 * 1024];
    while matches!(timeout(LINGER_SILENCE, stream.read(&mut unread)).await, Ok(Ok(1..))) {}
    Ok(())
}

/// An answer's body whose end makes the connection idle again.
struct Tracked {
    body: AnswerBody,
    activity: Rc<Activity>,
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.activity.now(Doing::Idle);
        self.activity.live.take();
    }
}

/// A socket that notes what goes over it.
struct Watched {
    stream: TcpStream,
    activity: Rc<Activity>,
    /// The caller has closed, or its connection broke.
    ended: bool,
}

impl Watched {
    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        let stalled = match outcome {
            Poll::Pending => Some(self.activity.stalled.get().unwrap_or_else(Instant::now)),
            Poll::Ready(_) => None,
        };
        self.activity.stalled.set(stalled);
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = buf.filled().len() - before;
        if self.activity.doing.get() == Doing::Idle && bytes > 0 {
            self.activity.now(Doing::Head);
        }
        self.ended |= match &outcome {
            Poll::Ready(Ok(())) => bytes == 0 && buf.remaining() > 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        outcome
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(&outcome);
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.activity.head_late.get() {
            let _ = self.stream.try_write(HEAD_TIMEOUT);
        } else if !self.ended {
            *self.activity.leftover.borrow_mut() = self.stream.as_fd().try_clone_to_owned().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_overload_answer_is_whole() {
        let text = std::str::from_utf8(super::OVERLOADED).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let kind = aiproxy_core::ErrorKind::Overloaded;
        assert_eq!(body["error"]["code"], kind.code());
        assert_eq!(body["error"]["message"], kind.message());
    }
}
