//! The caller's body on its way up, possibly more than once.
//!
//! One [`Source`] per request pulls frames from the caller; each attempt to send the request reads
//! it through a [`RequestBody`]. As long as the source keeps what it has pulled, another attempt
//! can begin at the first byte again, while the rest of the body is still to come. Keeping is
//! bounded per request and by a [`ReplayBudget`] over all requests; what goes beyond is passed on
//! and not kept.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use aiproxy_quic::BodyError;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::incoming::{Incoming, IncomingError};
use crate::pace::Pace;
use crate::swap::scrub_trailers;

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
    /// Its framing is malformed.
    Malformed,
    /// The caller's connection ended.
    CallerGone,
    /// Its bytes come slower than the configured rate.
    TooSlow,
}

impl BodyFailure {
    /// Why the caller's body ends with this error.
    #[must_use]
    pub fn of(error: &IncomingError) -> Self {
        let error = match error {
            IncomingError::Hyper(error) => error,
            IncomingError::Quic(BodyError::Malformed(_)) => return Self::Malformed,
            IncomingError::Quic(BodyError::Reset(_) | BodyError::Closed(_)) => return Self::CallerGone,
        };
        let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
        match source.map(io::Error::kind) {
            Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Self::Malformed,
            _ => Self::CallerGone,
        }
    }
}

/// What is known of a body that somebody else polls.
#[derive(Debug)]
pub struct BodyWatch {
    bytes: Cell<u64>,
    last: Cell<Instant>,
    waiting: Cell<bool>,
    done: Cell<bool>,
    failure: Cell<Option<BodyFailure>>,
    finished: Notify,
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
            finished: Notify::new(),
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

    /// Returns when the body has just been passed on whole.
    pub async fn finished(&self) {
        self.finished.notified().await;
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

    /// Begins anew: the body is sent once more.
    fn restart(&self) {
        self.bytes.set(0);
        self.waiting.set(false);
        self.done.set(false);
        self.last.set(Instant::now());
    }

    fn finish(&self) {
        self.done.set(true);
        self.last.set(Instant::now());
        self.finished.notify_one();
    }
}

/// Bytes that all requests together keep for another attempt.
#[derive(Debug, Default)]
pub struct ReplayBudget {
    used: AtomicUsize,
}

impl ReplayBudget {
    /// Bytes kept at the moment.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize, total: usize) -> bool {
        if self.used.fetch_add(bytes, Ordering::Relaxed) + bytes > total {
            self.give_back(bytes);
            return false;
        }
        true
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// How much of a body may be kept.
#[derive(Debug, Clone)]
pub struct Replay {
    /// Bytes of one request.
    pub bytes: usize,
    /// Bytes of all requests.
    pub total: usize,
    /// What all requests keep.
    pub budget: Arc<ReplayBudget>,
}

/// The least that a kept piece is charged, in bytes.
const PIECE_BYTES: usize = 128;

/// A frame that can be sent twice.
#[derive(Debug, Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Piece {
    fn of(frame: Frame<Bytes>, proxy_key: &str) -> Option<Self> {
        match frame.into_data() {
            Ok(data) => Some(Self::Data(data)),
            Err(frame) => {
                let mut trailers = frame.into_trailers().ok()?;
                scrub_trailers(&mut trailers, proxy_key);
                Some(Self::Trailers(trailers))
            }
        }
    }

    fn len(&self) -> usize {
        if let Self::Data(data) = self { data.len() } else { 0 }
    }

    /// What keeping it costs: a body of tiny chunks is mostly bookkeeping.
    fn charge(&self) -> usize {
        self.len().max(PIECE_BYTES)
    }

    fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}

/// One request's body, pulled from the caller once.
pub struct Source(RefCell<Inner>);

struct Inner {
    /// While keeping: everything pulled so far. Afterwards: what was pulled and not yet sent.
    pieces: VecDeque<Piece>,
    rest: Option<Incoming>,
    pace: Pace,
    limit: u64,
    pulled: u64,
    inspector: Option<Box<dyn Inspect>>,
    /// Must not stand in a trailer.
    proxy_key: Box<str>,
    keep: Option<Replay>,
    kept: usize,
    /// Bodies of earlier attempts read nothing any more.
    attempt: u32,
    /// Something has been passed on.
    begun: bool,
    /// Who waits for the caller.
    waiter: Option<Waker>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop_keeping(0);
    }
}

impl Inner {
    fn stop_keeping(&mut self, sent: usize) {
        if let Some(replay) = self.keep.take() {
            replay.budget.give_back(std::mem::take(&mut self.kept));
            self.pieces.drain(..sent.min(self.pieces.len()));
        }
    }

    /// Whether the piece is kept. `sent` pieces have been sent by the current attempt.
    fn keep(&mut self, bytes: usize, sent: usize) -> bool {
        let fits = match &self.keep {
            None => return false,
            Some(replay) => self.kept + bytes <= replay.bytes && replay.budget.take(bytes, replay.total),
        };
        if fits {
            self.kept += bytes;
        } else {
            self.stop_keeping(sent);
        }
        fits
    }

    fn ended(&self) -> bool {
        self.rest.as_ref().is_none_or(Body::is_end_stream)
    }
}

impl Source {
    /// `ahead` has been read from the caller and inspected, `rest` has not. `limit` bounds the
    /// whole body in bytes. Trailers that hold `proxy_key` are taken out. Without `replay` nothing is
    /// kept and there can be one attempt.
    #[must_use]
    pub fn new(
        ahead: VecDeque<Frame<Bytes>>,
        rest: Option<Incoming>,
        limit: u64,
        inspector: Option<Box<dyn Inspect>>,
        proxy_key: &str,
        replay: Option<Replay>,
    ) -> Rc<Self> {
        let pieces: VecDeque<Piece> =
            ahead.into_iter().filter_map(|frame| Piece::of(frame, proxy_key)).collect();
        let bytes: usize = pieces.iter().map(Piece::len).sum();
        let mut inner = Inner {
            pieces,
            rest,
            pace: Pace::default(),
            limit,
            pulled: bytes as u64,
            inspector,
            proxy_key: proxy_key.into(),
            keep: replay,
            kept: 0,
            attempt: 0,
            begun: false,
            waiter: None,
        };
        let charged = inner.pieces.iter().map(Piece::charge).sum();
        inner.keep(charged, 0);
        Rc::new(Self(RefCell::new(inner)))
    }

    /// Breaks the rest of the body off where it comes too slowly.
    pub fn pace(&self, pace: Pace) {
        self.0.borrow_mut().pace = pace;
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Rc<Self> {
        Self::new(VecDeque::new(), None, 0, None, "", None)
    }

    /// Whether another attempt can begin at the first byte.
    #[must_use]
    pub fn replayable(&self) -> bool {
        self.0.borrow().keep.is_some()
    }

    /// Whether the whole body can be sent, once more or for the first time.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let inner = self.0.borrow();
        inner.keep.is_some() || !inner.begun
    }

    /// Ends the body under way with an error, also where it waits for the caller.
    pub(crate) fn stop(&self) {
        let waiter = {
            let mut inner = self.0.borrow_mut();
            inner.attempt += 1;
            inner.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Whether there is no body at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let inner = self.0.borrow();
        inner.pieces.is_empty() && inner.pulled == 0 && inner.ended()
    }

    /// What the caller has not sent yet, when there will be no other attempt.
    #[must_use]
    pub fn take_rest(&self) -> Option<Incoming> {
        let mut inner = self.0.borrow_mut();
        inner.attempt += 1;
        inner.rest.take()
    }

    /// The body for the next attempt; those of earlier attempts end with an error.
    #[must_use]
    pub fn attempt(self: &Rc<Self>, watch: Rc<BodyWatch>) -> RequestBody {
        let attempt = {
            let mut inner = self.0.borrow_mut();
            inner.attempt += 1;
            inner.attempt
        };
        let body = RequestBody { source: Rc::clone(self), attempt, sent: 0, watch, alive: None };
        if body.is_end_stream() {
            body.watch.finish();
        }
        body
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

/// A body for one attempt: frames pass as they come, uncopied.
#[derive(Debug)]
pub struct RequestBody {
    source: Rc<Source>,
    attempt: u32,
    /// Pieces passed on while the source keeps them.
    sent: usize,
    watch: Rc<BodyWatch>,
    /// Tells others that it is still being sent.
    alive: Option<Rc<()>>,
}

impl RequestBody {
    /// Where its bytes come from.
    pub(crate) fn source(&self) -> &Rc<Source> {
        &self.source
    }

    /// A token that has no other holder once the body has been sent, or given up.
    pub(crate) fn alive(&mut self) -> Rc<()> {
        Rc::clone(self.alive.get_or_insert_default())
    }

    /// The body once more from its first byte, under the same watch. [`Source::is_whole`] says
    /// whether that is possible.
    pub(crate) fn again(source: &Rc<Source>, watch: &Rc<BodyWatch>) -> Self {
        watch.restart();
        source.attempt(Rc::clone(watch))
    }

    /// Who watches it.
    pub(crate) fn watch(&self) -> &Rc<BodyWatch> {
        &self.watch
    }

    fn fail(&self, inner: &mut Inner, failure: BodyFailure) -> Option<Result<Piece, BrokenOff>> {
        self.watch.failure.set(Some(failure));
        // No attempt reads any further.
        inner.attempt += 1;
        Some(Err(BrokenOff))
    }

    fn poll_piece(
        &mut self,
        inner: &mut Inner,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Piece, BrokenOff>>> {
        if inner.attempt != self.attempt {
            return Poll::Ready(Some(Err(BrokenOff)));
        }
        if inner.keep.is_some() {
            if let Some(piece) = inner.pieces.get(self.sent) {
                self.sent += 1;
                inner.begun = true;
                return Poll::Ready(Some(Ok(piece.clone())));
            }
        } else if let Some(piece) = inner.pieces.pop_front() {
            inner.begun = true;
            return Poll::Ready(Some(Ok(piece)));
        }
        let Some(rest) = &mut inner.rest else { return Poll::Ready(None) };
        self.watch.waiting.set(true);
        inner.pace.waiting(Instant::now);
        let Poll::Ready(frame) = Pin::new(rest).poll_frame(cx) else {
            match &mut inner.waiter {
                Some(waiter) => waiter.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        self.watch.waiting.set(false);
        inner.begun = true;
        let piece = match frame {
            None => {
                inner.rest = None;
                return Poll::Ready(None);
            }
            Some(Err(error)) => return Poll::Ready(self.fail(inner, BodyFailure::of(&error))),
            Some(Ok(frame)) => match Piece::of(frame, &inner.proxy_key) {
                Some(piece) => piece,
                None => return Poll::Ready(None),
            },
        };
        if let Piece::Data(data) = &piece {
            inner.pulled += data.len() as u64;
            if !inner.pace.came(data.len(), Instant::now) {
                return Poll::Ready(self.fail(inner, BodyFailure::TooSlow));
            }
            if inner.pulled > inner.limit {
                return Poll::Ready(self.fail(inner, BodyFailure::TooLarge));
            }
            if let Some(inspector) = &mut inner.inspector
                && let Err(reason) = inspector.inspect(data)
            {
                return Poll::Ready(self.fail(inner, BodyFailure::Refused(reason)));
            }
        }
        if inner.keep(piece.charge(), self.sent) {
            inner.pieces.push_back(piece.clone());
            self.sent += 1;
        }
        Poll::Ready(Some(Ok(piece)))
    }

    fn ended(&self, inner: &Inner) -> bool {
        let sent = if inner.keep.is_some() { self.sent } else { 0 };
        inner.attempt == self.attempt && sent >= inner.pieces.len() && inner.ended()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let source = Rc::clone(&self.source);
        let mut inner = source.0.borrow_mut();
        let piece = ready!(self.poll_piece(&mut inner, cx));
        match piece {
            Some(Ok(piece)) => {
                self.watch.bytes.set(self.watch.bytes.get() + piece.len() as u64);
                self.watch.last.set(Instant::now());
                if self.ended(&inner) {
                    self.watch.finish();
                }
                Poll::Ready(Some(Ok(piece.into_frame())))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                self.watch.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended(&self.source.0.borrow())
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.source.0.borrow();
        let skip = if inner.keep.is_some() { self.sent } else { 0 };
        let ahead: u64 = inner.pieces.iter().skip(skip).map(|piece| piece.len() as u64).sum();
        let rest = inner.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + ahead);
        // Trailers come behind chunks only.
        let trailers = inner.pieces.iter().any(|piece| matches!(piece, Piece::Trailers(_)));
        if let Some(upper) = rest.upper().filter(|_| !trailers) {
            hint.set_upper(upper + ahead);
        }
        hint
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // A later attempt may be under the same watch.
        if self.source.0.try_borrow().is_ok_and(|inner| inner.attempt == self.attempt) {
            self.watch.waiting.set(false);
        }
    }
}

#[cfg(test)]
#[path = "request_body_tests.rs"]
mod tests;
