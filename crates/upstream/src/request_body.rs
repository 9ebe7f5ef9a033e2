//! The caller's body on its way up.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

/// Looks at a body's bytes as they pass.
pub trait Inspect {
    /// Sees the next bytes before the platform does.
    ///
    /// # Errors
    /// A reason for people; the body is broken off and these bytes are not passed on.
    fn inspect(&mut self, bytes: &[u8]) -> Result<(), &'static str>;
}

/// Why a body was broken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFailure {
    /// Larger than the configured bound.
    TooLarge,
    /// Refused by its inspector.
    Refused(&'static str),
    /// The caller's connection broke or its framing did.
    CallerGone,
}

/// What is known of a body that somebody else polls.
#[derive(Debug)]
pub struct BodyWatch {
    bytes: Cell<u64>,
    last: Cell<Instant>,
    waiting: Cell<bool>,
    done: Cell<bool>,
    failure: Cell<Option<BodyFailure>>,
}

impl BodyWatch {
    /// A body that has not begun.
    #[must_use]
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            bytes: Cell::new(0),
            last: Cell::new(Instant::now()),
            waiting: Cell::new(false),
            done: Cell::new(false),
            failure: Cell::new(None),
        })
    }

    /// Bytes passed on so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// When bytes last passed, or the body ended.
    #[must_use]
    pub fn last(&self) -> Instant {
        self.last.get()
    }

    /// Whether the body has been passed on whole.
    #[must_use]
    pub fn done(&self) -> bool {
        self.done.get()
    }

    /// Whether the next move is the caller's.
    #[must_use]
    pub fn waiting_for_caller(&self) -> bool {
        self.waiting.get()
    }

    /// Why the body was broken off.
    #[must_use]
    pub fn failure(&self) -> Option<BodyFailure> {
        self.failure.get()
    }
}

/// The error that breaks a body off; the reason is in its [`BodyWatch`].
#[derive(Debug)]
pub struct BrokenOff;

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request body was broken off")
    }
}

impl std::error::Error for BrokenOff {}

/// A caller's body: what was read ahead, then the rest as it comes, frame by frame and uncopied.
pub struct RequestBody {
    ahead: VecDeque<Frame<Bytes>>,
    ahead_bytes: u64,
    rest: Option<Incoming>,
    limit: u64,
    inspector: Option<Box<dyn Inspect>>,
    watch: Rc<BodyWatch>,
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").field("ahead_bytes", &self.ahead_bytes).finish_non_exhaustive()
    }
}

impl RequestBody {
    /// `rest` is polled only when `ahead` is used up, and is shown to the inspector; frames in
    /// `ahead` have been looked at before. `limit` bounds the whole body in bytes.
    #[must_use]
    pub fn new(
        ahead: VecDeque<Frame<Bytes>>,
        rest: Option<Incoming>,
        limit: u64,
        inspector: Option<Box<dyn Inspect>>,
        watch: Rc<BodyWatch>,
    ) -> Self {
        let ahead_bytes = ahead.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        let body = Self { ahead, ahead_bytes, rest, limit, inspector, watch };
        if body.is_end_stream() {
            body.finish();
        }
        body
    }

    fn finish(&self) {
        self.watch.done.set(true);
        self.watch.last.set(Instant::now());
    }

    fn fail(&mut self, failure: BodyFailure) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.watch.failure.set(Some(failure));
        self.rest = None;
        Poll::Ready(Some(Err(BrokenOff)))
    }

    fn passed(&self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.watch.bytes.set(self.watch.bytes.get() + length);
        self.watch.last.set(Instant::now());
        if self.is_end_stream() {
            self.finish();
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = &mut *self;
        if let Some(frame) = this.ahead.pop_front() {
            this.ahead_bytes -= frame.data_ref().map_or(0, |data| data.len() as u64);
            return this.passed(frame);
        }
        let Some(rest) = &mut this.rest else {
            this.finish();
            return Poll::Ready(None);
        };
        this.watch.waiting.set(true);
        let frame = ready!(Pin::new(rest).poll_frame(cx));
        this.watch.waiting.set(false);
        match frame {
            None => {
                this.rest = None;
                this.finish();
                Poll::Ready(None)
            }
            Some(Err(_)) => this.fail(BodyFailure::CallerGone),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    if this.watch.bytes.get() + data.len() as u64 > this.limit {
                        return this.fail(BodyFailure::TooLarge);
                    }
                    if let Some(inspector) = &mut this.inspector
                        && let Err(reason) = inspector.inspect(data)
                    {
                        return this.fail(BodyFailure::Refused(reason));
                    }
                }
                this.passed(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + self.ahead_bytes);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + self.ahead_bytes);
        }
        hint
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.watch.waiting.set(false);
    }
}
