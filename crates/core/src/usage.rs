//! The one record of one request or session.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::ErrorKind;
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
    }
}

/// The one record of one request, made when it ends however it ends.
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
    /// Path without query, without the `/@channel` prefix, bounded in length; free of keys.
    pub endpoint: Box<str>,
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
    /// The caller's address, behind trusted proxies the one they name.
    pub caller_ip: IpAddr,
    /// Channels that were tried and passed over before [`UsageEvent::channel`], in order.
    pub passed_over: Vec<PassedOver>,
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
