//! WebSockets: what their handshakes have of their own.
//!
//! The phases are those of every request (`phases`). The platform is asked before the caller is
//! answered: its refusal is an HTTP answer, and another channel may be tried. What goes on behind the
//! 101 is in `switch`.

use std::rc::Rc;
use std::sync::Arc;

use aiproxy_config::model::{Channel, User};
use aiproxy_core::ports::{Opening, UpgradeHandler};
use aiproxy_core::{ErrorKind, websocket};
use aiproxy_platform::placement::query_pairs;
use aiproxy_platform::{Family, routes};
use aiproxy_registry::health::Verdict;
use aiproxy_registry::live::Registration;
use aiproxy_routing::identify::Offered;
use aiproxy_routing::{Candidate, Plan, Refusal, Target, admit};
use aiproxy_upstream::answer::{Way, clean};
use aiproxy_upstream::{BodyWatch, Handshake, Slot, Source};
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version, request};

use crate::account;
use crate::attempts::{self, Ask, Failed, Turn};
use crate::first_message::Places;
use crate::phases::{Core, unless_cut};
use crate::record::Record;
use crate::secrets::ClientSecret;
use crate::switch::Begun;

/// Parameters of which a realtime socket has exactly one; the first that is there goes on. Who joins
/// a call has its model, and a transcription names its own later.
const ONE_OF: [&str; 3] = ["call_id", "intent", "model"];

/// Whether the request asks for a WebSocket that a server cannot ignore.
pub(crate) fn is_wanted(head: &request::Parts) -> bool {
    head.version == Version::HTTP_11 && websocket::lists(&head.headers, &UPGRADE, "websocket")
}

/// The handshake taken apart.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn opening(handler: &dyn UpgradeHandler, head: &request::Parts) -> Result<Opening, Refusal> {
    handler.opening(head).map_err(|(kind, sentence)| Refusal::new(kind, sentence))
}

/// Where a limit on models applies, a realtime socket that neither joins a call nor says that it is
/// for transcription has to name its model, and so has one for speech. What its messages name later is looked at as they pass.
///
/// # Errors
/// [`ErrorKind::ModelNotAllowed`].
pub(crate) fn check_model(user: &User, target: &Target<'_>, query: Option<&str>) -> Result<(), Refusal> {
    let speech = matches!(target.route.family, Family::Deepgram | Family::ElevenLabs);
    let required = match is_realtime(target) {
        true => kept(query).is_none(),
        false => speech && routes::runs_a_model(&target.normal),
    };
    admit::model(user, None, required)
}

/// Whether it matters for the plan, or for whether the caller is admitted, which model is asked for.
pub(crate) fn depends_on_model(plan: &Plan, user: &User) -> bool {
    !user.models.is_none()
        || plan.candidates.len() > 1
        || plan.candidates.iter().any(|candidate| candidate.channel.models.is_some())
}

fn is_realtime(target: &Target<'_>) -> bool {
    target.normal.ends_with("/realtime") || target.normal.ends_with("/realtime/translations")
}

/// Which of [`ONE_OF`] goes on.
fn kept(query: Option<&str>) -> Option<&'static str> {
    ONE_OF.into_iter().find(|wanted| query_pairs(query).any(|(name, _)| name == *wanted))
}

/// What is to be opened.
pub(crate) struct SocketAsk<'a> {
    pub(crate) ask: Ask<'a>,
    pub(crate) target: &'a Target<'a>,
    pub(crate) user: &'a Arc<User>,
    /// The client secret, where it stands for the user's key.
    pub(crate) secret: Option<&'a ClientSecret>,
    pub(crate) opening: &'a Opening,
    pub(crate) offered: &'a Offered<'a>,
    /// Where keys may stand in its first message.
    pub(crate) places: &'a Places,
    /// It joins a call of ours, which is metered itself.
    pub(crate) joined: bool,
}

/// What a handshake came to, ready for the caller.
pub(crate) enum Answered {
    /// The headers of the 101, and the socket.
    Open(HeaderMap, Box<Begun>),
    /// The platform's refusal.
    Refused((StatusCode, HeaderMap), Bytes),
}

/// What one channel's platform answered.
struct Heard {
    channel: Arc<Channel>,
    slot: Rc<Slot>,
    path: String,
    handshake: Handshake,
}

/// Asks the plan's channels in order.
///
/// # Errors
/// As [`attempts::open`].
pub(crate) async fn open(
    core: &Core,
    record: &mut Record,
    live: Registration,
    plan: Plan,
    ask: SocketAsk<'_>,
    (scheme, authority): (&str, &str),
) -> Result<Answered, Refusal> {
    let plan = (plan, ask.ask.epoch);
    let asking = attempts::walk(core, record, &live, plan, async |record, candidate, turn, more| {
        attempt(core, record, candidate, &ask, turn, more).await
    });
    let heard = unless_cut(&live, asking).await.map_err(Refusal::from).flatten()?;
    let Heard { channel, slot, path, handshake } = heard;
    let clean = |headers: &mut HeaderMap| {
        let names = slot.prepared().query_names();
        clean(headers, &channel, names, Way { scheme, authority, asked: &path });
    };
    record.answering();
    match handshake {
        Handshake::Refused { mut head, body } => {
            clean(&mut head.headers);
            for name in [CONTENT_LENGTH, CONNECTION, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_EXTENSIONS] {
                head.headers.remove(name);
            }
            Ok(Answered::Refused((head.status, head.headers), body))
        }
        Handshake::Open { mut head, stream, ahead } => {
            let chosen = head.headers.remove(SEC_WEBSOCKET_PROTOCOL);
            clean(&mut head.headers);
            let headers = accept(head.headers, chosen.as_ref(), ask.opening, ask.offered, ask.ask.key);
            let (user, family) = (Arc::clone(ask.user), ask.target.route.family);
            let edit = ask.places.edit(&channel, ask.ask.key);
            let prelude = ask.secret.and_then(ClientSecret::prelude);
            let aside = ask.secret.and_then(ClientSecret::aside);
            let joined = ask.joined;
            let begun = Begun { stream, ahead, channel, live, user, family, edit, prelude, aside, joined };
            Ok(Answered::Open(headers, Box::new(begun)))
        }
    }
}

/// Asks one channel.
///
/// # Errors
/// Why it gave no answer for the caller.
async fn attempt(
    core: &Core,
    record: &mut Record,
    candidate: Candidate,
    socket: &SocketAsk<'_>,
    mut turn: Turn,
    more: bool,
) -> Result<Heard, Failed> {
    let Candidate { channel, path } = candidate;
    let SocketAsk { ask, target, offered, .. } = socket;
    let slot = core.pool.slot(&channel);
    let prepared = slot.prepared();
    let realtime = is_realtime(target);
    let mut one = if realtime { kept(ask.query) } else { None };
    let keeps = |name: &str| match realtime && ONE_OF.contains(&name) {
        // The first of several of the same name, too.
        true if one == Some(name) => one.take().is_some(),
        true => false,
        false => true,
    };
    let uri = prepared.socket_target(&path, ask.query, ask.key, keeps).map_err(attempts::refused_target)?;
    let mut protocols = prepared.protocols(&offered.open, ask.key);
    if protocols.is_empty() && prepared.key_is_protocol() && realtime {
        // Beside the key there has to be one that the platform can take up.
        protocols.push("realtime");
    }
    let key = websocket::fresh_key();
    let mut headers = ask.headers.clone();
    prepared.swap_handshake(&mut headers, ask.key, &key, &protocols);
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let (head, body) = match slot.handshake(request, &key).await {
        Ok(handshake @ Handshake::Open { .. }) => {
            turn.report(Verdict::Good);
            record.answered(StatusCode::SWITCHING_PROTOCOLS.as_u16());
            return Ok(Heard { channel, slot, path, handshake });
        }
        Ok(Handshake::Refused { head, body }) => (head, body),
        Err(error) => {
            let watch = BodyWatch::new();
            drop(Source::empty().attempt(Rc::clone(&watch)));
            return Err(attempts::no_answer(&error, &channel, ask, &mut turn, &watch, record));
        }
    };
    let status = head.status;
    if let Err(kind) = account::judge(&channel, status, &body) {
        turn.rejected(status);
        return Err(Failed { next: more, ..attempts::failed(kind) });
    }
    // Neither a success nor a redirection is an answer to a handshake.
    if !status.is_client_error() && !status.is_server_error() {
        turn.report(Verdict::Bad);
        return Err(Failed { next: more, ..attempts::failed(ErrorKind::UpstreamProtocol) });
    }
    turn.answered(status, &head.headers, more)?;
    record.answered(status.as_u16());
    Ok(Heard { channel, slot, path, handshake: Handshake::Refused { head, body } })
}

/// The headers of our 101, on top of what the platform's had to say.
pub(crate) fn accept(
    mut headers: HeaderMap,
    chosen: Option<&HeaderValue>,
    opening: &Opening,
    offered: &Offered<'_>,
    key: &str,
) -> HeaderMap {
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&opening.accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(protocol) = echoed(chosen, offered, key)
        && let Ok(protocol) = HeaderValue::from_str(protocol)
    {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    headers
}

/// The subprotocol that the caller hears: the platform's choice if the caller offered it, else the
/// first that it offered and that is no key. Browsers and the `ws` package fail without one.
pub(crate) fn echoed<'a>(chosen: Option<&HeaderValue>, offered: &Offered<'a>, key: &str) -> Option<&'a str> {
    let speakable = || {
        let all = offered.open.iter().chain(&offered.marks).copied();
        all.filter(|protocol| !protocol.contains(key) && !offered.keys.contains(protocol))
    };
    let chosen = chosen.and_then(|chosen| chosen.to_str().ok()).map(str::trim);
    speakable().find(|protocol| chosen == Some(protocol)).or_else(|| speakable().next())
}
