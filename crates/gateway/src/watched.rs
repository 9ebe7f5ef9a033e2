//! A caller's stream that notes what goes over it.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use aiproxy_core::ErrorKind;
use aiproxy_registry::Registry;
use aiproxy_registry::status::TurnedAway;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::activity::{Activity, Doing};
use crate::frames::Frames;
use crate::refuse;
use crate::socket::Stream;

/// How hyper answers by itself, and what callers get instead.
const INSTEAD: [(&[u8], ErrorKind); 3] = [
    (b"HTTP/1.1 400 ", ErrorKind::BadRequest),
    (b"HTTP/1.1 414 ", ErrorKind::HeadersTooLarge),
    (b"HTTP/1.1 431 ", ErrorKind::HeadersTooLarge),
];

pub(crate) struct Watched {
    stream: Stream,
    activity: Rc<Activity>,
    registry: Arc<Registry>,
    /// The caller has closed, or its connection broke.
    ended: bool,
    /// What is left of an answer that stands in for one of hyper's.
    instead: Option<Vec<u8>>,
    /// Over HTTP/2.
    frames: Option<Frames>,
}

impl Watched {
    pub(crate) fn new(stream: Stream, activity: Rc<Activity>, registry: Arc<Registry>) -> Self {
        let frames = activity.shared.get().then(Frames::default);
        Self { stream, activity, registry, ended: false, instead: None, frames }
    }

    /// The stream itself, which nobody watches any more.
    pub(crate) fn into_stream(mut self) -> Stream {
        self.ended = true;
        std::mem::replace(&mut self.stream, Stream::Gone)
    }

    /// Whether bytes that hyper writes are an answer of its own: it has no name for one.
    fn own_answer(&self, bytes: &[u8]) -> Option<ErrorKind> {
        if self.frames.is_some() || self.activity.doing.get() == Doing::Request {
            return None;
        }
        let (_, kind) = INSTEAD.iter().find(|(begins, _)| bytes.starts_with(begins))?;
        let ours = memchr::memmem::find(bytes, refuse::OUR_ID.as_bytes()).is_some();
        (!ours && bytes.ends_with(b"\r\n\r\n")).then_some(*kind)
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
        let fresh = &buf.filled()[before..];
        if !fresh.is_empty() {
            if let Some(frames) = &mut self.frames {
                let cost = frames.cost(fresh);
                if !self.activity.pay(cost) {
                    self.registry.status.turn_away(TurnedAway::Flood);
                    // Nobody reads what such a caller still sends.
                    self.ended = true;
                    return Poll::Ready(Err(io::Error::other("a flood of control frames")));
                }
                // Before its first request the connection is as good as idle.
                if self.activity.doing.get() == Doing::Head {
                    self.activity.now(Doing::Idle);
                }
            } else if self.activity.doing.get() == Doing::Idle {
                self.activity.now(Doing::Head);
            }
        }
        self.ended |= match &outcome {
            Poll::Ready(Ok(())) => fresh.is_empty() && buf.remaining() > 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        outcome
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.instead.is_none()
            && let Some(kind) = this.own_answer(bytes)
        {
            this.instead = Some(refuse::bare(kind));
        }
        if let Some(rest) = &mut this.instead {
            while !rest.is_empty() {
                let taken = Pin::new(&mut this.stream).poll_write(cx, rest);
                this.activity.wrote(taken.is_ready());
                let taken = ready!(taken)?;
                rest.drain(..taken);
            }
            this.instead = None;
            return Poll::Ready(Ok(bytes.len()));
        }
        let outcome = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.activity.wrote(outcome.is_ready());
        outcome
    }

    /// TLS takes bytes that the socket has not taken.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.activity.wrote(outcome.is_ready());
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.activity.head_late.get() {
            if self.frames.is_none() {
                self.stream.try_write(&refuse::bare(ErrorKind::RequestTimeout));
            }
        } else if !self.ended {
            *self.activity.leftover.borrow_mut() = self.stream.handle();
        }
    }
}
