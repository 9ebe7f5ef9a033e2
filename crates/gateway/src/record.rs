//! The guard that turns into the usage event.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_config::model::{Channel, User};
use aiproxy_core::ports::{CallCause, CallUse, EndOrder, Side, SocketCause, SocketEnd, SocketUse, UsageSink};
use aiproxy_core::{
    ErrorKind, LegFigures, Outcome, PassedOver, Protocol, RequestId, Secret, SocketFigures, Usage,
    UsageEvent, Why,
};
use aiproxy_platform::{PriceTable, endpoint};
use aiproxy_routing::Target;
use aiproxy_upstream::{BodyFailure, BodyWatch};
use http::header::USER_AGENT;
use http::{HeaderMap, Method, StatusCode, Version};
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use crate::endpoints::Endpoints;

/// The longest path and the longest name of a program that are recorded, in bytes.
const PATH_BYTES: usize = 256;
const AGENT_BYTES: usize = 160;
/// How often a text may be percent-encoded that is searched for keys.
const ENCODINGS: usize = 8;

/// Gathers what is known of one request and records it once: when its end is known, or at the latest
/// when this drops, however the request ends.
pub(crate) struct Record {
    /// In a box: the record moves from hand to hand.
    event: Option<Box<UsageEvent>>,
    /// Stays when the event has been recorded.
    id: RequestId,
    began: Instant,
    /// The caller is known to have left: what is answered, nobody reads.
    gone: bool,
    /// The endpoint's, if it is a known one.
    template: Option<&'static str>,
    /// Of an endpoint of no known template: a description, and what it begins with.
    guess: Option<(String, &'static str)>,
    watch: Option<Rc<BodyWatch>>,
    /// Time for which the caller was waited for before a platform could be asked.
    waited: Duration,
    /// Bytes of the body that are not the caller's.
    added: u64,
    prices: Option<Arc<PriceTable>>,
    /// What must not be recorded, whoever writes it where: the caller's key and the channel's.
    keys: [Option<Secret>; 2],
    endpoints: Arc<Endpoints>,
    sink: Arc<dyn UsageSink>,
}

impl Record {
    /// Begins when a head has been read. Until something better is known, the caller left.
    pub(crate) fn begin(
        method: Method,
        caller_ip: IpAddr,
        endpoints: Arc<Endpoints>,
        sink: Arc<dyn UsageSink>,
    ) -> Self {
        let event = UsageEvent::begin(method, caller_ip);
        Self {
            id: event.request_id,
            event: Some(Box::new(event)),
            began: Instant::now(),
            gone: false,
            template: None,
            guess: None,
            watch: None,
            waited: Duration::ZERO,
            added: 0,
            prices: None,
            keys: [None, None],
            endpoints,
            sink,
        }
    }

    pub(crate) fn request_id(&self) -> RequestId {
        self.id
    }

    /// What the caller speaks.
    pub(crate) fn spoke(&mut self, version: Version) {
        let protocol = match version {
            Version::HTTP_2 => Protocol::Http2,
            Version::HTTP_3 => Protocol::Http3,
            _ => return,
        };
        self.set(|event| event.protocol = protocol);
    }

    /// What is known of the endpoint without a word of the caller's: its template, if it has one.
    pub(crate) fn endpoint(&mut self, target: &Target<'_>) {
        self.template = endpoint::template(&target.normal);
        let known = self.template.unwrap_or(target.route.prefix);
        self.set(|event| event.endpoint = known.into());
    }

    /// The path and the name of the caller's program, which hold no key.
    pub(crate) fn details(&mut self, target: &Target<'_>, headers: &HeaderMap, key: &str) {
        self.keys[0] = Some(Secret::new(key.to_owned()));
        if !shows(target.path, key) {
            if self.template.is_none() {
                self.guess = Some((endpoint::guess(&target.normal), target.route.prefix));
            }
            let path = &target.path[..target.path.floor_char_boundary(PATH_BYTES)];
            if self.template != Some(path) {
                self.set(|event| event.path = Some(path.into()));
            }
        }
        let agent = headers.get(USER_AGENT).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
        if let Some(agent) = agent.filter(|agent| !agent.is_empty() && !shows(agent, key)) {
            let end = agent.floor_char_boundary(AGENT_BYTES);
            self.set(|event| event.user_agent = Some(agent[..end].into()));
        }
    }

    pub(crate) fn user(&mut self, user: &User) {
        self.set(|event| {
            event.user = Some(Arc::clone(&user.id));
            event.key = Some(Arc::clone(&user.key.tag));
        });
    }

    pub(crate) fn channel(&mut self, channel: &Channel) {
        self.prices.clone_from(&channel.prices);
        self.keys[1] = Some(channel.api_key.clone());
        self.set(|event| event.channel = Some(Arc::clone(&channel.id)));
    }

    pub(crate) fn model(&mut self, model: String) {
        if self.may_show(&model) {
            self.set(|event| event.model = Some(model.into()));
        }
    }

    /// Names end up on people's screens.
    fn may_show(&self, text: &str) -> bool {
        !self.holds_key(text) && !text.contains(char::is_control)
    }

    fn holds_key(&self, text: &str) -> bool {
        self.keys.iter().flatten().any(|key| shows(text, key.expose()))
    }

    /// The body on its way up, asked for its bytes at the end.
    pub(crate) fn watch(&mut self, watch: Rc<BodyWatch>) {
        self.watch = Some(watch);
    }

    /// So many bytes were added to the caller's body.
    pub(crate) fn added(&mut self, bytes: u64) {
        self.added = bytes;
    }

    /// The first platform is asked from now on.
    pub(crate) fn asking(&mut self) {
        let elapsed = self.began.elapsed().saturating_sub(self.waited);
        self.set(|event| event.own = Some(event.own.unwrap_or(elapsed)));
    }

    /// A channel is passed over for the next one.
    pub(crate) fn passed_over(&mut self, channel: &Arc<str>, why: Why) {
        self.set(|event| event.passed_over.push(PassedOver { channel: Arc::clone(channel), why }));
    }

    /// The platform's answer head has come.
    pub(crate) fn answered(&mut self, status: u16) {
        let elapsed = self.began.elapsed();
        self.set(|event| {
            event.status = status;
            event.first_byte = Some(elapsed);
        });
    }

    /// Our answer's head is ready.
    pub(crate) fn answering(&mut self) {
        let elapsed = self.began.elapsed();
        self.set(|event| {
            if let (Some(own), Some(first_byte)) = (&mut event.own, event.first_byte) {
                *own += elapsed.saturating_sub(first_byte);
            }
        });
    }

    /// The caller left while its body was read ahead.
    pub(crate) fn caller_gone(&mut self) {
        self.gone = true;
    }

    /// AIProxy answers by itself. Who has left in mid-upload does not hear it: that stays on record.
    pub(crate) fn refused(&mut self, kind: ErrorKind) {
        let failure = self.watch.as_ref().and_then(|watch| watch.failure());
        if self.gone || failure == Some(BodyFailure::CallerGone) {
            return;
        }
        self.set(|event| {
            event.status = kind.status().as_u16();
            event.error = Some(kind);
            event.outcome = Outcome::Refused;
        });
    }

    /// AIProxy answers by itself, and that is no refusal.
    pub(crate) fn own_answer(&mut self, status: u16) {
        self.set(|event| {
            event.status = status;
            event.outcome = Outcome::Complete;
        });
    }

    /// The key, user or channel was withdrawn.
    pub(crate) fn cut(&mut self, kind: ErrorKind) {
        self.set(|event| {
            event.error = Some(kind);
            event.outcome = Outcome::Cut;
        });
    }

    pub(crate) fn passed_down(&mut self, bytes: usize) {
        self.set(|event| event.bytes_out += bytes as u64);
    }

    /// What the platform's answer used.
    pub(crate) fn used(&mut self, mut usage: Usage) {
        usage.model = usage.model.filter(|model| !self.holds_key(model));
        let prices = self.prices.clone();
        self.set(|event| {
            let model = event.model.as_deref();
            event.cost = prices.and_then(|prices| prices.cost(&usage, model));
            event.usage = Some(usage);
        });
    }

    /// A WebSocket is asked for.
    pub(crate) fn socket(&mut self) {
        self.set(|event| event.protocol = Protocol::WebSocket);
    }

    /// For so long it was the caller's turn to say what it wants.
    pub(crate) fn waited(&mut self, time: Duration) {
        self.waited = time;
    }

    /// A WebSocket whose caller had been answered never got to a platform.
    pub(crate) fn unopened(&mut self, cause: SocketCause, close_code: Option<u16>, frames: u64) {
        let (outcome, error) = outcome(cause);
        self.set(|event| {
            if !matches!(cause, SocketCause::Declined(_)) {
                event.status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
            }
            (event.outcome, event.error) = (outcome, error);
            event.socket = Some(SocketFigures { frames_in: frames, frames_out: 0, close_code });
        });
    }

    /// A WebSocket is open: says so, and what has passed through it so far, for whoever finds the
    /// journal of a process that was killed.
    pub(crate) fn open(&mut self, used: SocketUse) {
        self.passed(used, None);
        self.report();
    }

    /// Says what is known so far.
    fn report(&mut self) {
        self.name();
        let total = self.began.elapsed();
        let Some(event) = &mut self.event else { return };
        event.part = Some(event.part.map_or(0, |part| part + 1));
        self.sink.record(UsageEvent { outcome: Outcome::Open, error: None, total, ..(**event).clone() });
    }

    /// A WebSocket has ended.
    pub(crate) fn socket_ended(&mut self, end: SocketEnd) {
        let (outcome, error) = outcome(end.cause);
        self.set(|event| (event.outcome, event.error) = (outcome, error));
        self.passed(end.used, end.close_code);
    }

    fn passed(&mut self, used: SocketUse, close_code: Option<u16>) {
        let SocketUse { frames_in, frames_out, bytes_in, bytes_out, usage, model } = used;
        let model = model.filter(|model| self.may_show(model));
        self.set(|event| {
            (event.bytes_in, event.bytes_out) = (bytes_in, bytes_out);
            event.model = event.model.take().or_else(|| model.map(Into::into));
            event.socket = Some(SocketFigures { frames_in, frames_out, close_code });
        });
        if let Some(usage) = usage {
            self.used(usage);
        }
    }

    /// A call is offered.
    pub(crate) fn call(&mut self) {
        self.set(|event| event.protocol = Protocol::WebRtc);
    }

    /// A call goes on: as [`open`](Self::open).
    pub(crate) fn call_open(&mut self, used: CallUse) {
        self.call_passed(used);
        self.report();
    }

    /// A call has ended.
    pub(crate) fn call_ended(&mut self, cause: CallCause, used: CallUse) {
        let (outcome, error) = call_outcome(cause);
        self.set(|event| (event.outcome, event.error) = (outcome, error));
        self.call_passed(used);
    }

    fn call_passed(&mut self, used: CallUse) {
        let CallUse { figures, usage, model } = used;
        let model = model.filter(|model| self.may_show(model));
        let bytes = |leg: &LegFigures| leg.media_bytes + leg.message_bytes;
        self.set(|event| {
            (event.bytes_in, event.bytes_out) = (bytes(&figures.caller), bytes(&figures.platform));
            event.model = event.model.take().or_else(|| model.map(Into::into));
            event.call = Some(Box::new(figures));
        });
        if let Some(usage) = usage {
            self.used(usage);
        }
    }

    pub(crate) fn ended(&mut self, outcome: Outcome) {
        self.set(|event| event.outcome = outcome);
    }

    fn set(&mut self, change: impl FnOnce(&mut UsageEvent)) {
        if let Some(event) = &mut self.event {
            change(event);
        }
    }
}

impl Record {
    /// Hands the event over. To be called before the caller can know that the answer is whole: what
    /// a caller has seen complete is on record, whatever happens to this process then.
    pub(crate) fn finish(&mut self) {
        self.name();
        if let Some(mut event) = self.event.take() {
            event.total = self.began.elapsed();
            // Of a call, sound and messages count, not the offer, which is another one by then.
            if event.call.is_none() {
                let passed = self.watch.as_ref().map_or(0, |watch| watch.bytes());
                event.bytes_in += passed.saturating_sub(self.added);
            }
            event.part = event.part.map(|part| part + 1);
            self.sink.record(*event);
        }
    }

    /// What an endpoint of no known template is called depends on whether it was served.
    fn name(&mut self) {
        if let Some(event) = &mut self.event
            && let Some((guess, prefix)) = self.guess.take()
        {
            let served = matches!(event.status, 101 | 200..300);
            event.endpoint = self.endpoints.name(guess, prefix, served);
        }
    }
}

/// How a socket's end is named.
fn outcome(cause: SocketCause) -> (Outcome, Option<ErrorKind>) {
    match cause {
        // An orderly end, whoever wanted it.
        SocketCause::Closed(_)
        | SocketCause::Declined(_)
        | SocketCause::Idle
        | SocketCause::Total
        | SocketCause::Ordered(EndOrder::Drained | EndOrder::HungUp) => (Outcome::Complete, None),
        SocketCause::Lost(Side::Caller) => (Outcome::CallerLeft, None),
        SocketCause::Lost(Side::Platform) => (Outcome::UpstreamFailed, None),
        SocketCause::Violation(Side::Caller) => (Outcome::Refused, Some(ErrorKind::BadRequest)),
        SocketCause::TooLarge(Side::Caller) => (Outcome::Refused, Some(ErrorKind::BodyTooLarge)),
        SocketCause::Violation(Side::Platform) | SocketCause::TooLarge(Side::Platform) => {
            (Outcome::UpstreamFailed, Some(ErrorKind::UpstreamProtocol))
        }
        SocketCause::Refused(kind) => (Outcome::Refused, Some(kind)),
        SocketCause::Ordered(EndOrder::Cut(kind)) => (Outcome::Cut, Some(kind)),
    }
}

/// How a call's end is named.
fn call_outcome(cause: CallCause) -> (Outcome, Option<ErrorKind>) {
    match cause {
        CallCause::Closed(_)
        | CallCause::Idle
        | CallCause::Total
        | CallCause::Ordered(EndOrder::Drained | EndOrder::HungUp) => (Outcome::Complete, None),
        CallCause::Lost(Side::Caller) | CallCause::Unreached(Side::Caller) => (Outcome::CallerLeft, None),
        CallCause::Lost(Side::Platform) => (Outcome::UpstreamFailed, None),
        CallCause::Unreached(Side::Platform) => {
            (Outcome::UpstreamFailed, Some(ErrorKind::UpstreamUnreachable))
        }
        CallCause::Failed => (Outcome::UpstreamFailed, Some(ErrorKind::Internal)),
        CallCause::Ordered(EndOrder::Cut(kind)) => (Outcome::Cut, Some(kind)),
    }
}

/// Whether the text holds the key, in any case and however often it is percent-encoded. Nearly all
/// texts are shorter than any key. What is encoded more than [`ENCODINGS`] times is taken to hold it.
fn shows(text: &str, key: &str) -> bool {
    if text.len() < key.len() {
        return false;
    }
    let key = key.to_lowercase();
    let mut text = Cow::Borrowed(text);
    for _ in 0..ENCODINGS {
        if text.to_lowercase().contains(&key) {
            return true;
        }
        let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if decoded.len() >= text.len() {
            return false;
        }
        text = Cow::Owned(decoded);
    }
    // Nobody means anything by this, and each look costs as much as the first.
    true
}

impl Drop for Record {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::shows;

    #[test]
    fn keys_are_seen_in_any_spelling() {
        let key = "pk_User1";
        for text in
            ["pk_User1", "x/PK_USER1!", "pk%5fuser1", "pk%255Fuser1", "%70%25%36%62_user1", "pk_user1%"]
        {
            assert!(shows(text, key), "{text}");
        }
        // Decoding it to its end would take as many looks as it has bytes.
        assert!(shows(&format!("/v1/%{}", "25".repeat(30_000)), key));
        for text in ["", "pk_user", "pk_user%", "pk-user1 pk_user2", "%%%%%%%%%%%%"] {
            assert!(!shows(text, key), "{text}");
        }
    }
}
