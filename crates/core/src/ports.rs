//! The traits through which sibling crates meet; `src/` wires the two ends together.
//!
//! Futures are boxed and need not be `Send`: a request never leaves its thread.

use std::pin::Pin;
use std::sync::Arc;

use crate::error::ErrorKind;
use crate::usage::UsageEvent;

/// What an asynchronous port returns.
pub type PortFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

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

/// Serves requests that ask for a protocol upgrade. Signaling will implement it; the gateway will
/// call it once a caller is authenticated, and answers
/// [`ErrorKind::UpgradeUnsupported`] as long as nobody does.
pub trait UpgradeHandler {
    /// Dials the upstream first, so that its refusal can still be an HTTP answer; gives the head of
    /// the 101 answer. The handler takes the connection over once that has been sent.
    fn upgrade(&self, head: http::request::Parts)
    -> PortFuture<'_, Result<http::response::Parts, ErrorKind>>;
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
