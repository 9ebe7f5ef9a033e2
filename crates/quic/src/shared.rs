//! What the streams of one connection share.

use std::fmt;
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::Notify;

use crate::code::Code;
use crate::flood::Flood;
use crate::head::HeadLimits;

/// One connection, as its streams see it.
pub(crate) struct Shared {
    pub(crate) quic: quinn::Connection,
    /// Of field sections that come.
    pub(crate) limits: HeadLimits,
    /// What a server holds against its callers; a client has chosen whom it asks.
    flood: Option<Flood>,
    /// Whether that ended the connection.
    pub(crate) flooded: std::cell::Cell<bool>,
    /// What is to be said on the control stream.
    pub(crate) goodbye: Goodbye,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({})", self.quic.stable_id())
    }
}

/// The GOAWAY that is to be sent, and the one that came.
#[derive(Debug, Default)]
pub(crate) struct Goodbye {
    /// The first stream that is not served, if there is one.
    pub(crate) send: std::cell::Cell<Option<u64>>,
    pub(crate) changed: Notify,
    /// The peer takes no more requests from here on.
    pub(crate) came: std::cell::Cell<Option<u64>>,
}

impl Shared {
    pub(crate) fn new(quic: quinn::Connection, limits: HeadLimits, held: bool) -> Rc<Self> {
        let flood = held.then(|| Flood::new(Instant::now()));
        Rc::new(Self {
            quic,
            limits,
            flood,
            flooded: std::cell::Cell::new(false),
            goodbye: Goodbye::default(),
        })
    }

    /// Whether this is the side that is asked.
    pub(crate) fn serves(&self) -> bool {
        self.flood.is_some()
    }

    /// Ends the connection: what the peer did is an error of all of it.
    pub(crate) fn fail(&self, code: Code) {
        tracing::debug!(peer = %self.quic.remote_address(), ?code, "HTTP/3 connection error");
        self.close(code);
    }

    pub(crate) fn close(&self, code: Code) {
        self.quic.close(code.wire(), b"");
    }

    /// The peer pays; the connection ends when it cannot.
    pub(crate) fn pay(&self, cost: i64) {
        if self.flood.as_ref().is_some_and(|flood| !flood.pay(cost, Instant::now)) {
            self.flooded.set(self.flooded.get() || self.quic.close_reason().is_none());
            self.fail(Code::EXCESSIVE_LOAD);
        }
    }

    pub(crate) fn earn(&self, credit: i64) {
        if let Some(flood) = &self.flood {
            flood.earn(credit);
        }
    }
}
