//! The guard that turns into the usage event.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aiproxy_config::model::User;
use aiproxy_core::ports::UsageSink;
use aiproxy_core::{ErrorKind, Outcome, PassedOver, Protocol, RequestId, UsageEvent, Why};
use aiproxy_upstream::{BodyFailure, BodyWatch};
use http::{Method, Version};
use tokio::time::Instant;

/// The longest path that is recorded.
const ENDPOINT_BYTES: usize = 256;

/// Gathers what is known of one request and records it when it drops, however the request ends.
pub(crate) struct Record {
    event: Option<UsageEvent>,
    began: Instant,
    /// The caller is known to have left: what is answered, nobody reads.
    gone: bool,
    watch: Option<Rc<BodyWatch>>,
    sink: Arc<dyn UsageSink>,
}

impl Record {
    /// Begins when a head has been read. Until something better is known, the caller left.
    pub(crate) fn begin(method: Method, caller_ip: IpAddr, sink: Arc<dyn UsageSink>) -> Self {
        let event = UsageEvent {
            request_id: RequestId::fresh(),
            started: SystemTime::now(),
            user: None,
            key: None,
            channel: None,
            protocol: Protocol::Http1,
            method,
            endpoint: Box::default(),
            model: None,
            status: 0,
            error: None,
            outcome: Outcome::CallerLeft,
            first_byte: None,
            total: Duration::ZERO,
            own: None,
            bytes_in: 0,
            bytes_out: 0,
            caller_ip,
            passed_over: Vec::new(),
        };
        Self { event: Some(event), began: Instant::now(), gone: false, watch: None, sink }
    }

    pub(crate) fn request_id(&self) -> RequestId {
        self.event.as_ref().map_or_else(RequestId::fresh, |event| event.request_id)
    }

    /// What the caller speaks.
    pub(crate) fn spoke(&mut self, version: Version) {
        if version == Version::HTTP_2 {
            self.set(|event| event.protocol = Protocol::Http2);
        }
    }

    pub(crate) fn endpoint(&mut self, path: &str) {
        let end = path.floor_char_boundary(ENDPOINT_BYTES);
        self.set(|event| event.endpoint = path[..end].into());
    }

    pub(crate) fn user(&mut self, user: &User) {
        self.set(|event| {
            event.user = Some(Arc::clone(&user.id));
            event.key = Some(Arc::clone(&user.key.tag));
        });
    }

    pub(crate) fn channel(&mut self, id: &Arc<str>) {
        self.set(|event| event.channel = Some(Arc::clone(id)));
    }

    pub(crate) fn model(&mut self, model: String) {
        self.set(|event| event.model = Some(model.into()));
    }

    pub(crate) fn model_name(&self) -> Option<&str> {
        self.event.as_ref().and_then(|event| event.model.as_deref())
    }

    /// The body on its way up, asked for its bytes at the end.
    pub(crate) fn watch(&mut self, watch: Rc<BodyWatch>) {
        self.watch = Some(watch);
    }

    /// The first platform is asked from now on.
    pub(crate) fn asking(&mut self) {
        let elapsed = self.began.elapsed();
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

    pub(crate) fn ended(&mut self, outcome: Outcome) {
        self.set(|event| event.outcome = outcome);
    }

    fn set(&mut self, change: impl FnOnce(&mut UsageEvent)) {
        if let Some(event) = &mut self.event {
            change(event);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(mut event) = self.event.take() {
            event.total = self.began.elapsed();
            event.bytes_in = self.watch.as_ref().map_or(0, |watch| watch.bytes());
            self.sink.record(event);
        }
    }
}
