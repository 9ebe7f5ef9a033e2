//! From an answer to body frames: the pauses, gates and cuts of a scenario, the trailers, and the
//! guard that notices a caller who goes away in mid-answer.

use crate::http::{Answer, Payload, Piece, Pieces};
use crate::route::State;
use crate::scenario::Scenario;
use crate::seen::Visit;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::{HeaderMap, HeaderValue};
use hyper::body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// What was sent gets this long to reach the peer's socket before a reset overtakes it.
const BEFORE_RESET: Duration = Duration::from_millis(20);

type Frames = Pin<Box<dyn Stream<Item = io::Result<Frame<Bytes>>> + Send>>;

/// Tells a connection to end with a reset instead of a close.
#[derive(Clone, Default)]
pub(crate) struct Reset(Arc<AtomicBool>);

impl Reset {
    /// Asks for it; the error makes hyper drop the connection.
    pub(crate) fn demand(&self) -> io::Error {
        self.0.store(true, Ordering::Relaxed);
        io::ErrorKind::ConnectionReset.into()
    }

    pub(crate) fn demanded(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The body of every answer.
pub(crate) struct AnswerBody {
    frames: Frames,
    /// Bytes to come, where known; hyper stops asking when they are out.
    remaining: Option<u64>,
    /// `None` on control endpoints, which are not recorded.
    visit: Option<Visit>,
}

impl AnswerBody {
    /// The body of a control answer: whole, unrecorded.
    pub(crate) fn unrecorded(bytes: Bytes) -> AnswerBody {
        AnswerBody {
            remaining: Some(bytes.len() as u64),
            frames: Box::pin(stream::iter([Ok(Frame::data(bytes))])),
            visit: None,
        }
    }

    /// The body of a platform answer.
    pub(crate) fn paced(
        answer: Answer,
        scenario: &Scenario,
        state: &Arc<State>,
        reset: Reset,
        visit: Visit,
    ) -> AnswerBody {
        let model = answer.usage.map(|usage| {
            state.log.count_tokens(&usage.model, usage.input, usage.output);
            usage.model
        });
        let whole = matches!(answer.payload, Payload::Whole(_));
        let (pieces, length) = match answer.payload {
            Payload::Stream { pieces, length } => (pieces, length),
            Payload::Whole(bytes) => {
                let length = bytes.len() as u64;
                (halves(bytes, scenario.cut.is_some()), Some(length))
            }
        };
        let script = Script {
            pieces,
            state: Arc::clone(state),
            model,
            reset,
            // A whole answer waited before its head; it has two pieces at most.
            hold: scenario.hold.clone().filter(|_| !whole),
            delay: scenario.delay.filter(|_| !whole),
            cut: scenario.cut.map(|n| if whole { 1 } else { n }),
            trailers: scenario.trailers,
            sent: 0,
            pause: false,
        };
        let body = AnswerBody {
            frames: Box::pin(stream::unfold(script, Script::next)),
            // An empty answer has nothing that a trailer could follow.
            remaining: length.filter(|length| *length == 0 || !scenario.trailers),
            visit: Some(visit),
        };
        body.note_end();
        body
    }

    fn note_end(&self) {
        if let (Some(0), Some(visit)) = (self.remaining, &self.visit) {
            visit.complete();
        }
    }
}

/// A whole answer that is to be cut breaks off in its middle.
fn halves(mut bytes: Bytes, cut: bool) -> Pieces {
    if bytes.is_empty() {
        return Box::new(std::iter::empty());
    }
    if !cut {
        return Box::new(std::iter::once(Piece::content(bytes, 0)));
    }
    let first = bytes.split_to(bytes.len() / 2);
    Box::new([first, bytes].into_iter().map(|half| Piece::content(half, 0)))
}

/// A stream being performed.
struct Script {
    pieces: Pieces,
    state: Arc<State>,
    model: Option<String>,
    reset: Reset,
    hold: Option<String>,
    delay: Option<Duration>,
    cut: Option<u64>,
    trailers: bool,
    /// Content pieces so far.
    sent: u64,
    /// A content piece went out and what follows it is still due.
    pause: bool,
}

impl Script {
    async fn next(mut self) -> Option<(io::Result<Frame<Bytes>>, Script)> {
        if std::mem::take(&mut self.pause) {
            if self.cut == Some(self.sent) {
                // Also gives hyper a chance to flush what it buffered.
                tokio::time::sleep(BEFORE_RESET).await;
                return Some((Err(self.reset.demand()), self));
            }
            if let Some(gate) = self.hold.take() {
                self.state.gates.wait(&gate).await;
            }
            if let Some(delay) = self.delay {
                tokio::time::sleep(delay).await;
            }
        }
        if let Some(piece) = self.pieces.next() {
            if piece.content {
                self.sent += 1;
                self.pause = true;
            }
            if let (Some(model), 1..) = (&self.model, piece.tokens) {
                self.state.log.count_tokens(model, 0, piece.tokens);
            }
            return Some((Ok(Frame::data(piece.bytes)), self));
        }
        if std::mem::take(&mut self.trailers) {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sandbox-trailer", HeaderValue::from_static("done"));
            return Some((Ok(Frame::trailers(trailers)), self));
        }
        None
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = std::task::ready!(self.frames.as_mut().poll_next(cx));
        match &next {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let bytes = data.len();
                    if let Some(remaining) = &mut self.remaining {
                        *remaining = remaining.saturating_sub(bytes as u64);
                    }
                    if let Some(visit) = &self.visit {
                        visit.sent(bytes);
                    }
                    self.note_end();
                } else if let Some(visit) = &self.visit {
                    // Hyper asks for nothing after the trailers.
                    visit.complete();
                }
            }
            Some(Err(_)) => {}
            None => {
                if let Some(visit) = &self.visit {
                    visit.complete();
                }
            }
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
