//! A message's body on its way in.

use std::fmt;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Frame, SizeHint};
use quinn::ReadError;

use crate::code::Code;
use crate::flood;
use crate::frames::{Frames, Part};
use crate::head::{self, HeadError};
use crate::shared::Shared;

/// Pieces of a stream that are read at a time. QUIC cuts them to its packets; several at hand are
/// joined, so that what is large does not pass in crumbs.
const PIECES: usize = 32;

/// Why a body ended before its end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BodyError {
    /// The other side gave it up, with this error code (RFC 9114, section 8.1).
    #[error("the stream was reset with error {0:#x}")]
    Reset(u64),
    /// It is not what HTTP/3 allows.
    #[error("the message is malformed: {0}")]
    Malformed(&'static str),
    /// The connection ended.
    #[error("the connection ended: {0}")]
    Closed(quinn::ConnectionError),
}

impl BodyError {
    /// Whether nothing was heard of the other side for too long.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Closed(quinn::ConnectionError::TimedOut))
    }
}

impl From<ReadError> for BodyError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Reset(code.into_inner()),
            ReadError::ConnectionLost(error) => Self::Closed(error),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                Self::Closed(quinn::ConnectionError::LocallyClosed)
            }
        }
    }
}

/// The receiving half of a request stream: its frames.
pub(crate) struct Receiver {
    recv: quinn::RecvStream,
    pub(crate) shared: Rc<Shared>,
    chunk: Bytes,
    frames: Frames,
    /// The stream has come to its end.
    finished: bool,
    /// What it is told when nobody reads it any more.
    pub(crate) parting: Code,
    /// Given up, by either side.
    over: bool,
    /// What was wrong when nobody had asked yet. QUIC says it once; then the stream seems to have ended.
    wrong: Option<Box<BodyError>>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({:?})", self.recv.id())
    }
}

impl Receiver {
    pub(crate) fn new(recv: quinn::RecvStream, shared: Rc<Shared>, parting: Code) -> Self {
        // Compressed, a section is shorter than it counts; a little more is for what is said around it.
        let frames = Frames::new(shared.limits.bytes.saturating_add(1024));
        Self { recv, shared, chunk: Bytes::new(), frames, finished: false, parting, over: false, wrong: None }
    }

    /// The next part; `None` at the end of the stream.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part>, BodyError>> {
        loop {
            let next = self.frames.next(&mut self.chunk);
            let idle = self.frames.take_idle();
            if idle > 0 {
                self.shared.pay(idle * flood::LITTLE);
            }
            match next {
                Ok(Some(part)) => return Poll::Ready(Ok(Some(part))),
                Ok(None) if self.finished => {
                    if !self.frames.is_between() {
                        return Poll::Ready(Err(self.connection_error(Code::FRAME_ERROR)));
                    }
                    return Poll::Ready(Ok(None));
                }
                Ok(None) => ready!(self.poll_chunk(cx))?,
                Err(code) => return Poll::Ready(Err(self.connection_error(code))),
            }
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        if let Some(error) = self.wrong.take() {
            return Poll::Ready(Err(*error));
        }
        let mut pieces = [const { Bytes::new() }; PIECES];
        let read = ready!(pin!(self.recv.read_chunks(&mut pieces)).poll(cx));
        match read {
            Ok(Some(1)) => self.chunk = std::mem::take(&mut pieces[0]),
            Ok(Some(count)) => {
                let pieces = &pieces[..count];
                let mut joined = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
                pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
                self.chunk = joined.freeze();
            }
            Ok(None) => self.finished = true,
            Err(error) => {
                self.over = true;
                if matches!(error, ReadError::Reset(_)) {
                    self.shared.pay(flood::RESET);
                }
                return Poll::Ready(Err(error.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Looks, without waiting, whether the end has come; what came instead is kept.
    pub(crate) fn look(&mut self) {
        if self.chunk.is_empty()
            && !self.finished
            && !self.over
            && let Poll::Ready(Err(error)) = self.poll_chunk(&mut Context::from_waker(Waker::noop()))
        {
            self.wrong = Some(Box::new(error));
        }
    }

    /// Whether nothing comes any more.
    pub(crate) fn is_at_end(&self) -> bool {
        self.finished && self.chunk.is_empty() && self.frames.is_between()
    }

    pub(crate) fn connection_error(&mut self, code: Code) -> BodyError {
        self.over = true;
        self.shared.fail(code);
        BodyError::Malformed("its frames are not those of a message")
    }

    /// The message is malformed: an error of its stream alone.
    pub(crate) fn malformed(&mut self, why: &'static str) -> BodyError {
        self.stop(Code::MESSAGE_ERROR);
        BodyError::Malformed(why)
    }

    pub(crate) fn stop(&mut self, code: Code) {
        if !self.over && !self.finished {
            let _ = self.recv.stop(code.wire());
        }
        self.over = true;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop(self.parting);
    }
}

/// What a body says when it is asked for its next frame.
type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// A message's body: frames as they come, uncopied where they are large enough.
pub struct Body {
    receiver: Receiver,
    /// What the message says is missing.
    missing: Option<u64>,
    /// The last piece of a request that says its length, until its end shows that no more comes: a
    /// malformed request is not to look whole to anybody.
    last: Option<Bytes>,
    /// Trailers, until the end as well.
    behind: Option<Box<HeaderMap>>,
    trailers: bool,
    failed: bool,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({:?} missing)", self.missing)
    }
}

impl Body {
    /// What comes behind the head.
    pub(crate) fn new(mut receiver: Receiver, headers: &HeaderMap) -> Self {
        receiver.look();
        let said = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        Self { receiver, missing: said, last: None, behind: None, trailers: false, failed: false }
    }

    /// The body of an answer that has none whatever its head says: to HEAD, 204, 304.
    pub(crate) fn without(mut self) -> Self {
        self.missing = None;
        self
    }

    fn fail<T>(&mut self, error: BodyError) -> Poll<Option<Result<T, BodyError>>> {
        self.failed = true;
        Poll::Ready(Some(Err(error)))
    }

    fn malformed<T>(&mut self, why: &'static str) -> Poll<Option<Result<T, BodyError>>> {
        let error = self.receiver.malformed(why);
        self.fail(error)
    }

    /// What waited for the end, once that has come.
    fn rest(&mut self) -> Option<Frame<Bytes>> {
        let last = self.last.take().map(Frame::data);
        last.or_else(|| self.behind.take().map(|trailers| Frame::trailers(*trailers)))
    }

    /// Nothing yet, where the piece has to wait.
    fn data(&mut self, data: Bytes) -> Option<Polled> {
        if let Some(missing) = &mut self.missing {
            let Some(left) = missing.checked_sub(data.len() as u64) else {
                return Some(self.malformed("the body is longer than its content-length"));
            };
            *missing = left;
        }
        self.receiver.look();
        if self.missing == Some(0) && self.receiver.shared.serves() && !self.receiver.is_at_end() {
            self.last = Some(data);
            return None;
        }
        Some(Poll::Ready(Some(Ok(Frame::data(data)))))
    }

    /// Nothing, where the trailers are in order: they wait for the end too.
    fn section(&mut self, block: Bytes) -> Option<Polled> {
        self.trailers = true;
        if self.missing.is_some_and(|missing| missing > 0) {
            return Some(self.malformed("the body is shorter than its content-length"));
        }
        Some(match head::trailers(block, self.receiver.shared.limits) {
            Ok(trailers) => {
                self.behind = Some(Box::new(trailers));
                return None;
            }
            Err(HeadError::TooLarge) => self.malformed("the trailers are too large"),
            Err(HeadError::Malformed(why)) => self.malformed(why),
            Err(HeadError::Qpack) => {
                let error = self.receiver.connection_error(Code::QPACK_DECOMPRESSION_FAILED);
                self.fail(error)
            }
        })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.failed {
            return Poll::Ready(None);
        }
        loop {
            let part = match ready!(self.receiver.poll_part(cx)) {
                Err(error) => return self.fail(error),
                Ok(None) if self.missing.is_some_and(|missing| missing > 0) => {
                    return self.malformed("the body is shorter than its content-length");
                }
                Ok(None) => return Poll::Ready(self.rest().map(Ok)),
                Ok(Some(part)) => part,
            };
            if self.trailers {
                let error = self.receiver.connection_error(Code::FRAME_UNEXPECTED);
                return self.fail(error);
            }
            let polled = match part {
                Part::Data(data) if data.is_empty() => None,
                Part::Data(data) => self.data(data),
                Part::Section(block) => self.section(block),
                Part::TooLarge => Some(self.malformed("the trailers are too large")),
            };
            if let Some(polled) = polled {
                return polled;
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.last.is_some() || self.behind.is_some();
        let whole = self.missing.is_none_or(|missing| missing == 0);
        self.failed || (self.receiver.is_at_end() && whole && !kept)
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            return SizeHint::with_exact(0);
        }
        let last = self.last.as_ref().map_or(0, Bytes::len) as u64;
        self.missing.map_or_else(SizeHint::new, |missing| SizeHint::with_exact(missing + last))
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
