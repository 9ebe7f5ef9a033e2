//! One caller's connection, once it is known what is spoken: requests until either side has enough.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use aiproxy_config::model::Limits;
use bytes::Bytes;
use http::header::ALT_SVC;
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::activity::{Activity, Doing, UnderWay, WRITE_STALL};
use crate::phases::{self, Core, Via};
use crate::relayed::{AnswerBody, BrokenOff};
use crate::socket::Stream;
use crate::watched::Watched;

/// After the last answer, a caller that is still sending is read for so long, so that it gets to
/// read the answer: closing a socket with unread bytes resets the connection and takes the
/// answer with it (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(30);
/// Over HTTP/2 the last word is read before what comes after it.
const LINGER_HTTP2: Duration = Duration::from_secs(2);
/// The longest silence meanwhile.
const LINGER_SILENCE: Duration = Duration::from_secs(2);

/// Bytes of one upload that may wait over HTTP/2 for the platform to take them.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes of one answer that may wait over HTTP/2 for the caller to take them.
const SEND_BUFFER: usize = 64 * 1024;
/// Requests of one HTTP/2 connection that were reset before they were looked at.
const RESET_EARLY: usize = 20;
/// Requests of one HTTP/2 connection that were malformed, over its life.
const MALFORMED: usize = 256;
/// How long a silent HTTP/2 connection is left alone before it is asked for a sign of life; with
/// [`PONG`], as long as a caller may take nothing.
const PING: Duration = WRITE_STALL.saturating_sub(PONG);
const PONG: Duration = Duration::from_secs(60);

/// Who is at the other end, and how it got here.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// The peer's address, or the one that a PROXY protocol header names.
    pub(crate) address: SocketAddr,
    /// Whether that is somebody: a PROXY protocol header may name nobody.
    pub(crate) named: bool,
    /// Over TLS.
    pub(crate) tls: bool,
    /// Where HTTP/3 is to be had, which each answer says.
    pub(crate) alt_svc: Option<HeaderValue>,
}

/// What goes on over a connection after its last request: a WebSocket.
pub(crate) type Session = Pin<Box<dyn Future<Output = ()>>>;

/// Serves requests until either side has enough, a limit is passed, or `draining` turns true; or until
/// the connection changes hands.
pub(crate) async fn serve(
    core: Rc<Core>,
    activity: Rc<Activity>,
    stream: Stream,
    peer: Peer,
    limits: Limits,
    mut draining: watch::Receiver<bool>,
) -> Option<Session> {
    let watched = TokioIo::new(Watched::new(stream, Rc::clone(&activity), core.registry.clone()));
    let drained = if activity.shared.get() {
        let service = {
            let activity = Rc::clone(&activity);
            let peer = peer.clone();
            service_fn(move |request| answer(&core, &activity, &peer, request))
        };
        let mut builder = http2::Builder::new(Tasks(Rc::clone(&activity)));
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_per_connection)
            .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(connection_window(limits.streams_per_connection))
            .max_send_buf_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(RESET_EARLY)
            .max_local_error_reset_streams(MALFORMED)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG);
        let connection = pin!(builder.serve_connection(watched, service));
        let retire = http2::Connection::graceful_shutdown;
        drive(connection, retire, &activity, peer.address, &mut draining).await
    } else {
        let service = {
            let (core, activity) = (Rc::clone(&core), Rc::clone(&activity));
            let peer = peer.clone();
            service_fn(move |request| answer(&core, &activity, &peer, request))
        };
        let mut builder = http1::Builder::new();
        // One flat write for head and body is cheaper than a vectored one at the sizes seen here.
        builder.writev(false).max_buf_size(limits.header_bytes.max(8 * 1024)).max_headers(limits.headers);
        let mut connection = builder.serve_connection(watched, service);
        let retire = http1::Connection::graceful_shutdown;
        let drained = drive(Pin::new(&mut connection), retire, &activity, peer.address, &mut draining).await;
        if let (Some(switch), Some(_)) = (activity.switch.take(), drained) {
            // hyper has written the 101 and lets go of the stream.
            let parts = connection.into_parts();
            let stream = parts.io.into_inner().into_stream();
            return Some(switch.run(core, stream, parts.read_buf));
        }
        drained
    };
    let drained = drained?;
    let leftover = activity.leftover.take();
    if let Some(socket) = leftover.filter(|_| !drained) {
        let longest = if activity.shared.get() { LINGER_HTTP2 } else { LINGER };
        tokio::select! {
            _ = timeout(longest, linger(socket)) => {}
            _ = draining.wait_for(|draining| *draining) => {}
        }
    }
    None
}

/// Drives a connection to its end; `None` where it was cut, else whether the process ends.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    retire: impl Fn(Pin<&mut C>),
    activity: &Activity,
    peer: SocketAddr,
    draining: &mut watch::Receiver<bool>,
) -> Option<bool> {
    let mut drained = false;
    loop {
        tokio::select! {
            biased;
            outcome = connection.as_mut() => {
                if let Err(error) = outcome {
                    tracing::debug!(%peer, %error, "connection ended");
                }
                return Some(drained);
            }
            () = activity.cut.notified() => {
                tracing::debug!(%peer, doing = ?activity.doing.get(), "connection took too long");
                activity.head_late.set(activity.doing.get() == Doing::Head);
                return None;
            }
            () = activity.retire.notified() => retire(connection.as_mut()),
            _ = draining.wait_for(|draining| *draining), if !drained => {
                drained = true;
                activity.retiring();
                retire(connection.as_mut());
            }
        }
    }
}

/// Room for every upload's window, so that those which wait for their platform hold up no other. h2
/// bounds small frames that wait by it as well.
fn connection_window(streams: u32) -> u32 {
    STREAM_WINDOW.saturating_mul(streams).clamp(1 << 20, (1 << 31) - 1)
}

/// One request. All that must be noted at once is noted before the future is first polled.
fn answer(
    core: &Rc<Core>,
    activity: &Rc<Activity>,
    peer: &Peer,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Tracked>, Infallible>> + use<> {
    let mut under_way = activity.begin(&core.registry);
    let core = Rc::clone(core);
    let activity = Rc::clone(activity);
    let Peer { address, named, tls, alt_svc } = peer.clone();
    async move {
        let via = Via { peer: address, proven: address.ip(), named, tls, before: under_way.before };
        let handled = phases::handle(&core, via, request.map(Into::into));
        // Over HTTP/2 each request has a task, whose room for this would be kept until the answer's end.
        let mut response = if activity.shared.get() { Box::pin(handled).await } else { handled.await };
        if let Some(alt_svc) = alt_svc {
            response.headers_mut().insert(ALT_SVC, alt_svc);
        }
        if let Some(mut switch) = response.body_mut().take_switch() {
            switch.under_way = Some(under_way);
            *activity.switch.borrow_mut() = Some(switch);
            return Ok(response.map(|body| Tracked { body, under_way: None }));
        }
        under_way.answers(response.body().live());
        Ok(response.map(|body| Tracked { body, under_way: Some(under_way) }))
    }
}

/// Starts the tasks that serve the requests of one HTTP/2 connection.
#[derive(Clone)]
struct Tasks(Rc<Activity>);

impl<F: Future + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        let task = spawn_local(async move {
            let _ = future.await;
        });
        self.0.serves(task.abort_handle());
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

/// An answer's body, whose end is the request's.
struct Tracked {
    body: AnswerBody,
    /// None where it is a socket's.
    under_way: Option<UnderWay>,
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = &mut *self;
        let outcome = Pin::new(&mut this.body).poll_frame(cx);
        let Some(under_way) = &mut this.under_way else { return outcome };
        match &outcome {
            Poll::Pending => under_way.handed(None, false),
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                under_way.handed(Some(bytes), this.body.is_end_stream());
            }
            Poll::Ready(ended) => under_way.handed(None, ended.is_none()),
        }
        outcome
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
