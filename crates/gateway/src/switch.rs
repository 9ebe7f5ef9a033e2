//! WebSockets behind their 101.
//!
//! Frames are the [`UpgradeHandler`]'s; here is who holds what while they pass, and what is said of them.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use aiproxy_config::model::{Channel, Limits, User};
use aiproxy_core::ports::{
    EndOrder, MessageEdit, ReadModels, Side, SocketCause, SocketGuard, SocketLimits, SocketStream, SocketUse,
    Sockets, UpgradeHandler,
};
use aiproxy_platform::Family;
use aiproxy_registry::health::Verdict;
use aiproxy_registry::live::{Live, Registration};
use aiproxy_routing::admit;
use bytes::Bytes;

use crate::activity::UnderWay;
use crate::attempts;
use crate::connection::Session;
use crate::late::{self, Late};
use crate::phases::Core;
use crate::record::Record;
use crate::socket::Stream;

/// An open socket towards a platform.
pub(crate) struct Begun {
    pub(crate) stream: Box<dyn SocketStream>,
    pub(crate) ahead: Bytes,
    pub(crate) channel: Arc<Channel>,
    pub(crate) live: Registration,
    pub(crate) user: Arc<User>,
    pub(crate) family: Family,
    pub(crate) edit: Option<Box<dyn MessageEdit>>,
    /// What the platform hears first.
    pub(crate) prelude: Option<Vec<u8>>,
    /// Whose models may write down what the caller says, where these are not the user's.
    pub(crate) aside: Option<Arc<User>>,
    /// It joins a call that is metered itself.
    pub(crate) joined: bool,
}

/// What a 101 promises.
pub(crate) enum Opened {
    /// The platform has answered.
    Begun(Box<Begun>),
    /// It has not been asked.
    Late(Box<Late>),
}

/// A socket whose 101 is about to leave.
pub(crate) struct Switch {
    handler: Arc<dyn UpgradeHandler>,
    opened: Opened,
    record: Record,
    /// Counts it among the requests under way.
    pub(crate) under_way: Option<UnderWay>,
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch").field("request", &self.record.request_id()).finish_non_exhaustive()
    }
}

impl Switch {
    pub(crate) fn new(core: &Core, opened: Opened, record: Record) -> Option<Self> {
        let handler = Arc::clone(core.upgrades.as_ref()?);
        Some(Self { handler, opened, record, under_way: None })
    }

    /// Relays frames until the socket has ended, and records it.
    pub(crate) fn run(self: Box<Self>, core: Rc<Core>, caller: Stream, ahead: Bytes) -> Session {
        let Self { handler, opened, mut record, under_way } = *self;
        let caller: Box<dyn SocketStream> = match caller {
            Stream::Plain(socket) => Box::new(socket),
            Stream::Tls(stream) => Box::new(stream),
            Stream::Gone => Box::new(tokio::io::empty()),
        };
        match opened {
            Opened::Begun(begun) => {
                let end = End { record, under_way };
                Box::pin(relay(&core, &*handler, *begun, (caller, ahead), end))
            }
            Opened::Late(late) => Box::pin(async move {
                // In a box of its own, which is gone when the relaying begins.
                let waiting = Box::pin(late.run(&core, &*handler, caller, ahead, &mut record));
                if let late::Outcome::Begun(begun, caller, ahead) = waiting.await {
                    let end = End { record, under_way };
                    let relaying = relay(&core, &*handler, *begun, (caller, ahead), end);
                    drop(core);
                    relaying.await;
                }
            }),
        }
    }
}

/// What ends with a socket.
struct End {
    record: Record,
    under_way: Option<UnderWay>,
}

fn relay(
    core: &Core,
    handler: &dyn UpgradeHandler,
    begun: Begun,
    (caller, caller_ahead): (Box<dyn SocketStream>, Bytes),
    end: End,
) -> impl Future<Output = ()> + use<> {
    let Begun { stream, ahead, channel, live, user, family, edit, prelude, aside, joined } = begun;
    let health = core.registry.health.get(&channel.id);
    let system = &core.registry.snapshot().system;
    let bounds = system.limits;
    let report = system.journal.as_ref().map(|journal| journal.session_interval);
    let record = Rc::new(RefCell::new(end.record));
    if report.is_some() {
        record.borrow_mut().open(SocketUse::default());
    }
    // What a call uses is counted once, by the call.
    let metered = !joined
        && matches!(
            family,
            Family::OpenAi | Family::Azure | Family::DashScope | Family::Deepgram | Family::Other
        );
    let models = models_read(&user, &live, metered);
    let relaying = handler.relay(Sockets {
        caller,
        caller_ahead,
        platform: stream,
        platform_ahead: ahead,
        remask: !channel.base.tls,
        limits: SocketLimits { report, ..limits(&bounds, channel.websocket.idle, channel.websocket.total) },
        metered,
        models,
        edit,
        prelude,
        guard: Box::new(Guard { live: live.entry(), user, aside, record: Rc::clone(&record) }),
    });
    let under_way = end.under_way;
    async move {
        let end = relaying.await;
        let mut record = record.borrow_mut();
        // A platform that hangs up later has its reasons, and the caller may be one of them.
        let mute = end.used.frames_out == 0 && end.cause == SocketCause::Lost(Side::Platform);
        if mute || end.cause == SocketCause::Violation(Side::Platform) {
            attempts::report(&health, &channel, Verdict::Bad);
        }
        tracing::debug!(request = %record.request_id(), channel = %channel.id, cause = ?end.cause, code = end.close_code, "socket ended");
        record.socket_ended(end);
        record.finish();
        drop((live, under_way));
    }
}

/// Which of a caller's messages are read for models: all where they are limited, else until one is found
/// for the record.
pub(crate) fn models_read(user: &User, live: &Live, metered: bool) -> ReadModels {
    match (!user.models.is_none(), live.model()) {
        (true, _) => ReadModels::All,
        (false, None) if metered => ReadModels::First,
        (false, _) => ReadModels::Never,
    }
}

/// The bounds of a socket.
pub(crate) fn limits(bounds: &Limits, idle: Duration, total: Option<Duration>) -> SocketLimits {
    SocketLimits {
        message_bytes: bounds.websocket_message,
        frame_bytes: bounds.websocket_frame,
        held_bytes: bounds.peek_bytes,
        idle,
        total,
        report: None,
    }
}

struct Guard {
    live: Arc<Live>,
    user: Arc<User>,
    aside: Option<Arc<User>>,
    record: Rc<RefCell<Record>>,
}

impl SocketGuard for Guard {
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<EndOrder> {
        self.live.poll_end(cx)
    }

    fn admits(&self, model: &str) -> bool {
        admit::model(&self.user, Some(model), true).is_ok()
    }

    fn admits_aside(&self, model: &str) -> bool {
        admit::model(self.aside.as_ref().unwrap_or(&self.user), Some(model), true).is_ok()
    }

    fn passed_down(&self, bytes: usize) {
        self.live.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn so_far(&self, figures: SocketUse) {
        if let Ok(mut record) = self.record.try_borrow_mut() {
            record.open(figures);
        }
    }
}
