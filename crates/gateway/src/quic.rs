//! Callers over HTTP/3: the same requests by another door.
//!
//! Each thread has an endpoint of its own. What is special here: an address counts for nothing until its
//! owner has shown that it can be reached there; a connection may move; and each request is a stream
//! that its caller may leave alone.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

use aiproxy_core::ErrorKind;
use aiproxy_quic::endpoint::{Attempt, Endpoint};
use aiproxy_quic::message::{Gone, Sender, Stopped};
use aiproxy_quic::server::{Asked, Connection, Handle, Stream};
use aiproxy_quic::{Body as QuicBody, Code, HeadLimits};
use aiproxy_registry::status::TurnedAway;
use aiproxy_upstream::Incoming;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until};

use crate::activity::{Activity, Connections, Doing, OpenStream, UnderWay};
use crate::clock;
use crate::door::{self, Doors, Handshake, Permit};
use crate::phases::{self, Core, Via};
use crate::refuse;
use crate::relayed::AnswerBody;

/// From this part of `limits.handshakes` on, callers are asked to show that their address is theirs
/// before anything is kept of them.
const UNDER_LOAD: usize = 4;

/// Takes callers until the listener goes.
pub(crate) async fn accept(
    core: Rc<Core>,
    connections: Rc<Connections>,
    doors: Arc<Doors>,
    endpoint: Rc<Endpoint>,
    draining: watch::Receiver<bool>,
) {
    let _retires = Retires(Rc::clone(&endpoint));
    while let Some(attempt) = endpoint.accept().await {
        let snapshot = core.registry.snapshot();
        let Some(permit) = Permit::take(&core.registry, snapshot.system.max_connections) else {
            core.registry.status.turn_away(TurnedAway::Connections);
            attempt.refuse();
            continue;
        };
        let most = snapshot.system.limits.handshakes;
        if !attempt.is_proven() && doors.handshakes() >= (most / UNDER_LOAD).max(1) {
            attempt.ask_proof();
            continue;
        }
        let receiving = receive(
            Rc::clone(&core),
            Rc::clone(&connections),
            Arc::clone(&doors),
            attempt,
            permit,
            draining.clone(),
        );
        spawn_local(receiving);
    }
}

/// An endpoint takes nobody any more once nobody asks it who came.
struct Retires(Rc<Endpoint>);

impl Drop for Retires {
    fn drop(&mut self) {
        self.0.retire();
    }
}

/// Takes a connection from its first packet to its last.
async fn receive(
    core: Rc<Core>,
    connections: Rc<Connections>,
    doors: Arc<Doors>,
    attempt: Attempt,
    permit: Permit,
    mut draining: watch::Receiver<bool>,
) {
    let snapshot = core.registry.snapshot();
    let limits = snapshot.system.limits;
    let peer = attempt.peer();
    let entry = connections.enter(Doing::Handshake);
    let activity = Rc::clone(&entry.activity);
    activity.shared.set(true);
    let turned_away = |why: TurnedAway| {
        core.registry.status.turn_away(why);
        tracing::debug!(%peer, why = why.as_str(), "connection turned away");
    };
    let Some(secure) = doors.secure(&limits) else { return attempt.refuse() };
    let connection = {
        let place = Handshake::take(&doors, limits.handshakes);
        let heads = HeadLimits { bytes: limits.header_bytes, fields: limits.headers };
        tokio::select! {
            biased;
            connected = attempt.connect(&secure, heads) => match connected {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::debug!(%peer, %error, "QUIC handshake failed");
                    return turned_away(TurnedAway::Handshake);
                }
            },
            () = activity.cut.notified() => return turned_away(TurnedAway::Handshake),
            () = place.given_up.notified() => return turned_away(TurnedAway::Handshakes),
            _ = draining.wait_for(|draining| *draining) => return,
        }
    };
    // Only now is the address its own.
    let Ok(_place) = door::place(&doors, peer.ip(), &snapshot.system) else {
        connection.handle().close(Code::EXCESSIVE_LOAD);
        return turned_away(TurnedAway::PerIp);
    };
    drop(snapshot);
    activity.now(Doing::Idle);
    serve(core, activity, connection, peer, draining).await;
    drop((entry, permit));
}

/// Serves requests until either side has enough, a limit is passed, or `draining` turns true.
async fn serve(
    core: Rc<Core>,
    activity: Rc<Activity>,
    mut connection: Connection,
    proven: SocketAddr,
    mut draining: watch::Receiver<bool>,
) {
    let handle = connection.handle();
    let mut drained = false;
    // When requests begin to be refused, after it was said that no more are wanted.
    let mut refuses: Option<Instant> = None;
    loop {
        if handle.is_refusing() && activity.is_quiet() {
            return;
        }
        tokio::select! {
            biased;
            stream = connection.accept() => match stream {
                Some(stream) => {
                    let peer = Peers { proven, now: connection.peer() };
                    begin(&core, &activity, stream, peer);
                }
                None => {
                    if handle.is_flooded() {
                        core.registry.status.turn_away(TurnedAway::Flood);
                    }
                    return;
                }
            },
            () = activity.cut.notified() => {
                tracing::debug!(peer = %proven, doing = ?activity.doing.get(), "connection took too long");
                return;
            }
            () = activity.retire.notified() => refuses = refuses.or_else(|| Some(retire(&connection, &handle))),
            _ = draining.wait_for(|draining| *draining), if !drained => {
                drained = true;
                activity.retiring();
                refuses = refuses.or_else(|| Some(retire(&connection, &handle)));
            }
            () = wait_until(refuses), if refuses.is_some() && !handle.is_refusing() => connection.refuse(),
            () = activity.ended.notified(), if handle.is_refusing() => {}
        }
    }
}

async fn wait_until(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// Says that no more requests are wanted; those that the caller sent before it heard of it still come.
fn retire(connection: &Connection, handle: &Handle) -> Instant {
    if !handle.is_refusing() {
        connection.retire();
    }
    Instant::now() + connection.trip()
}

/// Where a caller is.
#[derive(Debug, Clone, Copy)]
struct Peers {
    /// Where it showed that it can be reached.
    proven: SocketAddr,
    /// Where its packets come from now.
    now: SocketAddr,
}

fn begin(core: &Rc<Core>, activity: &Rc<Activity>, stream: Stream, peer: Peers) {
    let open = activity.open();
    let noted = open.task();
    let task = spawn_local(request(Rc::clone(core), stream, peer, open));
    noted.is(task.abort_handle());
}

/// One request, until the caller has all of its answer.
async fn request(core: Rc<Core>, stream: Stream, peer: Peers, open: OpenStream) {
    let (request, mut sender) = match stream.head().await {
        Asked::Request(request, sender) => (request, sender),
        Asked::TooLarge(sender) => return too_large(sender).await,
        Asked::Nothing => return,
    };
    let under_way = open.begin(&core.registry);
    let mut stopped = pin!(sender.stopped());
    match answered(&core, *request, peer, &mut sender, stopped.as_mut(), under_way).await {
        Ok(()) => {
            // The connection may not close before this has come.
            stopped.await;
        }
        Err(Gone::Stopped(_)) => {
            if !open.worked() {
                sender.charge();
            }
            sender.reset(Code::REQUEST_CANCELLED);
        }
        Err(Gone::Closed(_)) => {}
    }
}

/// Serves a request. Where the caller leaves, everything about it is dropped.
async fn answered(
    core: &Core,
    request: Request<QuicBody>,
    peer: Peers,
    sender: &mut Sender,
    mut stopped: Pin<&mut impl Future<Output = Stopped>>,
    mut under_way: UnderWay,
) -> Result<(), Gone> {
    let via =
        Via { peer: peer.now, proven: peer.proven.ip(), named: true, tls: true, before: under_way.before };
    let bodiless = request.method() == Method::HEAD;
    // Room for this would be kept until the answer's end.
    let response = {
        let handled = Box::pin(phases::handle(core, via, request.map(Incoming::from)));
        tokio::select! {
            biased;
            // Who has left already costs no platform anything.
            left = stopped.as_mut() => return Err(left.into()),
            response = handled => response,
        }
    };
    under_way.answers(response.body().live());
    let (head, body) = response.into_parts();
    let mut headers = head.headers;
    complete(&mut headers, head.status, &body);
    sender.answer(head.status, &headers).await?;
    drop(headers);
    let mut body = pin!(body);
    while !bodiless && !body.is_end_stream() {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            left = stopped.as_mut() => return Err(left.into()),
        };
        match frame {
            None => break,
            Some(Err(_)) => {
                sender.reset(Code::INTERNAL_ERROR);
                return Ok(());
            }
            Some(Ok(frame)) => pass(frame, &body, sender, &mut under_way).await?,
        }
    }
    under_way.handed(None, true);
    sender.finish();
    Ok(())
}

async fn pass(
    frame: http_body::Frame<Bytes>,
    body: &AnswerBody,
    sender: &mut Sender,
    under_way: &mut UnderWay,
) -> Result<(), Gone> {
    match frame.into_data() {
        Ok(data) => {
            under_way.handed(Some(data.len()), body.is_end_stream());
            sender.data(data).await?;
        }
        Err(frame) => {
            under_way.handed(Some(0), body.is_end_stream());
            if let Ok(trailers) = frame.into_trailers() {
                sender.trailers(&trailers).await?;
            }
        }
    }
    under_way.handed(None, false);
    Ok(())
}

/// What hyper would add.
fn complete(headers: &mut HeaderMap, status: StatusCode, body: &AnswerBody) {
    if !headers.contains_key(DATE) {
        headers.insert(DATE, clock::date());
    }
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0 && !bodiless)
        && !headers.contains_key(CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// Answers a request of which nothing is known but that its head is too large.
async fn too_large(mut sender: Sender) {
    let mut stopped = pin!(sender.stopped());
    let body = Bytes::from(refuse::body_of(ErrorKind::HeadersTooLarge));
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(DATE, clock::date());
    let status = ErrorKind::HeadersTooLarge.status();
    let sent = async {
        sender.answer(status, response.headers()).await?;
        sender.data(body).await
    };
    if sent.await.is_ok() {
        sender.finish();
        stopped.as_mut().await;
    }
}
