//! The traits through which sibling crates meet; `src/` wires the two ends together.
//!
//! Futures are boxed and need not be `Send`: a request never leaves its thread.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::ErrorKind;
use crate::usage::{CallFigures, Usage, UsageEvent};

/// What an asynchronous port returns.
pub type PortFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What a user has used, for its own eyes. The composition root implements it over the journal; the gateway
/// calls it.
pub trait OwnUsage: Send + Sync + std::fmt::Debug + 'static {
    /// The figures as JSON, `null` where there are none at the moment. May take as long as reading the
    /// journal does, and bounds how many wait for it.
    fn of(&self, user: Arc<str>) -> PortFuture<'static, serde_json::Value>;
}

/// Where usage events go. The meter implements it; the gateway and signaling call it.
pub trait UsageSink: Send + Sync + 'static {
    /// Takes the event. Never blocks and never fails: an implementation that cannot keep the
    /// event counts the loss where operators see it.
    fn record(&self, event: UsageEvent);

    /// As [`record`](Self::record), for a sink that others come after. One that keeps nothing of
    /// the event overrides this and saves the copy.
    fn observe(&self, event: &UsageEvent) {
        self.record(event.clone());
    }
}

/// Hands every event to several sinks in turn; without any, nowhere.
pub struct Fanout {
    first: Vec<Arc<dyn UsageSink>>,
    last: Option<Arc<dyn UsageSink>>,
}

impl Fanout {
    /// The last sink is given the event itself, those before it a look at it.
    #[must_use]
    pub fn new(mut sinks: Vec<Arc<dyn UsageSink>>) -> Self {
        let last = sinks.pop();
        Self { first: sinks, last }
    }
}

impl UsageSink for Fanout {
    fn record(&self, event: UsageEvent) {
        for sink in &self.first {
            sink.observe(&event);
        }
        if let Some(last) = &self.last {
            last.record(event);
        }
    }

    fn observe(&self, event: &UsageEvent) {
        for sink in self.first.iter().chain(&self.last) {
            sink.observe(event);
        }
    }
}

/// One owned object: something that a platform keeps for a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRecord {
    /// The platform's id, exactly as the platform writes it.
    pub id: Arc<str>,
    /// What it is: `file`, `batch`, … as in `platform::objects`.
    pub kind: Arc<str>,
    /// Id of the user who made it.
    pub owner: Arc<str>,
    /// Id of the channel that it lives on.
    pub channel: Arc<str>,
    /// When it was first seen, Unix time in seconds.
    pub created: u64,
}

/// One line of the journal of owned objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectChange {
    /// The object belongs to its owner from now on.
    Made(ObjectRecord),
    /// The object with this id is gone.
    Gone(Arc<str>),
}

/// Keeps owned objects beyond the life of the process. The store implements it; the registry
/// calls it.
pub trait ObjectJournal: Send + Sync + 'static {
    /// Takes the change. Never blocks and never fails: an implementation that cannot keep it
    /// counts the loss where operators see it. The future resolves to `true` once the change
    /// survives the end of the process, `kill -9` included, and to `false` where it will not;
    /// the change is written whether or not anybody waits.
    fn record(&self, change: ObjectChange) -> PortFuture<'static, bool>;
}

/// Keeps which client secrets for one session have been used beyond the life of the process. The store
/// implements it; the registry calls it.
pub trait UsedSecrets: Send + Sync + 'static {
    /// Notes that the secret with this id is used up; from `expires` on (Unix time in seconds) nobody
    /// asks any more. One short write: the note survives the end of the process, `kill -9` included. An
    /// implementation that cannot keep it says so where operators see it.
    fn keep(&self, id: &str, expires: i64);
}

/// A byte stream whose kind no longer matters.
pub trait SocketStream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> SocketStream for S {}

/// What a caller's opening handshake says, once it is known to be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: String,
    /// The subprotocols that the caller offers, in order. Keys may stand among them: they are not
    /// for logs.
    pub protocols: Vec<String>,
}

/// Looks at opening handshakes and moves the frames of sockets. Signaling implements it; the
/// gateway calls it, and answers [`ErrorKind::UpgradeUnsupported`] where nobody does.
///
/// The gateway keeps the phases: who calls, what for, which channels, in which order. It asks the
/// platform first, so that a refusal can still be an HTTP answer and another channel be tried, and
/// hands both streams over once the 101 has left.
pub trait UpgradeHandler: Send + Sync + 'static {
    /// Whether the request is an opening handshake as RFC 6455, section 4.2.1 wants it.
    ///
    /// # Errors
    /// The cause, with a sentence for the caller.
    fn opening(&self, head: &http::request::Parts) -> Result<Opening, (ErrorKind, &'static str)>;

    /// Waits for the first message of a caller that has been answered already, because the message
    /// says who calls or which model is wanted. Pings are answered meanwhile.
    ///
    /// # Errors
    /// Why there is none. The caller has not been told yet.
    fn first<'a>(&'a self, ask: FirstAsk<'a>) -> PortFuture<'a, Result<FirstMessage, FirstEnd>>;

    /// Moves frames both ways until the socket has ended, however it ends. Both streams are closed
    /// then. Dropping the future cuts them.
    fn relay(&self, sockets: Sockets) -> PortFuture<'static, SocketEnd>;

    /// Closes a caller's socket that is at the beginning of a frame with this code and reason, or
    /// without a word; the reason is cut to what a close frame holds.
    fn part(&self, caller: Box<dyn SocketStream>, told: Option<(u16, String)>) -> PortFuture<'static, ()>;
}

/// What is waited for.
pub struct FirstAsk<'a> {
    /// Towards the caller.
    pub caller: &'a mut dyn SocketStream,
    /// What came from the caller behind its handshake.
    pub ahead: bytes::Bytes,
    /// Bounds of frames and messages.
    pub limits: SocketLimits,
    /// Whether the message is needed as a whole: it is too large then where it is larger than
    /// [`SocketLimits::held_bytes`].
    pub whole: bool,
    /// How long it may take.
    pub within: Duration,
    /// Set while a pong is on its way: where the waiting is given up then, nothing else can be said.
    pub speaking: &'a std::cell::Cell<bool>,
}

/// A caller's first message.
pub struct FirstMessage {
    /// Text, or binary.
    pub text: bool,
    /// What it says, without masks; its beginning where it is longer than
    /// [`SocketLimits::held_bytes`].
    pub payload: Vec<u8>,
    /// Its frames as they came and what was read behind them, without the pings and pongs before
    /// its end: for [`Sockets::caller_ahead`].
    pub ahead: bytes::Bytes,
}

/// Why there is no first message, and what the caller is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstEnd {
    /// Why.
    pub cause: SocketCause,
    /// Close code and reason, where anybody is there to hear them.
    pub told: Option<(u16, &'static str)>,
}

/// Rewrites a caller's messages before the platform sees them, the first one or all.
pub trait MessageEdit {
    /// The message as the platform is to have it; `None` where it stays as it is.
    ///
    /// # Errors
    /// Why the socket has to end instead.
    fn edit(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, ErrorKind>;

    /// Whether the next message is to be shown as well.
    fn wants_more(&self) -> bool;
}

/// A socket to be relayed.
pub struct Sockets {
    /// Towards the caller.
    pub caller: Box<dyn SocketStream>,
    /// What came from the caller behind its handshake.
    pub caller_ahead: bytes::Bytes,
    /// Towards the platform.
    pub platform: Box<dyn SocketStream>,
    /// What came from the platform behind its 101.
    pub platform_ahead: bytes::Bytes,
    /// The platform is reached in the clear: the caller's masks are replaced by fresh ones.
    pub remask: bool,
    /// Bounds.
    pub limits: SocketLimits,
    /// Whether usage is read from the platform's messages.
    pub metered: bool,
    /// Which of the caller's messages are read for models.
    pub models: ReadModels,
    /// What becomes of the caller's messages on their way up. While there is something, messages are
    /// held until they are whole.
    pub edit: Option<Box<dyn MessageEdit>>,
    /// A text message that the platform hears before any of the caller's: what the session begins with.
    pub prelude: Option<Vec<u8>>,
    /// What others decide about the socket.
    pub guard: Box<dyn SocketGuard>,
}

/// Which of a caller's messages are read for the models that they name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadModels {
    /// None: the model is known, and any is allowed.
    Never,
    /// Until one is found, for the record.
    First,
    /// All: what may be asked for is limited.
    All,
}

/// Bounds of a socket.
#[derive(Debug, Clone, Copy)]
pub struct SocketLimits {
    /// Bytes of a message, all its frames together.
    pub message_bytes: u64,
    /// Bytes of a frame.
    pub frame_bytes: u64,
    /// Bytes of a message that has to be held because it is looked at or rewritten as a whole.
    pub held_bytes: usize,
    /// The longest time without a byte in either direction.
    pub idle: Duration,
    /// How much longer it may last, if that is bounded.
    pub total: Option<Duration>,
    /// How often it is said what has passed; never where there is nobody to hear it.
    pub report: Option<Duration>,
}

/// What the one who handed a socket over decides about it, and hears of it.
pub trait SocketGuard {
    /// Ready once the socket has to end.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<EndOrder>;

    /// Whether the caller may ask for this model.
    fn admits(&self, model: &str) -> bool;

    /// Whether the caller may have this model write down what it says, beside the session's own.
    fn admits_aside(&self, model: &str) -> bool {
        self.admits(model)
    }

    /// Bytes were handed to the caller.
    fn passed_down(&self, bytes: usize);

    /// What has passed until now: each [`SocketLimits::report`], while something does; else every tenth
    /// time.
    fn so_far(&self, figures: SocketUse);
}

/// Why a socket has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndOrder {
    /// The key, user or channel was withdrawn.
    Cut(ErrorKind),
    /// The process ends.
    Drained,
    /// The caller asked for the end over HTTP.
    HungUp,
}

impl EndOrder {
    /// Close code and reason that the caller hears. The code for what cannot be cured is none on which
    /// SDKs connect again (1001, 1005, 1006, 1011, 1012, 1013, 1015).
    #[must_use]
    pub const fn told(self) -> (u16, &'static str) {
        match self {
            Self::Cut(_) => (4001, "revoked"),
            Self::Drained => (1001, ""),
            Self::HungUp => (1000, ""),
        }
    }
}

/// One end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The caller.
    Caller,
    /// The platform.
    Platform,
}

/// Why a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketCause {
    /// This side began the closing handshake.
    Closed(Side),
    /// This side's connection ended without a closing handshake.
    Lost(Side),
    /// This side sent what no frame is.
    Violation(Side),
    /// This side sent a frame or a message beyond the bounds.
    TooLarge(Side),
    /// The caller's messages said something that it may not, as a model that it may not use; or
    /// nothing in time.
    Refused(ErrorKind),
    /// The platform refused it, with this status, after the caller had been answered.
    Declined(u16),
    /// Silence.
    Idle,
    /// It lasted as long as it may.
    Total,
    /// It was ordered to end.
    Ordered(EndOrder),
}

/// What there is to say about a socket that has ended.
#[derive(Debug, Clone)]
pub struct SocketEnd {
    /// Why it ended.
    pub cause: SocketCause,
    /// The close code that the caller sent or was sent, first; 1005 for a close without a code.
    pub close_code: Option<u16>,
    /// What passed.
    pub used: SocketUse,
}

/// What has passed through a socket since it was opened.
#[derive(Debug, Clone, Default)]
pub struct SocketUse {
    /// Frames that the caller sent and that were passed on.
    pub frames_in: u64,
    /// Frames that were passed to the caller.
    pub frames_out: u64,
    /// Bytes of frames that the caller sent and that were passed on.
    pub bytes_in: u64,
    /// Bytes of frames that were passed to the caller.
    pub bytes_out: u64,
    /// What the platform reported.
    pub usage: Option<Usage>,
    /// The first model that the caller's messages named.
    pub model: Option<String>,
}

/// What a caller asks for when it offers a call, whatever shape it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallOffer {
    /// The offer (SDP, RFC 8866).
    pub sdp: String,
    /// The session's settings, a JSON object.
    pub session: Option<String>,
    /// How it came.
    pub shape: CallShape,
}

/// How an offer is sent, and its answer comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallShape {
    /// The body is the SDP (`application/sdp`), the answer likewise.
    Raw,
    /// `multipart/form-data` with the parts `sdp` and `session`; the answer is the SDP.
    Multipart,
    /// JSON with `session` and `transport.sdp` (OpenAI's Live); the answer likewise.
    Live,
}

/// A model that somebody names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedModel {
    /// Its name.
    pub name: String,
    /// It only writes down what the caller says, beside the model that answers.
    pub aside: bool,
}

/// A platform's answer to an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallReply {
    /// The answer (SDP).
    pub sdp: String,
    /// The platform's id of the call, where the body names it.
    pub id: Option<String>,
}

/// Reads and writes the bodies that carry offers and answers (`POST /v1/realtime/calls` and
/// relatives). Signaling implements it; the gateway calls it with bodies that it has bounded.
pub trait SdpHandler: Send + Sync + 'static {
    /// Takes an offer out of a request's body.
    ///
    /// # Errors
    /// What is wrong with it, for the caller.
    fn read(&self, content_type: Option<&str>, body: &[u8]) -> Result<CallOffer, String>;

    /// The models that a session's settings name, its own first if it has one.
    fn models(&self, session: &str) -> Vec<NamedModel>;

    /// The session's settings, which stand over `initial` ones, with this model if there is one. A
    /// session that says nothing of its type is a realtime one.
    ///
    /// # Errors
    /// What is wrong with the settings, for the caller.
    fn settle(
        &self,
        session: Option<&str>,
        initial: Option<&str>,
        model: Option<&str>,
    ) -> Result<String, String>;

    /// The `Content-Type` and the body that say so to a platform.
    fn write(&self, offer: &CallOffer) -> (String, bytes::Bytes);

    /// Takes the answer out of a platform's body.
    ///
    /// # Errors
    /// What is wrong with it.
    fn answer(&self, shape: CallShape, body: &[u8]) -> Result<CallReply, String>;

    /// The `Content-Type` and the body with this answer and this id in place of the platform's.
    fn reply(&self, shape: CallShape, body: &[u8], sdp: &str, id: &str) -> (&'static str, bytes::Bytes);
}

/// Bridges the two peer connections of calls. The relay implements it; the gateway calls it.
pub trait MediaPlane: Send + Sync + 'static {
    /// Takes a caller's offer and makes the one that goes to the platform.
    ///
    /// # Errors
    /// The cause, with a sentence for the caller.
    fn open(&self, offer: &str, limits: CallLimits) -> Result<Box<dyn OpenCall>, (ErrorKind, String)>;
}

/// A call whose platform has not answered. Dropping it ends it.
pub trait OpenCall {
    /// The offer for the platform, with all its candidates.
    fn offer(&self) -> &str;

    /// Takes the platform's answer; gives the caller's, and the call itself, which goes on as long as
    /// the future is polled and ends with it. Dropping the future cuts both legs.
    ///
    /// # Errors
    /// The cause, with a sentence for the log.
    fn answer(self: Box<Self>, answer: &str, terms: CallTerms) -> Result<AnsweredCall, (ErrorKind, String)>;
}

/// A call that has been answered.
pub struct AnsweredCall {
    /// The answer for the caller, with all its candidates.
    pub answer: String,
    /// The call.
    pub call: PortFuture<'static, CallEnd>,
}

/// Bounds of a call.
#[derive(Debug, Clone, Copy)]
pub struct CallLimits {
    /// Both legs have to stand within this time.
    pub setup: Duration,
    /// The longest time without a packet of sound or a message in either direction.
    pub idle: Duration,
    /// How long it may last, if that is bounded.
    pub total: Option<Duration>,
    /// A side that cannot be reached has this long to come back.
    pub grace: Duration,
    /// Bytes of a message on a data channel.
    pub message_bytes: u32,
    /// Bytes of messages held for a side that does not take them.
    pub held_bytes: usize,
    /// How often it is said what has passed; never where there is nobody to hear it.
    pub report: Option<Duration>,
}

/// What is decided about a call by the one who asked for it.
pub struct CallTerms {
    /// Whether usage is read from the platform's messages.
    pub metered: bool,
    /// Which of the caller's messages are read for models.
    pub models: ReadModels,
    /// What others decide about the call.
    pub guard: Box<dyn CallGuard>,
}

/// What the one who asked for a call decides about it, and hears of it.
pub trait CallGuard {
    /// Ready once the call has to end.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<EndOrder>;

    /// Whether the caller may ask for this model.
    fn admits(&self, model: &str) -> bool;

    /// Whether the caller may have this model write down what it says, beside the one that answers.
    fn admits_aside(&self, model: &str) -> bool {
        self.admits(model)
    }

    /// Both legs stand.
    fn connected(&self);

    /// What has passed until now: each [`CallLimits::report`].
    fn so_far(&self, figures: CallUse);
}

/// Why a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallCause {
    /// This side closed its connection.
    Closed(Side),
    /// This side could not be reached any more.
    Lost(Side),
    /// This side was never reached.
    Unreached(Side),
    /// Silence.
    Idle,
    /// It lasted as long as it may.
    Total,
    /// It was ordered to end.
    Ordered(EndOrder),
    /// The media plane failed.
    Failed,
}

/// What there is to say about a call that has ended.
#[derive(Debug, Clone)]
pub struct CallEnd {
    /// Why it ended.
    pub cause: CallCause,
    /// What passed.
    pub used: CallUse,
}

/// What has passed through a call since it was answered.
#[derive(Debug, Clone, Default)]
pub struct CallUse {
    /// Figures of the legs and their media.
    pub figures: CallFigures,
    /// What the platform reported.
    pub usage: Option<Usage>,
    /// The first model that the caller's messages named.
    pub model: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Mutex;

    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);

    impl UsageSink for Seen {
        fn record(&self, event: UsageEvent) {
            self.0.lock().unwrap().push(event.endpoint.into_owned());
        }
    }

    #[test]
    fn every_sink_of_a_fanout_sees_everything() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let event = UsageEvent { endpoint: "/x".into(), ..UsageEvent::begin(http::Method::GET, ip) };
        let sinks = [Arc::new(Seen::default()), Arc::new(Seen::default()), Arc::new(Seen::default())];
        let all = Fanout::new(sinks.iter().map(|sink| Arc::clone(sink) as Arc<dyn UsageSink>).collect());
        all.record(event.clone());
        all.observe(&event);
        for sink in &sinks {
            assert_eq!(*sink.0.lock().unwrap(), ["/x", "/x"]);
        }
        Fanout::new(Vec::new()).record(event);
    }

    #[test]
    fn names_are_found_by_position() {
        assert!(Outcome::ALL.iter().enumerate().all(|(index, outcome)| *outcome as usize == index));
    }
}
