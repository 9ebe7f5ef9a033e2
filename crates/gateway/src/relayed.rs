//! An answer's body on its way down.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use aiproxy_config::model::Channel;
use aiproxy_core::{ErrorKind, Outcome};
use aiproxy_registry::health::{self, Verdict};
use aiproxy_registry::live::{Live, Registration};
use aiproxy_upstream::answer::scrub_trailers;
use aiproxy_upstream::{BodyWatch, Incoming, IncomingError, Lease};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::attempts;
use crate::metering::Metering;
use crate::record::Record;
use crate::switch::Switch;

/// How long the end of an answer without a body is waited for.
const SEE_OUT: Duration = Duration::from_secs(5);

/// The body of every answer to a caller.
pub(crate) enum AnswerBody {
    /// AIProxy's own words.
    Own(Box<Own>),
    /// The platform's.
    Relayed(Box<Relayed>),
    /// None: a WebSocket begins. What goes on then is taken out before the answer leaves.
    Switching(Option<Box<Switch>>),
}

/// A body that AIProxy makes itself.
pub(crate) struct Own {
    bytes: Option<Bytes>,
    /// None where what the answer begins goes on.
    record: Option<Record>,
}

impl AnswerBody {
    /// AIProxy's own words; `None` is an empty body.
    pub(crate) fn own(bytes: Option<Bytes>, record: Record) -> Self {
        Self::Own(Box::new(Own { bytes, record: Some(record) }))
    }

    /// The answer to an offer: the call's record goes on with the call.
    pub(crate) fn called(bytes: Bytes) -> Self {
        Self::Own(Box::new(Own { bytes: Some(bytes), record: None }))
    }

    /// The WebSocket that begins, to be had once.
    pub(crate) fn take_switch(&mut self) -> Option<Box<Switch>> {
        match self {
            Self::Switching(switch) => switch.take(),
            Self::Own(_) | Self::Relayed(_) => None,
        }
    }

    /// What can be cut while the body passes.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        match self {
            Self::Own(_) | Self::Switching(_) => None,
            Self::Relayed(relayed) => Some(relayed.live.entry()),
        }
    }
}

/// Why an answer was broken off. The caller sees its connection close before the body's end.
#[derive(Debug)]
pub(crate) enum BrokenOff {
    /// The platform's connection or framing failed.
    Upstream(IncomingError),
    /// Over HTTP/2 the platform reset the stream, with an error code that says otherwise.
    Reset,
    /// Silence for longer than `timeouts.idle`.
    Idle,
    /// The exchange took longer than `timeouts.total`.
    Total,
    /// The key, user or channel was withdrawn.
    Cut(ErrorKind),
}

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(error) => write!(f, "the platform broke off: {error}"),
            Self::Reset => f.write_str("the platform reset its answer"),
            Self::Idle => f.write_str("the platform went silent"),
            Self::Total => f.write_str("the exchange took too long"),
            Self::Cut(kind) => write!(f, "cut: {}", kind.code()),
        }
    }
}

impl std::error::Error for BrokenOff {}

/// An answer as the platform gave it, before its body is handed to the caller.
pub(crate) struct Exchange {
    /// Bytes of the body that were read already.
    pub(crate) ahead: Option<Bytes>,
    /// The rest of the body.
    pub(crate) body: Incoming,
    pub(crate) status: StatusCode,
    /// Answers to it have no body whatever they say: HEAD, 204, 304.
    pub(crate) bodiless: bool,
    pub(crate) lease: Lease,
    pub(crate) watch: Rc<BodyWatch>,
    /// When the exchange began; `timeouts.total` counts from here.
    pub(crate) began: Instant,
    /// Lets others see and cut it.
    pub(crate) live: Registration,
    pub(crate) channel: Arc<Channel>,
    pub(crate) health: Arc<health::Channel>,
    pub(crate) metering: Metering,
}

impl Exchange {
    /// The body that the caller gets; its end is the end of the record.
    pub(crate) fn into_body(mut self, mut record: Record) -> AnswerBody {
        if self.bodiless {
            // Nobody would ask for it.
            if let Some(usage) = self.metering.settle(true) {
                record.used(usage);
            }
            record.ended(Outcome::Complete);
            record.finish();
            if self.body.is_end_stream() && self.watch.done() {
                self.lease.release();
            } else {
                spawn_local(see_out(self.body, self.lease));
            }
            return AnswerBody::own(None, record);
        }
        let end = self.channel.timeouts.total.map(|total| self.began + total);
        let mut relayed = Relayed {
            ahead: self.ahead.filter(|bytes| !bytes.is_empty()),
            http2: self.lease.is_http2(),
            success: self.status.is_success(),
            body: self.body,
            ended: false,
            held: None,
            trailers: None,
            metering: self.metering,
            lease: Some(self.lease),
            watch: self.watch,
            record,
            last: Instant::now(),
            idle: self.channel.timeouts.idle,
            end,
            timer: None,
            live: self.live,
            channel: self.channel,
            health: self.health,
        };
        if relayed.is_end_stream() {
            relayed.complete();
        }
        AnswerBody::Relayed(Box::new(relayed))
    }
}

/// Over HTTP/2 and HTTP/3 the end may come behind the head; a stream that is let go before is a cancelled one.
async fn see_out(mut body: Incoming, lease: Lease) {
    if lease.is_shared() {
        let _ = timeout(SEE_OUT, body.frame()).await;
    }
}

/// A platform's body: frames pass as they come, uncopied.
pub(crate) struct Relayed {
    ahead: Option<Bytes>,
    body: Incoming,
    /// The platform answered over HTTP/2.
    http2: bool,
    /// Its status is a success.
    success: bool,
    /// The body has come to its end.
    ended: bool,
    /// What was held back until then.
    held: Option<Bytes>,
    /// They come behind it.
    trailers: Option<HeaderMap>,
    metering: Metering,
    /// Given back when both bodies have come to their ends.
    lease: Option<Lease>,
    watch: Rc<BodyWatch>,
    record: Record,
    last: Instant,
    idle: Duration,
    /// End of `timeouts.total`.
    end: Option<Instant>,
    /// Armed only while waiting, and re-armed only when it fires: a chunk costs no timer.
    timer: Option<Pin<Box<Sleep>>>,
    live: Registration,
    channel: Arc<Channel>,
    health: Arc<health::Channel>,
}

impl Relayed {
    fn is_end_stream(&self) -> bool {
        self.ahead.is_none()
            && self.held.is_none()
            && self.trailers.is_none()
            && !self.metering.holds()
            && (self.ended || self.body.is_end_stream())
    }

    /// Whether a stream ended without saying so: hyper takes a reset with `NO_ERROR` for an end. That
    /// is one only where a platform has refused a request and wants no more of it (RFC 9113, section
    /// 8.1).
    fn is_cut_short(&self) -> bool {
        if !self.http2 || self.body.is_end_stream() {
            return false;
        }
        match self.body.size_hint().exact() {
            Some(missing) => missing > 0,
            None => self.success && self.watch.done(),
        }
    }

    /// The last bytes are about to be handed to the caller.
    fn complete(&mut self) {
        self.settle(true);
        self.record.ended(Outcome::Complete);
        self.record.finish();
        if let Some(lease) = self.lease.take()
            && self.watch.done()
        {
            lease.release();
        }
    }

    fn deadline(&self) -> Instant {
        let idle = self.last + self.idle;
        self.end.map_or(idle, |end| idle.min(end))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Poll::Ready(kind) = self.live.poll_cut(cx) {
            return self.broken(BrokenOff::Cut(kind));
        }
        loop {
            if let Some(bytes) = self.ahead.take() {
                if let Some(frame) = self.metered(bytes) {
                    return self.passed(frame);
                }
                continue;
            }
            if let Some(held) = self.held.take() {
                return self.passed(Frame::data(held));
            }
            if let Some(trailers) = self.trailers.take() {
                return self.passed(Frame::trailers(trailers));
            }
            if self.ended {
                self.complete();
                return Poll::Ready(None);
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => {
                        if let Some(frame) = self.metered(bytes) {
                            return self.passed(frame);
                        }
                    }
                    Err(frame) => {
                        let mut trailers = frame.into_trailers().unwrap_or_default();
                        scrub_trailers(&mut trailers, &self.channel);
                        self.trailers = Some(trailers);
                        // hyper asks for nothing behind them.
                        self.ended = true;
                        self.flush();
                    }
                },
                Poll::Ready(None) if self.is_cut_short() => return self.broken(BrokenOff::Reset),
                Poll::Ready(None) => {
                    self.ended = true;
                    self.flush();
                }
                Poll::Ready(Some(Err(error))) => return self.broken(BrokenOff::Upstream(error)),
                Poll::Pending => return self.wait(cx),
            }
        }
    }

    /// What may pass of these bytes now.
    fn metered(&mut self, bytes: Bytes) -> Option<Frame<Bytes>> {
        let bytes = self.metering.pass(bytes);
        if bytes.is_empty() {
            self.last = Instant::now();
            return None;
        }
        Some(Frame::data(bytes))
    }

    fn flush(&mut self) {
        self.held = Some(self.metering.flush()).filter(|bytes| !bytes.is_empty());
    }

    fn settle(&mut self, complete: bool) {
        if let Some(usage) = self.metering.settle(complete) {
            self.record.used(usage);
        }
    }

    fn passed(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.record.passed_down(bytes);
        self.live.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        self.last = Instant::now();
        if self.is_end_stream() {
            self.complete();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        loop {
            let deadline = self.deadline();
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if deadline <= now {
                let total = self.end.is_some_and(|end| end <= now);
                return self.broken(if total { BrokenOff::Total } else { BrokenOff::Idle });
            }
            timer.as_mut().reset(deadline);
        }
    }

    fn broken(&mut self, why: BrokenOff) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.settle(false);
        tracing::warn!(request = %self.record.request_id(), channel = %self.channel.id, %why, "answer broken off");
        match why {
            BrokenOff::Cut(kind) => self.record.cut(kind),
            BrokenOff::Total => self.record.ended(Outcome::UpstreamFailed),
            BrokenOff::Upstream(_) | BrokenOff::Reset | BrokenOff::Idle => {
                self.record.ended(Outcome::UpstreamFailed);
                attempts::report(&self.health, &self.channel, Verdict::Bad);
            }
        }
        self.lease = None;
        Poll::Ready(Some(Err(why)))
    }
}

impl Drop for Relayed {
    /// A caller who takes nothing keeps the body from being asked, and so from hearing of its cut.
    fn drop(&mut self) {
        if self.lease.is_some()
            && let Some(kind) = self.live.is_cut()
        {
            self.record.cut(kind);
        }
        self.settle(false);
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut *self {
            Self::Own(own) => Poll::Ready(own.bytes.take().map(|bytes| {
                if let Some(record) = &mut own.record {
                    record.passed_down(bytes.len());
                    record.finish();
                }
                Ok(Frame::data(bytes))
            })),
            Self::Relayed(relayed) => relayed.poll(cx),
            Self::Switching(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(own) => own.bytes.is_none(),
            Self::Relayed(relayed) => relayed.is_end_stream(),
            Self::Switching(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Switching(_) => SizeHint::with_exact(0),
            Self::Own(own) => SizeHint::with_exact(own.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Relayed(relayed) => {
                let ahead = relayed.ahead.as_ref().map_or(0, |bytes| bytes.len() as u64);
                let body = relayed.body.size_hint();
                let mut hint = SizeHint::new();
                if relayed.metering.holds() {
                    // Some of it will be taken out.
                    return hint;
                }
                hint.set_lower(body.lower() + ahead);
                if let Some(upper) = body.upper() {
                    hint.set_upper(upper + ahead);
                }
                hint
            }
        }
    }
}
