//! The side of a connection that is asked.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::Request;

use crate::body::{Body, BodyError, Receiver};
use crate::code::Code;
use crate::flood;
use crate::frames::Part;
use crate::head::{self, HeadError, HeadLimits};
use crate::message::Sender;
use crate::shared::Shared;
use crate::streams::{self, Side};

/// The last stream that there can be (section 5.2): nothing is refused yet.
const ANY_STREAM: u64 = (1 << 62) - 4;

/// A caller's connection.
#[derive(Debug)]
pub struct Connection {
    shared: Rc<Shared>,
    /// The first stream that has not come.
    next: u64,
    /// The first stream that is refused.
    refused: Rc<Cell<u64>>,
}

impl Connection {
    /// Begins HTTP/3 on a connection, on a `LocalSet`. Field sections that come are bound by `bytes` as
    /// RFC 9114, section 4.2.2, counts them, and by `fields`.
    #[must_use]
    pub(crate) fn begin(quic: quinn::Connection, limits: HeadLimits) -> Self {
        let shared = Shared::new(quic, limits, true);
        streams::serve(&shared, Side::Server);
        Self { shared, next: 0, refused: Rc::new(Cell::new(u64::MAX)) }
    }

    /// Where the caller is now: it may move.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.shared.quic.remote_address()
    }

    /// The caller's address as it is for the time being, and a way to end the connection.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { shared: Rc::clone(&self.shared), refused: Rc::clone(&self.refused) }
    }

    /// The next request stream; `None` when the connection has ended. May be dropped while it waits.
    pub async fn accept(&mut self) -> Option<Stream> {
        loop {
            let (mut send, mut recv) = self.shared.quic.accept_bi().await.ok()?;
            let id = u64::from(quinn::VarInt::from(send.id()));
            self.next = self.next.max(id + 4);
            self.shared.pay(flood::LITTLE);
            if id < self.refused.get() {
                let shared = &self.shared;
                let send = Sender::new(send, Rc::clone(shared), Code::INTERNAL_ERROR);
                let receiver = Receiver::new(recv, Rc::clone(shared), Code::NO_ERROR);
                return Some(Stream { send, receiver });
            }
            let _ = send.reset(Code::REQUEST_REJECTED.wire());
            let _ = recv.stop(Code::REQUEST_REJECTED.wire());
        }
    }

    /// Says that no more requests are wanted; those on their way are served still. Call
    /// [`refuse`](Self::refuse) after [`Self::trip`].
    pub fn retire(&self) {
        self.goodbye(ANY_STREAM);
    }

    /// Requests that come from now on are refused.
    pub fn refuse(&self) {
        if self.refused.get() == u64::MAX {
            self.refused.set(self.next);
            self.goodbye(self.next);
        }
    }

    fn goodbye(&self, id: u64) {
        self.shared.goodbye.send.set(Some(id));
        self.shared.goodbye.changed.notify_one();
    }

    /// How long what is said now takes to be heard, and what was said meanwhile to come.
    #[must_use]
    pub fn trip(&self) -> Duration {
        self.shared.quic.rtt() * 2
    }
}

/// A hold on a connection that somebody else serves.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Rc<Shared>,
    refused: Rc<Cell<u64>>,
}

impl Handle {
    /// Ends the connection at once.
    pub fn close(&self, code: Code) {
        self.shared.close(code);
    }

    /// Whether the connection was ended for what it cost.
    #[must_use]
    pub fn is_flooded(&self) -> bool {
        self.shared.flooded.get()
    }

    /// Whether requests are refused.
    #[must_use]
    pub fn is_refusing(&self) -> bool {
        self.refused.get() != u64::MAX
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.close(Code::NO_ERROR);
    }
}

/// A request stream of which nothing has been read.
#[derive(Debug)]
pub struct Stream {
    send: Sender,
    receiver: Receiver,
}

/// What a stream brought.
#[derive(Debug)]
pub enum Asked {
    /// A request, and where its answer goes.
    Request(Box<Request<Body>>, Sender),
    /// One whose head is larger than allowed: it can be told so.
    TooLarge(Sender),
    /// Nothing: it was malformed, or given up. The other side knows.
    Nothing,
}

impl Stream {
    /// Reads the request's head.
    pub async fn head(self) -> Asked {
        let Self { mut send, mut receiver } = self;
        let part = poll_fn(|cx| receiver.poll_part(cx)).await;
        let limits = receiver.shared.limits;
        match part {
            Ok(Some(Part::Section(block))) => match head::request(block, limits) {
                Ok(parts) => {
                    let body = Body::new(receiver, &parts.headers);
                    Asked::Request(Box::new(Request::from_parts(parts, body)), send)
                }
                Err(HeadError::TooLarge) => Asked::TooLarge(send),
                Err(HeadError::Malformed(why)) => {
                    tracing::debug!(why, "a malformed request over HTTP/3");
                    receiver.malformed(why);
                    receiver.shared.pay(flood::RESET);
                    send.reset(Code::MESSAGE_ERROR);
                    Asked::Nothing
                }
                Err(HeadError::Qpack) => {
                    receiver.connection_error(Code::QPACK_DECOMPRESSION_FAILED);
                    Asked::Nothing
                }
            },
            Ok(Some(Part::TooLarge)) => Asked::TooLarge(send),
            Ok(Some(Part::Data(_))) => {
                receiver.connection_error(Code::FRAME_UNEXPECTED);
                Asked::Nothing
            }
            Ok(None) => {
                receiver.shared.pay(flood::RESET);
                send.reset(Code::REQUEST_INCOMPLETE);
                Asked::Nothing
            }
            Err(BodyError::Reset(_)) => {
                send.reset(Code::REQUEST_CANCELLED);
                Asked::Nothing
            }
            Err(BodyError::Malformed(_) | BodyError::Closed(_)) => Asked::Nothing,
        }
    }
}
