//! The one record of one request or session.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::{ErrorKind, Fault};
use crate::ids::RequestId;
use crate::secret::KeyTag;

macro_rules! named {
    ($(#[$doc:meta])* $enum:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $enum { $($(#[$variant_doc])* $variant,)* }

        impl $enum {
            /// Every one, in order: `ALL[x as usize]` is `x`.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in logs and metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

named! {
    /// What the caller spoke to us.
    Protocol {
        /// HTTP/1.0 or HTTP/1.1, with or without TLS.
        Http1 = "http1",
        /// HTTP/2, with or without TLS.
        Http2 = "http2",
        /// HTTP/3.
        Http3 = "http3",
        /// A WebSocket, from its handshake to its end.
        WebSocket = "websocket",
        /// A WebRTC call, from its offer to its end.
        WebRtc = "webrtc",
    }
}

named! {
    /// How a request ended.
    Outcome {
        /// The whole answer was handed to the caller's connection.
        Complete = "complete",
        /// AIProxy answered by itself; [`UsageEvent::error`] says why.
        Refused = "refused",
        /// The caller went away first.
        CallerLeft = "caller_left",
        /// The platform broke off, stalled or failed after its answer began.
        UpstreamFailed = "upstream_failed",
        /// AIProxy ended it after its answer began, because the key, user or channel was
        /// withdrawn; [`UsageEvent::error`] says why.
        Cut = "cut",
        /// It has not: a session goes on, and this is what has come so far. A later record of the
        /// same request takes this one's place.
        Open = "open",
        /// The process ended before the session did; the record holds what was known last.
        Aborted = "aborted",
    }
}

/// The one record of one request, made when it ends however it ends; of a session, also what is known
/// while it goes on.
#[derive(Debug, Clone)]
pub struct UsageEvent {
    /// Name of the request, as the caller saw it in `x-aiproxy-request-id`.
    pub request_id: RequestId,
    /// When its head had been read.
    pub started: SystemTime,
    /// The user's id, once authenticated.
    pub user: Option<Arc<str>>,
    /// The Proxy-Key's visible name, once authenticated.
    pub key: Option<Arc<KeyTag>>,
    /// The channel's id, once planned.
    pub channel: Option<Arc<str>>,
    /// What the caller spoke.
    pub protocol: Protocol,
    /// Method, as sent.
    pub method: http::Method,
    /// What was asked for, with places in braces where ids and names stand (`/v1/files/{id}`): one
    /// of a bounded number.
    pub endpoint: Cow<'static, str>,
    /// Path without query, without the `/@channel` prefix, bounded in length; free of keys. None
    /// where it says no more than [`endpoint`](Self::endpoint).
    pub path: Option<Box<str>>,
    /// The model asked for, where the request says it.
    pub model: Option<Box<str>>,
    /// Status of the answer; 0 when the caller left before there was one.
    pub status: u16,
    /// Why AIProxy answered by itself.
    pub error: Option<ErrorKind>,
    /// How it ended.
    pub outcome: Outcome,
    /// From the head read to the platform's answer head.
    pub first_byte: Option<Duration>,
    /// From the head read to the end.
    pub total: Duration,
    /// AIProxy's own share before the answer began: from the head read to the first dial, and from
    /// the platform's answer head to ours. None where no platform was asked.
    pub own: Option<Duration>,
    /// Body bytes received from the caller and passed on.
    pub bytes_in: u64,
    /// Body bytes handed to the caller's connection.
    pub bytes_out: u64,
    /// What the platform's answer used; none where it reports nothing and nothing can be told.
    pub usage: Option<Usage>,
    /// What that cost by the channel's prices; none where the model has none.
    pub cost: Option<Cost>,
    /// The caller's address, behind trusted proxies the one they name.
    pub caller_ip: IpAddr,
    /// What the caller says it is, bounded in length; free of keys.
    pub user_agent: Option<Box<str>>,
    /// Channels that were tried and passed over before [`UsageEvent::channel`], in order.
    pub passed_over: Vec<PassedOver>,
    /// What there is to say of a WebSocket besides, once it was open.
    pub socket: Option<SocketFigures>,
    /// What there is to say of a call besides, once it was answered.
    pub call: Option<Box<CallFigures>>,
    /// Which record of a session this is, from 0 when it was opened; each tells the whole of it so far,
    /// and the last one stands. None for what has one record only.
    pub part: Option<u32>,
}

/// What is recorded of a WebSocket besides what is recorded of every request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketFigures {
    /// Frames passed from the caller to the platform.
    pub frames_in: u64,
    /// Frames passed from the platform to the caller.
    pub frames_out: u64,
    /// The code with which it closed towards the caller, if it did: 1005 stands for none.
    pub close_code: Option<u16>,
}

/// What is recorded of a call besides what is recorded of every request.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CallFigures {
    /// From the answer until both legs stood; none while they do not.
    pub setup: Option<Duration>,
    /// For how long both legs have stood.
    pub connected: Duration,
    /// The leg towards the caller.
    pub caller: LegFigures,
    /// The leg towards the platform.
    pub platform: LegFigures,
    /// Packets and messages that were thrown away because nobody took them in time, or because they
    /// could not be passed on.
    pub dropped: u64,
}

/// What is recorded of one leg of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LegFigures {
    /// RTP packets received and passed on.
    pub packets: u64,
    /// Bytes of their payload.
    pub media_bytes: u64,
    /// RTP packets that never came.
    pub lost: u64,
    /// Jitter of what comes (RFC 3550, section 6.4.1), the largest of its streams.
    pub jitter: Duration,
    /// The last round trip measured.
    pub rtt: Option<Duration>,
    /// Messages received on data channels and passed on.
    pub messages: u64,
    /// Their bytes.
    pub message_bytes: u64,
}

impl UsageEvent {
    /// The event of a request of which no more is known than that it began: until something better
    /// is known, the caller left.
    #[must_use]
    pub fn begin(method: http::Method, caller_ip: IpAddr) -> Self {
        Self {
            request_id: RequestId::fresh(),
            started: SystemTime::now(),
            user: None,
            key: None,
            channel: None,
            protocol: Protocol::Http1,
            method,
            endpoint: Cow::Borrowed(""),
            path: None,
            model: None,
            status: 0,
            error: None,
            outcome: Outcome::CallerLeft,
            first_byte: None,
            total: Duration::ZERO,
            own: None,
            bytes_in: 0,
            bytes_out: 0,
            usage: None,
            cost: None,
            caller_ip,
            user_agent: None,
            passed_over: Vec::new(),
            socket: None,
            call: None,
            part: None,
        }
    }

    /// Platforms that were asked: those passed over and the last one.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.passed_over.len() + usize::from(self.own.is_some() && self.channel.is_some())
    }

    /// Whose turn it is to look at this request; none where nothing went wrong.
    #[must_use]
    pub fn error_class(&self) -> Option<ErrorClass> {
        ErrorClass::of(self.outcome, self.error, self.status)
    }
}

named! {
    /// What kind of thing went wrong with a request, for whoever counts them.
    ErrorClass {
        /// No key, an unknown one, or one that is not in force any more.
        Key = "key",
        /// Something that the key may not do.
        Permission = "permission",
        /// The caller asked for something malformed, too large or absent; or the platform said so.
        Request = "request",
        /// A limit of rate or amount, ours or the platform's.
        Limit = "limit",
        /// The channel or its platform failed.
        Channel = "channel",
        /// AIProxy failed or is at its limit.
        Relay = "relay",
        /// The caller left before the end.
        CallerLeft = "caller_left",
        /// The key, user or channel was withdrawn in mid-answer.
        Withdrawn = "withdrawn",
    }
}

impl ErrorClass {
    /// The class of a request that ended so.
    #[must_use]
    pub fn of(outcome: Outcome, error: Option<ErrorKind>, status: u16) -> Option<Self> {
        match outcome {
            Outcome::CallerLeft => return Some(Self::CallerLeft),
            Outcome::Cut => return Some(Self::Withdrawn),
            Outcome::UpstreamFailed => return Some(Self::Channel),
            Outcome::Aborted => return Some(Self::Relay),
            Outcome::Open => return None,
            Outcome::Complete | Outcome::Refused => {}
        }
        // A socket that was open when it was refused has the status 101.
        let status = error.filter(|_| status == 101).map_or(status, |kind| kind.status().as_u16());
        match (error.map(ErrorKind::fault), status) {
            (Some(Fault::Channel), _) => Some(Self::Channel),
            (Some(Fault::Us), _) => Some(Self::Relay),
            (Some(Fault::Caller), 401) => Some(Self::Key),
            (Some(Fault::Caller), 403) => {
                let key = matches!(
                    error,
                    Some(ErrorKind::UserDisabled | ErrorKind::KeyDisabled | ErrorKind::KeyExpired)
                );
                Some(if key { Self::Key } else { Self::Permission })
            }
            (_, 429) => Some(Self::Limit),
            (None, 500..) => Some(Self::Channel),
            (_, 400..) => Some(Self::Request),
            _ => None,
        }
    }
}

/// What a request cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// In millionths of the currency's unit.
    pub micros: i64,
    /// The currency's code, as `USD`.
    pub currency: Arc<str>,
}

/// A channel that was tried and passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// The channel's id.
    pub channel: Arc<str>,
    /// Why it was passed over: a status, or a code of [`ErrorKind`].
    pub why: Why,
}

/// Why a channel was passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It answered with this status.
    Status(u16),
    /// It gave no answer, or refused the account.
    Error(ErrorKind),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Error(kind) => f.write_str(kind.code()),
        }
    }
}

/// Tokens by kind, in one meaning for all platforms: the kinds are parts of `input` and `output`,
/// never beside them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// All that the model read, cached or not, text or not.
    pub input: u64,
    /// All that the model wrote, reasoning included.
    pub output: u64,
    /// Of the input: read from the platform's cache.
    pub cached: u64,
    /// Of the input: written to the platform's cache, where that has a price of its own
    /// (Anthropic, DashScope).
    pub cache_written: u64,
    /// Of the output: thoughts.
    pub reasoning: u64,
    /// Of the input: sound.
    pub audio_input: u64,
    /// Of the output: sound.
    pub audio_output: u64,
    /// Of the input: images.
    pub image_input: u64,
    /// Of the output: images.
    pub image_output: u64,
}

impl Tokens {
    /// Names of the kinds, in the order of [`counts`](Self::counts).
    pub const KINDS: [&'static str; 9] = [
        "input",
        "output",
        "cached",
        "cache_written",
        "reasoning",
        "audio_input",
        "audio_output",
        "image_input",
        "image_output",
    ];

    /// All numbers, in one order.
    #[must_use]
    pub const fn counts(&self) -> [u64; 9] {
        [
            self.input,
            self.output,
            self.cached,
            self.cache_written,
            self.reasoning,
            self.audio_input,
            self.audio_output,
            self.image_input,
            self.image_output,
        ]
    }

    /// Both together; a sum too large for its type stays the largest number.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let mut sum = self.counts();
        sum.iter_mut().zip(other.counts()).for_each(|(sum, more)| *sum = sum.saturating_add(more));
        Self::of(sum)
    }

    /// From numbers in that order.
    #[must_use]
    pub const fn of(counts: [u64; 9]) -> Self {
        let [
            input,
            output,
            cached,
            cache_written,
            reasoning,
            audio_input,
            audio_output,
            image_input,
            image_output,
        ] = counts;
        Self {
            input,
            output,
            cached,
            cache_written,
            reasoning,
            audio_input,
            audio_output,
            image_input,
            image_output,
        }
    }
}

/// What one answer used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Tokens by kind.
    pub tokens: Tokens,
    /// Seconds of sound or video, where the platform bills by them.
    pub seconds: Option<f64>,
    /// Images made.
    pub images: u64,
    /// Characters spoken, where the platform says so.
    pub characters: u64,
    /// The model served, which may be a dated name of the one asked for.
    pub model: Option<String>,
    /// The platform reported some of it.
    pub reported: bool,
    /// Some of it is AIProxy's estimate, or the answer broke off after the last report. Where
    /// both are set, the platform's last word is in it and what came later was estimated.
    pub estimated: bool,
    /// How the model ended, where the answer says it.
    pub finish: Option<Finish>,
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// It was done.
    Stop,
    /// A limit of tokens cut it short.
    Length,
    /// It wants a tool called.
    ToolCalls,
    /// The platform's filter stopped it.
    Filtered,
    /// The answer holds an error.
    Error,
    /// Something else.
    Other,
}

impl Finish {
    /// The name in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::Filtered => "filtered",
            Self::Error => "error",
            Self::Other => "other",
        }
    }

    /// From any platform's word. `None`: not yet finished (DashScope writes the string `null`).
    #[must_use]
    pub fn of(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"" | b"null" | b"in_progress" | b"queued" | b"FINISH_REASON_UNSPECIFIED" => return None,
            b"stop" | b"STOP" | b"end_turn" | b"stop_sequence" | b"completed" => Self::Stop,
            b"length"
            | b"MAX_TOKENS"
            | b"max_tokens"
            | b"max_output_tokens"
            | b"model_context_window_exceeded" => Self::Length,
            b"tool_calls" | b"function_call" | b"tool_use" => Self::ToolCalls,
            b"content_filter"
            | b"refusal"
            | b"SAFETY"
            | b"RECITATION"
            | b"BLOCKLIST"
            | b"PROHIBITED_CONTENT"
            | b"SPII"
            | b"IMAGE_SAFETY" => Self::Filtered,
            b"failed" | b"error" => Self::Error,
            _ => Self::Other,
        })
    }
}
