//! WebSockets that are answered before their platform is asked, because the first message says who
//! calls, or which model is wanted where that decides about the channel.
//!
//! The phases are those of every request, after the 101 instead of before it: a refusal is a close
//! code then (`core::websocket::refusal`).

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_config::model::Limits;
use aiproxy_core::ports::{
    EndOrder, FirstAsk, FirstEnd, FirstMessage, Opening, SocketCause, SocketLimits, SocketStream,
    UpgradeHandler,
};
use aiproxy_core::websocket;
use aiproxy_registry::live::{Kind, Registration};
use aiproxy_routing::identify::Offered;
use aiproxy_routing::model::Scan;
use aiproxy_routing::objects::Claim;
use aiproxy_routing::{Plan, Refusal, Target, admit};
use aiproxy_taps::socket::{Caller, UNREADABLE};
use bytes::Bytes;
use http::header::HOST;
use http::{Method, request};
use tokio::time::Instant;

use crate::attempts::Ask;
use crate::first_message::Places;
use crate::objects::Owners;
use crate::peek::Peeked;
use crate::phases::{self, Admitted, Core};
use crate::reading;
use crate::record::Record;
use crate::secrets;
use crate::sockets::{self, Answered, SocketAsk};
use crate::switch::{Begun, limits};

/// How much of a first message is held, of a caller whose key is known and of one that nobody knows yet;
/// at most `limits.peek_bytes`.
const KNOWN_BYTES: usize = 256 * 1024;
const UNKNOWN_BYTES: usize = 64 * 1024;

/// What is known of a caller whose key stood in the handshake.
pub(crate) struct Known {
    pub(crate) key: String,
    pub(crate) live: Registration,
    /// How long it may take to say something.
    pub(crate) patience: Duration,
}

/// A socket whose platform has not been asked.
pub(crate) struct Late {
    pub(crate) head: request::Parts,
    pub(crate) opening: Opening,
    /// The subprotocol that the caller was told.
    pub(crate) protocol: Option<String>,
    pub(crate) caller_ip: IpAddr,
    pub(crate) scheme: &'static str,
    pub(crate) known: Option<Known>,
}

/// Counts a caller of whom nothing is known.
struct Unknown(Rc<Cell<usize>>);

impl Unknown {
    fn new(core: &Core) -> Self {
        core.unknown.set(core.unknown.get() + 1);
        Self(Rc::clone(&core.unknown))
    }
}

impl Drop for Unknown {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What became of it.
pub(crate) enum Outcome {
    /// The platform has answered: the streams can be joined.
    Begun(Box<Begun>, Box<dyn SocketStream>, Bytes),
    /// It has ended.
    Ended,
}

impl Late {
    /// Waits for the first message and does what it asks for.
    pub(crate) async fn run(
        mut self,
        core: &Core,
        handler: &dyn UpgradeHandler,
        mut caller: Box<dyn SocketStream>,
        ahead: Bytes,
        record: &mut Record,
    ) -> Outcome {
        let snapshot = core.registry.snapshot();
        let bounds = &snapshot.system.limits;
        let began = Instant::now();
        let bytes = if self.known.is_some() { KNOWN_BYTES } else { UNKNOWN_BYTES };
        let held_bytes = bounds.peek_bytes.min(bytes);
        let speaking = Cell::new(false);
        let unknown = self.known.is_none().then(|| Unknown::new(core));
        let waiting = handler.first(FirstAsk {
            caller: &mut *caller,
            ahead,
            limits: SocketLimits { held_bytes, ..limits(bounds, Duration::MAX, None) },
            // Only a whole message can be searched for a key.
            whole: self.known.is_none(),
            speaking: &speaking,
            within: self.known.as_ref().map_or(bounds.header_timeout, |known| known.patience),
        });
        let first = match &self.known {
            Some(Known { live, .. }) => tokio::select! {
                biased;
                order = std::future::poll_fn(|cx| live.poll_end(cx)) => Err(ended_by(order)),
                first = waiting => first,
            },
            None => waiting.await,
        };
        drop(unknown);
        record.waited(began.elapsed());
        let first = match first {
            Ok(first) => first,
            Err(FirstEnd { cause, told }) => {
                let told = told.filter(|_| !speaking.get()).map(|(code, reason)| (code, reason.to_owned()));
                return end(handler, caller, record, cause, told, 0).await;
            }
        };
        match self.begin(core, bounds, &first, record).await {
            Ok(begun) => Outcome::Begun(begun, caller, first.ahead),
            Err((cause, told)) => end(handler, caller, record, cause, Some(told), 1).await,
        }
    }

    /// The phases from identification on.
    async fn begin(
        &mut self,
        core: &Core,
        bounds: &Limits,
        first: &FirstMessage,
        record: &mut Record,
    ) -> Result<Box<Begun>, (SocketCause, (u16, String))> {
        let refused = |refusal: Refusal| {
            tracing::debug!(%refusal, "socket refused");
            let reason = format!("{}: {}", refusal.kind.code(), refusal.message());
            (SocketCause::Refused(refusal.kind), (websocket::refusal(refusal.kind), reason))
        };
        match self.ask(core, bounds, first, record).await.map_err(refused)? {
            Answered::Open(_, begun) => Ok(begun),
            Answered::Refused((status, _), _) => {
                // The platform's own word to the caller, which would have been this status.
                let reason = format!("the platform refused with status {}", status.as_u16());
                Err((SocketCause::Declined(status.as_u16()), (4000 + status.as_u16(), reason)))
            }
        }
    }

    async fn ask(
        &mut self,
        core: &Core,
        bounds: &Limits,
        first: &FirstMessage,
        record: &mut Record,
    ) -> Result<Answered, Refusal> {
        let Self { head, opening, protocol, caller_ip, scheme, known } = self;
        let target = Target::parse(head.uri.path(), &head.headers)?;
        let (epoch, snapshot) = (core.registry.epoch(), core.registry.snapshot());
        let mut places = Places::of(&target, &snapshot);
        let (key, Admitted { user, live, secret }) = match known.take() {
            // Much may have changed while the message was waited for. A client secret names its model, and
            // is never waited for here.
            Some(Known { key, live, .. }) => {
                let user = admit::authenticate(&snapshot, &key)?;
                phases::admitted(core, user, *caller_ip, &target.normal)?;
                let user = Arc::clone(user);
                (key, Admitted { user, live, secret: None })
            }
            None => {
                let key = places.find(&first.payload)?.into_owned();
                let caller = (&*key, *caller_ip);
                let admitted = phases::enter(
                    core,
                    (&snapshot, epoch),
                    caller,
                    Kind::WebSocket,
                    (&target, head),
                    record,
                )?;
                (key, admitted)
            }
        };
        let secret = secret.as_deref();
        let query = secrets::query(secret, head.uri.query());
        let query = query.as_deref();

        // plan
        let plan = Plan::for_path(&user, &target)?;
        let claim = Claim::of(&Method::GET, &target, &plan, &head.headers, head.uri.query());
        let plan = Owners::new(&core.objects, &snapshot, &user).narrow(plan, &claim, Ok(Vec::new()))?;
        let unread = Peeked::unread(None, Scan::of(&head.headers), bounds);
        let mut model = match secret {
            Some(secret) => Some(secret.claims.model.clone()),
            None => reading::model_of(head, &target, &plan, &unread, &user)?,
        };
        for name in models(first) {
            admit::model(&user, Some(&name), true)?;
            if name != UNREADABLE {
                model.get_or_insert(name);
            }
        }
        if model.is_none() {
            sockets::check_model(&user, &target, head.uri.query())?;
        }
        let plan = plan.for_model(model.as_deref())?;
        if let Some(model) = model {
            live.set_model(&model);
            record.model(model);
        }
        if let Some(secret) = secret {
            secret.spend(core)?;
        }

        let offered = Offered::of(&opening.protocols);
        // The caller has been told one already.
        let open = offered.open.iter().copied().filter(|open| protocol.as_deref() == Some(open)).collect();
        let offered = Offered { open, ..offered };
        let ask = Ask::handshake(head.headers.clone(), query, &key, epoch);
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let (target, user, offered, places) = (&target, &user, &offered, &places);
        let ask = SocketAsk { ask, target, user, secret, opening, offered, places, joined: false };
        sockets::open(core, record, live, plan, ask, (scheme, host)).await
    }
}

/// The models that a first message names.
fn models(first: &FirstMessage) -> Vec<String> {
    let mut caller = Caller::default();
    caller.feed(&first.payload);
    caller.end();
    caller.take_models()
}

fn ended_by(order: EndOrder) -> FirstEnd {
    FirstEnd { cause: SocketCause::Ordered(order), told: Some(order.told()) }
}

async fn end(
    handler: &dyn UpgradeHandler,
    caller: Box<dyn SocketStream>,
    record: &mut Record,
    cause: SocketCause,
    told: Option<(u16, String)>,
    frames: u64,
) -> Outcome {
    let code = told.as_ref().map(|(code, _)| *code);
    record.unopened(cause, code, frames);
    handler.part(caller, told).await;
    Outcome::Ended
}
