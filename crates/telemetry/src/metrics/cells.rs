//! The counters of one thread.

use std::array::from_fn;
use std::sync::atomic::{AtomicU64, Ordering};

use aiproxy_core::{ErrorKind, Outcome, Protocol, Tokens, Usage, UsageEvent, Why};

use super::histogram::Histogram;

const PROTOCOLS: usize = Protocol::ALL.len();
const OUTCOMES: usize = Outcome::ALL.len();

/// Values of the label `status_class`; the first is for requests that were given no answer.
pub(super) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

fn class(status: u16) -> usize {
    if (100..600).contains(&status) { usize::from(status / 100) } else { 0 }
}

/// What is counted by channel.
pub(super) struct ChannelCells {
    requests: [[[AtomicU64; CLASSES.len()]; OUTCOMES]; PROTOCOLS],
    pub(super) tried: [AtomicU64; Tried::ALL.len()],
    pub(super) duration: Histogram,
    pub(super) first_byte: Histogram,
    tokens: [AtomicU64; Tokens::KINDS.len()],
    pub(super) estimated: AtomicU64,
}

impl Default for ChannelCells {
    fn default() -> Self {
        Self {
            requests: from_fn(|_| from_fn(|_| from_fn(|_| AtomicU64::new(0)))),
            tried: from_fn(|_| AtomicU64::new(0)),
            duration: Histogram::default(),
            first_byte: Histogram::default(),
            tokens: from_fn(|_| AtomicU64::new(0)),
            estimated: AtomicU64::new(0),
        }
    }
}

impl ChannelCells {
    pub(super) fn request(&self, protocol: Protocol, outcome: Outcome, status: u16) -> &AtomicU64 {
        &self.requests[protocol as usize][outcome as usize][class(status)]
    }

    /// The tokens of this kind, an index into [`Tokens::KINDS`].
    pub(super) fn tokens(&self, kind: usize) -> &AtomicU64 {
        &self.tokens[kind]
    }

    pub(super) fn used(&self, usage: &Usage) {
        for (count, cell) in usage.tokens.counts().into_iter().zip(&self.tokens) {
            if count > 0 {
                cell.fetch_add(count, Ordering::Relaxed);
            }
        }
        if usage.estimated {
            self.estimated.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The place among the requests at which a label set is found.
    pub(super) fn at(&self, protocol: usize, outcome: usize, class: usize) -> &AtomicU64 {
        &self.requests[protocol][outcome][class]
    }
}

/// What is counted once.
pub(super) struct ProcessCells {
    refusals: [AtomicU64; ErrorKind::ALL.len()],
    pub(super) added: Histogram,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
}

impl Default for ProcessCells {
    fn default() -> Self {
        Self {
            refusals: from_fn(|_| AtomicU64::new(0)),
            added: Histogram::default(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }
}

impl ProcessCells {
    pub(super) fn refusal(&self, kind: ErrorKind) -> &AtomicU64 {
        &self.refusals[kind as usize]
    }
}

/// How one try of one channel went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    Answered,
    Busy,
    ServerError,
    Rejected,
    Unreachable,
    TimedOut,
    BadProtocol,
    Abandoned,
}

impl Tried {
    pub(super) const ALL: [Self; 8] = [
        Self::Answered,
        Self::Busy,
        Self::ServerError,
        Self::Rejected,
        Self::Unreachable,
        Self::TimedOut,
        Self::BadProtocol,
        Self::Abandoned,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Busy => "busy",
            Self::ServerError => "server_error",
            Self::Rejected => "rejected",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timeout",
            Self::BadProtocol => "protocol",
            Self::Abandoned => "abandoned",
        }
    }

    /// A channel that the next was tried after.
    pub(super) const fn passed_over(why: Why) -> Self {
        match why {
            Why::Status(status) => Self::status(status),
            Why::Error(kind) => Self::error(kind),
        }
    }

    /// The channel that was tried last; none when no platform was asked.
    pub(super) fn last(event: &UsageEvent) -> Option<Self> {
        event.channel.as_ref()?;
        if event.first_byte.is_some() && event.outcome != Outcome::Refused {
            return Some(Self::status(event.status));
        }
        event.own?;
        Some(event.error.map_or(Self::Abandoned, Self::error))
    }

    const fn status(status: u16) -> Self {
        match status {
            429 | 503 => Self::Busy,
            500.. => Self::ServerError,
            _ => Self::Answered,
        }
    }

    const fn error(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::ChannelKeyRejected => Self::Rejected,
            ErrorKind::UpstreamUnreachable => Self::Unreachable,
            ErrorKind::UpstreamTimeout => Self::TimedOut,
            ErrorKind::UpstreamProtocol => Self::BadProtocol,
            _ => Self::Abandoned,
        }
    }
}
