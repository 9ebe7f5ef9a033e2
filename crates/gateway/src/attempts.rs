//! Trying channels in order until one answers.
//!
//! Another channel is tried only while nothing of an answer has been passed on, and only where it
//! cannot do harm:
//!
//! | what happened | next channel |
//! |---|---|
//! | no connection: nothing was sent | always |
//! | the platform says that it has done nothing (HTTP/2: refused stream, `GOAWAY`) | if the body can be sent whole |
//! | 429, 503: refused before any work | if the body can be sent again and the request creates nothing that lasts |
//! | the channel's key or account refused | likewise; the channel is marked |
//! | another 5xx | likewise, and only if the channel's `retry.on` names it: it may have been billed |
//! | the connection broke, or no answer in time | never, but for GET, HEAD, OPTIONS without body |

use std::error::Error as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aiproxy_config::model::Channel;
use aiproxy_core::{ErrorKind, Fault, Why};
use aiproxy_registry::Registry;
use aiproxy_registry::breaker::State;
use aiproxy_registry::health::{self, Availability, Verdict};
use aiproxy_registry::live::Live;
use aiproxy_routing::{Candidate, Plan, Refusal, admit};
use aiproxy_upstream::swap::SwapError;
use aiproxy_upstream::{BodyFailure, BodyWatch, ConnectError, Incoming, Lease, SendError, Slot, Source};
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Request, StatusCode, response};

use crate::account;
use crate::objects::HIDDEN;
use crate::phases::{Core, unix_now};
use crate::record::Record;

/// The longest time that a channel is left alone because it asked for it.
const REST_MAX: Duration = Duration::from_secs(60);
/// The time where it named none.
const REST: Duration = Duration::from_secs(1);
/// The time after the platform refused the channel's key or account.
const REJECTED_REST: Duration = Duration::from_secs(30);

/// What is to be sent, the caller's side of it.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Option<&'a str>,
    pub(crate) key: &'a str,
    /// Ask for an uncompressed answer: it will be read.
    pub(crate) readable: bool,
    pub(crate) source: Rc<Source>,
    /// The request creates something that lasts at the platform, or starts billing at once.
    pub(crate) creates: bool,
    /// Of the snapshot that the plan was made on.
    pub(crate) epoch: u64,
}

impl<'a> Ask<'a> {
    /// A WebSocket's handshake.
    pub(crate) fn handshake(headers: HeaderMap, query: Option<&'a str>, key: &'a str, epoch: u64) -> Self {
        let source = Source::empty();
        Self { method: Method::GET, headers, query, key, readable: false, source, creates: false, epoch }
    }

    /// Whether sending it twice does no more than sending it once.
    fn is_safe(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS) && self.source.is_empty()
    }
}

/// An answer that goes to the caller.
pub(crate) struct Answered {
    pub(crate) channel: Arc<Channel>,
    pub(crate) slot: Rc<Slot>,
    /// The path that the platform was asked for.
    pub(crate) path: String,
    pub(crate) head: response::Parts,
    /// Bytes of the body that were read already.
    pub(crate) ahead: Option<Bytes>,
    pub(crate) body: Incoming,
    pub(crate) lease: Lease,
    pub(crate) watch: Rc<BodyWatch>,
}

/// Why an attempt gave no answer for the caller.
pub(crate) struct Failed {
    pub(crate) why: Why,
    pub(crate) refusal: Refusal,
    /// Whether the next channel may be tried.
    pub(crate) next: bool,
}

/// Asks the plan's channels in order of health, then of the plan.
///
/// # Errors
/// The last attempt's cause; [`ErrorKind::ChannelUnavailable`] when every breaker is open.
pub(crate) async fn open(
    core: &Core,
    record: &mut Record,
    live: &Live,
    plan: Plan,
    mut ask: Ask<'_>,
) -> Result<Answered, Refusal> {
    let epoch = ask.epoch;
    walk(core, record, live, (plan, epoch), async |record, candidate, turn, more| {
        attempt(core, record, candidate, &mut ask, turn, more).await
    })
    .await
}

/// Tries the plan's channels in order until one attempt has an answer. The plan was made at `epoch`; an
/// attempt is told whether another may come after it.
///
/// # Errors
/// As [`open`].
pub(crate) async fn walk<T>(
    core: &Core,
    record: &mut Record,
    live: &Live,
    (plan, epoch): (Plan, u64),
    mut attempt: impl AsyncFnMut(&mut Record, Candidate, Turn, bool) -> Result<T, Failed>,
) -> Result<T, Refusal> {
    let (candidates, reopens) = by_health(plan, &core.registry);
    let attempts = candidates.first().map_or(1, |first| first.channel.retry.attempts.max(1));
    let mut last = None;
    let mut tried = 0;
    let mut candidates = candidates.into_iter();
    while tried < attempts
        && let Some(candidate) = candidates.next()
    {
        let channel = Arc::clone(&candidate.channel);
        // Noted first: a change that comes after the look below finds it and cuts the request.
        live.set_channel(&channel.id);
        if let Some(kind) = withdrawn(&core.registry, live, Some(&channel), epoch) {
            last.get_or_insert_with(|| kind.into());
            continue;
        }
        let Some(health) = Turn::take(core, &channel) else { continue };
        tried += 1;
        let left = candidates.len().min(attempts - tried);
        record.channel(&channel);
        record.asking();
        match attempt(record, candidate, health, left > 0).await {
            Ok(answered) => return Ok(answered),
            Err(failed) if failed.next && left > 0 => {
                tracing::info!(request = %record.request_id(), channel = %channel.id, why = %failed.why, "trying the next channel");
                record.passed_over(&channel.id, failed.why);
                last = Some(failed.refusal);
            }
            Err(failed) => return Err(failed.refusal),
        }
    }
    Err(last.unwrap_or_else(|| unavailable(reopens)))
}

/// Decides again if something has changed since `epoch`: why the request may not go on, or not with
/// this channel. Reading a body ahead or waiting for another channel takes its time; and as the
/// request is registered, a change that comes later finds it and cuts it.
pub(crate) fn withdrawn(
    registry: &Registry,
    live: &Live,
    channel: Option<&Channel>,
    epoch: u64,
) -> Option<ErrorKind> {
    if registry.epoch() == epoch {
        return None;
    }
    let channel = channel.map(|channel| &*channel.id);
    admit::withdrawn(&registry.snapshot(), &live.digest, channel, unix_now())
        .or_else(|| registry.denials.of_ids(&live.user, &live.digest))
}

/// Channels that are well first, then the last resorts; those whose breaker is open are left out.
/// Also tells when the first of these may be tried again.
fn by_health(plan: Plan, registry: &Registry) -> (Vec<Candidate>, Option<Duration>) {
    let now = Instant::now();
    let mut ready = Vec::with_capacity(plan.candidates.len());
    let mut resorts = Vec::new();
    let mut reopens: Option<Duration> = None;
    for candidate in plan.candidates {
        match registry.health.get(&candidate.channel.id).availability(now) {
            Availability::Ready => ready.push(candidate),
            Availability::LastResort => resorts.push(candidate),
            Availability::Closed(until) => {
                let wait = until.duration_since(now);
                reopens = Some(reopens.map_or(wait, |already| already.min(wait)));
            }
        }
    }
    ready.append(&mut resorts);
    (ready, reopens)
}

fn unavailable(reopens: Option<Duration>) -> Refusal {
    let mut refusal = Refusal::from(ErrorKind::ChannelUnavailable);
    refusal.retry_after = Some(reopens.map_or(1, |wait| wait.as_secs() + 1));
    refusal
}

/// A request's place at a channel: whatever happens to the request, the breaker hears of it.
pub(crate) struct Turn {
    health: Arc<health::Channel>,
    channel: Arc<Channel>,
    reported: bool,
}

impl Turn {
    /// None while the breaker lets nothing through.
    pub(crate) fn take(core: &Core, channel: &Arc<Channel>) -> Option<Self> {
        let health = core.registry.health.get(&channel.id);
        health.admit(&channel.breaker, Instant::now()).then(|| Self {
            health,
            channel: Arc::clone(channel),
            reported: false,
        })
    }

    pub(crate) fn report(&mut self, verdict: Verdict) {
        self.reported = true;
        report(&self.health, &self.channel, verdict);
    }

    /// The platform answered, and not about the channel's key. `again`: the next channel may be asked.
    ///
    /// # Errors
    /// Where that is to be done.
    pub(crate) fn answered(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        again: bool,
    ) -> Result<(), Failed> {
        let code = status.as_u16();
        let busy = matches!(code, 429 | 503);
        if busy {
            self.health.rest(rest_time(headers), Instant::now());
        }
        self.report(verdict(status));
        if again && (busy || self.channel.retry.on.contains(&code)) {
            let refusal = ErrorKind::ChannelUnavailable.into();
            return Err(Failed { why: Why::Status(code), refusal, next: true });
        }
        Ok(())
    }

    /// The platform refused the channel's key or account.
    pub(crate) fn rejected(&mut self, status: StatusCode) {
        self.reported = true;
        if self.health.reject(REJECTED_REST, Instant::now()) {
            tracing::error!(
                channel = %self.channel.id,
                status = status.as_u16(),
                "the platform refused the channel's key or account; check the channel's api_key and its billing"
            );
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.reported {
            self.report(Verdict::Nothing);
        }
    }
}

/// Tells the breaker, and the log when that changed something.
pub(crate) fn report(health: &health::Channel, channel: &Channel, verdict: Verdict) {
    match health.report(verdict, &channel.breaker, Instant::now()) {
        Some(State::Open(_)) => {
            tracing::warn!(channel = %channel.id, "breaker open: the channel keeps failing");
        }
        Some(state) => tracing::info!(channel = %channel.id, state = state.as_str(), "breaker"),
        None => {}
    }
}

async fn attempt(
    core: &Core,
    record: &mut Record,
    candidate: Candidate,
    ask: &mut Ask<'_>,
    mut turn: Turn,
    more: bool,
) -> Result<Answered, Failed> {
    let channel = candidate.channel;
    let slot = core.pool.slot(&channel);
    let uri = slot.prepared().target(&candidate.path, ask.query, ask.key).map_err(refused_target)?;
    let mut headers = if more { ask.headers.clone() } else { std::mem::take(&mut ask.headers) };
    slot.prepared().swap_headers(&mut headers, ask.key, ask.readable);
    let watch = BodyWatch::new();
    record.watch(Rc::clone(&watch));
    let mut request = Request::new(ask.source.attempt(Rc::clone(&watch)));
    *request.method_mut() = ask.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let answer = match slot.send(request, &watch).await {
        Ok(answer) => answer,
        Err(error) => return Err(no_answer(&error, &channel, ask, &mut turn, &watch, record)),
    };
    let (head, mut body) = answer.response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        turn.report(Verdict::Bad);
        return Err(failed(ErrorKind::UpstreamProtocol));
    }
    let checked = account::check(&channel, head.status, &mut body).await;
    // Once the body is gone, the answer that came is the one that the caller gets. It may have gone
    // on its way to this platform while the refusal was read.
    let again = more && !ask.creates && ask.source.replayable();
    let ahead = match checked {
        Ok(ahead) => ahead,
        Err(kind) => {
            turn.rejected(head.status);
            return Err(Failed { next: again, ..failed(kind) });
        }
    };
    turn.answered(head.status, &head.headers, again)?;
    record.answered(head.status.as_u16());
    Ok(Answered { channel, slot, path: candidate.path, head, ahead, body, lease: answer.lease, watch })
}

/// What an answer's status says about the channel. That it knows no such method or version says
/// nothing: that is the caller's choice.
pub(crate) fn verdict(status: StatusCode) -> Verdict {
    match status.as_u16() {
        501 | 505 => Verdict::Good,
        500.. => Verdict::Bad,
        _ => Verdict::Good,
    }
}

/// What a failed exchange means to the channel, to the caller and to the next attempt.
pub(crate) fn no_answer(
    error: &SendError,
    channel: &Channel,
    ask: &Ask<'_>,
    turn: &mut Turn,
    watch: &BodyWatch,
    record: &Record,
) -> Failed {
    let kind = match error {
        SendError::Connect(error) if error.is_ours() => ErrorKind::Overloaded,
        SendError::Connect(ConnectError::Timeout) | SendError::Timeout => ErrorKind::UpstreamTimeout,
        SendError::Connect(_) | SendError::Broken(_) | SendError::NotProcessed(_) => {
            ErrorKind::UpstreamUnreachable
        }
        SendError::Protocol(_) | SendError::NotASocket => ErrorKind::UpstreamProtocol,
        SendError::CallerStalled | SendError::Body(BodyFailure::TooSlow) => ErrorKind::RequestTimeout,
        SendError::Body(BodyFailure::TooLarge) => ErrorKind::BodyTooLarge,
        SendError::Body(BodyFailure::Refused(HIDDEN)) => ErrorKind::ObjectNotFound,
        SendError::Body(BodyFailure::Refused(reason)) => {
            let refusal =
                Refusal::new(ErrorKind::ModelNotAllowed, format!("The request was broken off: {reason}."));
            return Failed { refusal, ..failed(ErrorKind::ModelNotAllowed) };
        }
        SendError::Body(BodyFailure::CallerGone | BodyFailure::Malformed) => {
            let refusal =
                Refusal::new(ErrorKind::BadRequest, "The request body ended early or is malformed.");
            return Failed { refusal, ..failed(ErrorKind::BadRequest) };
        }
    };
    if kind.fault() == Fault::Channel {
        // A platform that closes on an upload which does not go on has not failed.
        let unfinished = matches!(error, SendError::Broken(_)) && !watch.done();
        turn.report(if unfinished { Verdict::Nothing } else { Verdict::Bad });
        let cause = error.source().map(ToString::to_string);
        tracing::warn!(request = %record.request_id(), channel = %channel.id, %error, cause, "no answer from the platform");
    }
    let next = match error {
        SendError::Connect(_) => true,
        SendError::NotProcessed(_) => ask.source.is_whole(),
        SendError::Broken(_) | SendError::Protocol(_) | SendError::NotASocket | SendError::Timeout => {
            ask.is_safe()
        }
        _ => false,
    };
    Failed { next, ..failed(kind) }
}

pub(crate) fn failed(kind: ErrorKind) -> Failed {
    Failed { why: Why::Error(kind), refusal: kind.into(), next: false }
}

pub(crate) fn refused_target(error: SwapError) -> Failed {
    let message = match error {
        SwapError::KeyInTarget => "The URL holds your Proxy-Key in a place where it would be passed on.",
        SwapError::BadTarget => "The request target is not a valid URL.",
    };
    Failed { refusal: Refusal::new(ErrorKind::BadRequest, message), ..failed(ErrorKind::BadRequest) }
}

/// `Retry-After` in seconds, bounded.
fn rest_time(headers: &HeaderMap) -> Duration {
    headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map_or(REST, |seconds| Duration::from_secs(seconds).min(REST_MAX))
}
