//! The side of a connection that asks.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use tokio::task::{AbortHandle, spawn_local};

use crate::body::{Body, BodyError, Receiver};
use crate::code::Code;
use crate::frames::Part;
use crate::head::{self, HeadError, HeadLimits};
use crate::message::{Gone, Sender};
use crate::shared::Shared;
use crate::streams::{self, Side};

/// Heads of an answer that only announce the next one, at most.
const INTERIM: usize = 16;

/// Why a request got no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AskError {
    /// The other side has done nothing about it.
    #[error("the request was not taken")]
    Rejected,
    /// The stream or the connection ended before the answer began.
    #[error(transparent)]
    Broken(BodyError),
    /// What came back is not an answer.
    #[error("the answer is malformed: {0}")]
    Malformed(&'static str),
}

/// A connection to somebody who answers. Dropping it closes it once no answer is under way.
#[derive(Debug)]
pub struct Connection {
    shared: Rc<Shared>,
    /// Streams that were found to be allowed at one time.
    room: Cell<usize>,
    open: Rc<Cell<usize>>,
}

/// A place on a connection: a stream that nothing has been sent on.
#[derive(Debug)]
pub struct Place {
    send: Sender,
    receiver: Receiver,
    open: Open,
}

/// Counts a stream as long as it is open.
#[derive(Debug)]
pub struct Open(Rc<Cell<usize>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Connection {
    /// Begins HTTP/3 on a connection, on a `LocalSet`.
    #[must_use]
    pub(crate) fn begin(quic: quinn::Connection, limits: HeadLimits) -> Self {
        let shared = Shared::new(quic, limits, false);
        streams::serve(&shared, Side::Client);
        Self { shared, room: Cell::new(usize::MAX), open: Rc::default() }
    }

    /// The address that it leads to.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.shared.quic.remote_address()
    }

    /// Whether it takes no more requests.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shared.quic.close_reason().is_some() || self.shared.goodbye.came.get().is_some()
    }

    /// Streams that are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Streams that may be open at one time, as far as that is known.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room.get()
    }

    /// A place for one request; `None` where the other side allows no more streams now, or the connection
    /// has ended.
    pub async fn place(&self) -> Option<Place> {
        let mut opening = pin!(self.shared.quic.open_bi());
        let opened = poll_fn(|cx| Poll::Ready(opening.as_mut().poll(cx))).await;
        let Poll::Ready(Ok((send, recv))) = opened else {
            if opened.is_pending() {
                self.room.set(self.open.get());
            }
            return None;
        };
        self.open.set(self.open.get() + 1);
        self.room.set(self.room.get().max(self.open.get()));
        let shared = &self.shared;
        Some(Place {
            send: Sender::new(send, Rc::clone(shared), Code::REQUEST_CANCELLED),
            receiver: Receiver::new(recv, Rc::clone(shared), Code::REQUEST_CANCELLED),
            open: Open(Rc::clone(&self.open)),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.close(Code::NO_ERROR);
    }
}

/// Stops sending a request's body when it is dropped.
#[derive(Debug)]
pub struct Sending(AbortHandle);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer, whose body is still to come.
#[derive(Debug)]
pub struct Answer {
    /// Head and body.
    pub response: Response<Body>,
    /// The request's body may still be on its way.
    pub sending: Sending,
    /// The stream's place among those of its connection.
    pub open: Open,
}

impl Place {
    /// Sends a request, and waits for its answer's head. The body is sent by a task of its own, which ends
    /// with the answer.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask<B>(
        self,
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        body: B,
    ) -> Result<Answer, AskError>
    where
        B: http_body::Body<Data = Bytes> + 'static,
    {
        let Self { mut send, receiver, open } = self;
        send.request(method, uri, headers).await.map_err(gone)?;
        let sending = if body.is_end_stream() {
            send.finish();
            Sending(spawn_local(async {}).abort_handle())
        } else {
            Sending(spawn_local(pump(send, body)).abort_handle())
        };
        let mut receiver = receiver;
        let (parts, bodiless) = answer(&mut receiver, method).await?;
        let body = Body::new(receiver, &parts.headers);
        let body = if bodiless { body.without() } else { body };
        Ok(Answer { response: Response::from_parts(parts, body), sending, open })
    }
}

async fn answer(receiver: &mut Receiver, method: &Method) -> Result<(http::response::Parts, bool), AskError> {
    let limits = receiver.shared.limits;
    for _ in 0..INTERIM {
        match poll_fn(|cx| receiver.poll_part(cx)).await {
            Ok(Some(Part::Section(block))) => {
                let parts = head::response(block, limits).map_err(|error| unreadable(receiver, &error))?;
                if parts.status.is_informational() {
                    continue;
                }
                let bodiless = *method == Method::HEAD
                    || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
                return Ok((parts, bodiless));
            }
            Ok(Some(Part::TooLarge)) => return Err(unreadable(receiver, &HeadError::TooLarge)),
            Ok(Some(Part::Data(_))) => {
                receiver.connection_error(Code::FRAME_UNEXPECTED);
                return Err(AskError::Malformed("a body before its head"));
            }
            Ok(None) => return Err(AskError::Malformed("an end before the head")),
            Err(BodyError::Reset(code)) if Code::REQUEST_REJECTED.is(code) => return Err(AskError::Rejected),
            Err(error) => return Err(AskError::Broken(error)),
        }
    }
    Err(AskError::Malformed("too many heads"))
}

fn unreadable(receiver: &mut Receiver, error: &HeadError) -> AskError {
    match error {
        HeadError::TooLarge => {
            receiver.stop(Code::EXCESSIVE_LOAD);
            AskError::Malformed("its head is too large")
        }
        HeadError::Malformed(why) => {
            receiver.malformed(why);
            AskError::Malformed(why)
        }
        HeadError::Qpack => {
            receiver.connection_error(Code::QPACK_DECOMPRESSION_FAILED);
            AskError::Malformed("its head cannot be decoded")
        }
    }
}

fn gone(gone: Gone) -> AskError {
    match gone {
        Gone::Stopped(code) if Code::REQUEST_REJECTED.is(code) => AskError::Rejected,
        Gone::Stopped(code) => AskError::Broken(BodyError::Reset(code)),
        Gone::Closed(error) => AskError::Broken(BodyError::Closed(error)),
    }
}

/// Sends a body as fast as the other side takes it. One that breaks off resets the stream.
async fn pump<B: http_body::Body<Data = Bytes>>(mut send: Sender, body: B) {
    let mut body: Pin<&mut B> = pin!(body);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return };
        let sent = match frame.into_data() {
            Ok(data) => send.data(data).await,
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => send.trailers(&trailers).await,
                Err(_) => Ok(()),
            },
        };
        match sent {
            Ok(()) => {}
            // It has its answer and wants no more of the request (section 4.1).
            Err(Gone::Stopped(_) | Gone::Closed(_)) => return,
        }
    }
    send.finish();
}
