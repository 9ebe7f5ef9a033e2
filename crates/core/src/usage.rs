//! The one record of one request or session.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::ErrorKind;
use crate::ids::RequestId;
use crate::secret::KeyTag;

/// What the caller spoke to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1 without TLS.
    Http1,
}

impl Protocol {
    /// The name in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The whole answer was handed to the caller's connection.
    Complete,
    /// AIProxy answered by itself; [`UsageEvent::error`] says why.
    Refused,
    /// The caller went away first.
    CallerLeft,
    /// The platform broke off, stalled or failed after its answer began.
    UpstreamFailed,
}

impl Outcome {
    /// The name in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Refused => "refused",
            Self::CallerLeft => "caller_left",
            Self::UpstreamFailed => "upstream_failed",
        }
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
    /// Body bytes received from the caller and passed on.
    pub bytes_in: u64,
    /// Body bytes handed to the caller's connection.
    pub bytes_out: u64,
    /// The caller's address, behind trusted proxies the one they name.
    pub caller_ip: IpAddr,
}
