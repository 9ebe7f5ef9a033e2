//! Calls behind their answer: who holds what while they go on, and what is said of them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aiproxy_config::model::{Channel, User};
use aiproxy_core::ports::{
    CallCause, CallEnd, CallGuard, CallUse, EndOrder, PortFuture, Side, SocketGuard, SocketUse,
};
use aiproxy_registry::calls::{Place, Setup};
use aiproxy_registry::health::{self, Verdict};
use aiproxy_registry::live::{Live, Registration};
use aiproxy_routing::admit;
use aiproxy_upstream::{BodyWatch, Slot, Source};
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request};
use tokio::time::timeout;

use super::own_headers;
use crate::attempts;
use crate::record::Record;

/// How long a platform may take to hang up.
const HANGUP_TIME: Duration = Duration::from_secs(5);
/// Stands for the caller's key where no caller is concerned: no header holds it.
pub(crate) const NO_KEY: &str = "\0";

/// Where a call's media is.
pub(crate) enum Track {
    /// It passes through here.
    Relayed(PortFuture<'static, CallEnd>),
    /// Between caller and platform; this listens to the platform's events.
    Direct(PortFuture<'static, CallEnd>),
}

/// A call that has been answered.
pub(crate) struct Session {
    pub(crate) track: Track,
    pub(crate) hangup: Option<Hangup>,
    pub(crate) live: Registration,
    pub(crate) place: Place,
    pub(crate) channel: Arc<Channel>,
    pub(crate) health: Arc<health::Channel>,
    pub(crate) counted: Counted,
    pub(crate) shared: Shared,
}

/// Counts a call among those of its thread.
pub(crate) struct Counted(Rc<Cell<usize>>);

impl Counted {
    pub(crate) fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The record of a call, which its guard writes to while it goes on.
pub(crate) type Shared = Rc<RefCell<Option<Record>>>;

impl Session {
    /// Goes on until the call has ended, however it ends, and records it.
    pub(crate) async fn run(self, record: Record) {
        let Self { track, hangup, live, place, channel, health, counted, shared } = self;
        let id = record.request_id();
        *shared.borrow_mut() = Some(record);
        with(&shared, |record| record.call_open(CallUse::default()));
        let call = match track {
            Track::Relayed(call) | Track::Direct(call) => call,
        };
        let CallEnd { cause, used } = call.await;
        tracing::debug!(request = %id, channel = %channel.id, ?cause, "call ended");
        if cause == CallCause::Unreached(Side::Platform) {
            attempts::report(&health, &channel, Verdict::Bad);
        }
        if let Some(mut record) = shared.borrow_mut().take() {
            record.call_ended(cause, used);
            record.finish();
        }
        drop((live, place));
        // It knows already.
        if !matches!(cause, CallCause::Closed(Side::Platform))
            && let Some(hangup) = hangup
        {
            hangup.send().await;
        }
        drop(counted);
    }
}

fn with(shared: &Shared, tell: impl FnOnce(&mut Record)) {
    if let Ok(mut record) = shared.try_borrow_mut()
        && let Some(record) = &mut *record
    {
        tell(record);
    }
}

/// How a platform is told that a call is over.
pub(crate) struct Hangup {
    slot: Rc<Slot>,
    path: String,
}

impl Hangup {
    /// `path`: where the offer was sent. None where the platform named no call.
    pub(crate) fn new(slot: &Rc<Slot>, path: &str, id: Option<&str>) -> Option<Self> {
        let id = id?;
        let base = path.trim_end_matches('/');
        // OpenAI's Live ends with its transport.
        if base.ends_with("/sessions") {
            return None;
        }
        let base = base.strip_suffix("/calls").unwrap_or(base);
        Some(Self { slot: Rc::clone(slot), path: format!("{base}/calls/{id}/hangup") })
    }

    /// Tells it. That it does not listen is noted.
    pub(crate) async fn send(self) {
        let prepared = self.slot.prepared();
        let Ok(uri) = prepared.target(&self.path, None, NO_KEY) else { return };
        let mut headers = own_headers();
        prepared.swap_headers(&mut headers, NO_KEY, false);
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let watch = BodyWatch::new();
        let mut request = Request::new(Source::empty().attempt(Rc::clone(&watch)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        match timeout(HANGUP_TIME, self.slot.send(request, &watch)).await {
            Ok(Ok(answer)) => {
                let status = answer.response.status();
                tracing::debug!(status = status.as_u16(), "the platform was told that a call is over");
            }
            Ok(Err(error)) => tracing::debug!(%error, "a platform could not be told that a call is over"),
            Err(_) => tracing::debug!("a platform did not hear in time that a call is over"),
        }
    }
}

/// Decides about a call, and hears of it.
pub(crate) struct Guard {
    live: Arc<Live>,
    user: Arc<User>,
    /// Whose models may write down what the caller says, where these are not the user's.
    aside: Option<Arc<User>>,
    setup: Cell<Option<Setup>>,
    record: Shared,
}

impl Guard {
    pub(crate) fn new(
        live: &Registration,
        user: &Arc<User>,
        aside: Option<Arc<User>>,
        setup: Setup,
        record: Shared,
    ) -> Self {
        Self { live: live.entry(), user: Arc::clone(user), aside, setup: Cell::new(Some(setup)), record }
    }
}

impl CallGuard for Guard {
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<EndOrder> {
        self.live.poll_end(cx)
    }

    fn admits(&self, model: &str) -> bool {
        admit::model(&self.user, Some(model), true).is_ok()
    }

    fn admits_aside(&self, model: &str) -> bool {
        admit::model(self.aside.as_ref().unwrap_or(&self.user), Some(model), true).is_ok()
    }

    fn connected(&self) {
        self.setup.take();
    }

    fn so_far(&self, figures: CallUse) {
        with(&self.record, |record| record.call_open(figures));
    }
}

/// A call's guard where what is watched is a socket.
pub(crate) struct Watching(pub(crate) Box<dyn CallGuard>);

impl SocketGuard for Watching {
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<EndOrder> {
        self.0.poll_end(cx)
    }

    fn admits(&self, model: &str) -> bool {
        self.0.admits(model)
    }

    fn passed_down(&self, _: usize) {}

    fn so_far(&self, figures: SocketUse) {
        self.0.so_far(CallUse { usage: figures.usage, model: figures.model, ..CallUse::default() });
    }
}
