//! A cause, and what to say about it.

use std::borrow::Cow;
use std::fmt;

use aiproxy_core::ErrorKind;

/// Why a request goes no further. The kind decides the answer; the detail, where there is one,
/// replaces the kind's sentence. A detail never holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The cause.
    pub kind: ErrorKind,
    /// A more exact sentence for the caller.
    pub detail: Option<Cow<'static, str>>,
    /// Seconds after which another try may succeed, where that is known.
    pub retry_after: Option<u64>,
}

impl Refusal {
    /// A refusal with a sentence of its own.
    pub fn new(kind: ErrorKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: Some(detail.into()), retry_after: None }
    }

    /// What the caller reads.
    #[must_use]
    pub fn message(&self) -> &str {
        self.detail.as_deref().unwrap_or(self.kind.message())
    }
}

impl From<ErrorKind> for Refusal {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, detail: None, retry_after: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.code(), self.message())
    }
}

impl std::error::Error for Refusal {}
