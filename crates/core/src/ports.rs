//! The traits through which sibling crates meet; `src/` wires the two ends together.
//!
//! Futures are boxed and need not be `Send`: a request never leaves its thread.

use std::pin::Pin;

use crate::error::ErrorKind;
use crate::usage::UsageEvent;

/// What an asynchronous port returns.
pub type PortFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Where usage events go. The meter implements it; the gateway and signaling call it.
pub trait UsageSink: Send + Sync + 'static {
    /// Takes the event. Never blocks and never fails: an implementation that cannot keep the
    /// event counts the loss where operators see it.
    fn record(&self, event: UsageEvent);
}

/// Serves requests that ask for a protocol upgrade. Signaling will implement it; the gateway will
/// call it once a caller is authenticated, and answers
/// [`ErrorKind::UpgradeUnsupported`] as long as nobody does.
pub trait UpgradeHandler {
    /// Dials the upstream first, so that its refusal can still be an HTTP answer; gives the head of
    /// the 101 answer. The handler takes the connection over once that has been sent.
    fn upgrade(&self, head: http::request::Parts) -> PortFuture<'_, Result<http::response::Parts, ErrorKind>>;
}

/// Serves SDP offers (`POST /v1/realtime/calls` and relatives). Signaling will implement it; the
/// gateway will call it with a body that it has bounded.
pub trait SdpHandler {
    /// Takes an offer in whatever shape the platform's clients send it and gives the answer.
    fn offer(
        &self,
        head: http::request::Parts,
        body: bytes::Bytes,
    ) -> PortFuture<'_, Result<http::Response<bytes::Bytes>, ErrorKind>>;
}

/// Bridges two peer connections. The relay will implement it; signaling will call it.
pub trait MediaPlane {
    /// Takes the caller's offer (SDP, RFC 8866) and gives the offer to send upstream, with the
    /// call that both belong to.
    fn open(&self, caller_offer: String) -> PortFuture<'_, Result<(CallId, String), ErrorKind>>;

    /// Takes the upstream's answer and gives the answer for the caller.
    fn answer(&self, call: CallId, upstream_answer: String) -> PortFuture<'_, Result<String, ErrorKind>>;

    /// Ends both legs. A call that has ended already is no error.
    fn close(&self, call: CallId);
}

/// Names one call within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(pub u64);
