//! WebRTC calls, as far as they are requests: an offer becomes an offer of ours to a platform, and the
//! platform's answer one of ours to the caller.
//!
//! - `ask`: what is asked of platforms
//! - [`join`]: requests that act upon calls: hangup, refer, sidebands
//! - [`session`]: calls behind their answer
//! - [`direct`]: calls whose media does not come here
//!
//! The body is read by [`SdpHandler`] and the media bridged by [`MediaPlane`]; who may call, where to and
//! in which order is decided by the phases of every request.

mod ask;
pub(crate) mod direct;
pub(crate) mod join;
pub(crate) mod session;

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_config::model::{Channel, Limits, Realtime, System, User, WebRtc};
use aiproxy_core::ErrorKind;
use aiproxy_core::ids::random_key;
use aiproxy_core::ports::{
    AnsweredCall, CallLimits, CallOffer, CallShape, CallTerms, MediaPlane, OpenCall, SdpHandler,
};
use aiproxy_platform::Family;
use aiproxy_platform::placement::query_pairs;
use aiproxy_platform::session::{self as sessions, ModelPlace, Part};
use aiproxy_registry::calls::{Bounds, Call, Full};
use aiproxy_registry::live::Registration;
use aiproxy_routing::{Plan, Refusal, Target, admit};
use aiproxy_upstream::Incoming;
use aiproxy_upstream::answer::{Way, clean};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode, request};
use memchr::memmem;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::phases::{Core, unless_cut};
use crate::reading::{self, Whole};
use crate::record::Record;
use crate::secrets::ClientSecret;
use crate::switch;
use ask::Heard;
use session::{Counted, Guard, Session, Shared, Track};

/// The longest body of an offer: an SDP of 64 KiB, settings, and what is around them.
const OFFER: Whole = Whole { most: 256 * 1024, what: "an offer", plain: "Send the offer as it is." };
/// What our ids of calls begin with.
pub(crate) const ID: &str = "rtc_aiproxy_";

/// What calls are made of.
#[derive(Clone)]
pub struct Calls {
    /// Reads and writes bodies.
    pub sdp: Arc<dyn SdpHandler>,
    /// Bridges media; none where `listen.media` is off.
    pub media: Option<Arc<dyn MediaPlane>>,
}

/// An offer on its way.
pub(crate) struct CallAsk<'a> {
    pub(crate) target: &'a Target<'a>,
    pub(crate) head: &'a request::Parts,
    pub(crate) user: &'a Arc<User>,
    pub(crate) secret: Option<&'a ClientSecret>,
    pub(crate) query: Option<&'a str>,
    pub(crate) key: &'a str,
    pub(crate) scheme: &'a str,
    pub(crate) system: &'a System,
    pub(crate) epoch: u64,
    pub(crate) place: ModelPlace,
}

/// What an offer came to.
pub(crate) enum Called {
    /// A call: the answer, and what goes on behind it.
    Begun((StatusCode, HeaderMap), Bytes, Box<Session>),
    /// The platform refused it.
    Refused((StatusCode, HeaderMap), Bytes),
}

/// Whether the request offers a call, and where it names its model.
pub(crate) fn is_offer(method: &Method, target: &Target<'_>) -> Option<ModelPlace> {
    match sessions::part(&target.normal, false, false) {
        Some(Part::Begins(place)) if method == Method::POST => Some(place),
        _ => None,
    }
}

/// Serves an offer.
///
/// # Errors
/// As every request's; [`ErrorKind::CallsOff`], [`ErrorKind::CallLimit`], [`ErrorKind::Overloaded`].
pub(crate) async fn begin(
    core: &Core,
    calls: &Calls,
    record: &mut Record,
    live: Registration,
    ask: CallAsk<'_>,
    body: &mut Option<Incoming>,
) -> Result<Called, Refusal> {
    if ask.target.path.trim_end_matches('/') != ask.target.normal.trim_end_matches('/') {
        // What follows the call, as its hangup, is made from it.
        return Err(bad(format!("Write the path as {}.", ask.target.normal)));
    }
    let bounds = bounds(&ask.system.limits);
    let mut place = core.registry.calls.place(live.digest, bounds).map_err(full)?;
    record.call();
    let kind = ask.head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let whole =
        unless_cut(&live, reading::whole(body, &ask.head.headers, &ask.system.limits, OFFER)).await??;
    let mut offer = calls.sdp.read(kind, &whole).map_err(bad)?;

    let plan = Plan::for_path(ask.user, ask.target)?;
    let model = model(calls, &ask, &offer, &plan)?;
    let mut plan = plan.for_model(model.as_deref())?;
    let mode = retain_one_mode(&mut plan, calls.media.is_some())?;
    if let Some(model) = &model {
        live.set_model(model);
        record.model(model.clone());
    }
    let query = shape(calls, &ask, &mut offer, model.as_deref())?;
    // From here on it costs something.
    let setup = core.registry.calls.set_up(live.digest, bounds).map_err(full)?;

    let limits = plan.candidates.first().map(|first| limits(&first.channel.realtime, ask.system));
    let mut opened: Option<Box<dyn OpenCall>> = None;
    if mode == WebRtc::Relay
        && let (Some(media), Some(limits)) = (&calls.media, limits)
    {
        let call = media.open(&offer.sdp, limits).map_err(|(kind, why)| Refusal::new(kind, why))?;
        call.offer().clone_into(&mut offer.sdp);
        opened = Some(call);
    }
    let (kind, bytes) = calls.sdp.write(&offer);
    let most = plan.candidates.first().and_then(|first| first.channel.realtime.calls);
    if let Some(first) = plan.candidates.first() {
        place.on(&first.channel.id, most).map_err(full)?;
    }
    if let Some(secret) = ask.secret {
        secret.spend(core)?;
    }
    let heard = ask::platforms(core, record, &live, plan, (&ask, query.as_deref()), (&kind, bytes)).await?;
    let Heard { channel, slot, path, status, mut headers, body, mut begun } = heard;
    place.on(&channel.id, channel.realtime.calls).map_err(full)?;
    let host = ask.head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let way = Way { scheme: ask.scheme, authority: host, asked: &path };
    clean(&mut headers, &channel, slot.prepared().query_names(), way);
    for name in [CONTENT_LENGTH, CONTENT_ENCODING, LOCATION] {
        headers.remove(name);
    }
    record.answering();
    if !status.is_success() {
        return Ok(Called::Refused((status, headers), body));
    }

    let reply = calls.sdp.answer(offer.shape, &body).map_err(|why| broken(&channel, &why))?;
    begun.named(reply.id.as_deref());
    let platform_id = begun.id().map(str::to_owned);
    let id = random_key(ID, 24);
    let call = place.found(Call {
        id: id.clone().into(),
        platform_id: platform_id.clone().map(Into::into),
        channel: Arc::clone(&channel.id),
        live: live.entry(),
    });
    let health = core.registry.health.get(&channel.id);
    let shared = Shared::default();
    let aside = ask.secret.and_then(ClientSecret::aside);
    let guard = Guard::new(&live, ask.user, aside, setup, Rc::clone(&shared));
    let metered = is_metered(ask.target.route.family);
    let models = switch::models_read(ask.user, &live, metered);
    let terms = CallTerms { metered, models, guard: Box::new(guard) };
    let (sdp, track) = match opened {
        Some(opened) => match opened.answer(&reply.sdp, terms) {
            Ok(AnsweredCall { answer, call }) => (answer, Track::Relayed(call)),
            Err((ErrorKind::UpstreamProtocol, why)) => return Err(broken(&channel, &why)),
            Err((kind, why)) => return Err(Refusal::new(kind, why)),
        },
        None => {
            let listening = direct::listen(core, &slot, &path, &call, terms);
            let watching = unless_cut(&live, listening).await.flatten()?;
            (reply.sdp, Track::Direct(watching))
        }
    };
    let (content, body) = calls.sdp.reply(offer.shape, &body, &sdp, &id);
    let body = without_id(body, &mut headers, platform_id.as_deref(), &id);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
    if let Ok(location) = HeaderValue::from_str(&location(ask.target.path, &id)) {
        headers.insert(LOCATION, location);
    }
    tracing::debug!(request = %record.request_id(), call = id, channel = %channel.id, "call answered");
    let counted = Counted::new(&core.calls_here);
    let hangup = begun.kept();
    let session = Session { track, hangup, live, place, channel, health, counted, shared };
    Ok(Called::Begun((status, headers), body, Box::new(session)))
}

fn bounds(limits: &Limits) -> Bounds {
    Bounds { total: limits.calls, per_key: limits.calls_per_key, setups: limits.call_setups }
}

fn full(full: Full) -> Refusal {
    match full {
        Full::Key | Full::KeySetups => Refusal { retry_after: Some(5), ..ErrorKind::CallLimit.into() },
        Full::Total | Full::Channel | Full::Setups => {
            let message = "There are as many calls as there may be. Try again shortly.";
            Refusal { retry_after: Some(5), ..Refusal::new(ErrorKind::Overloaded, message) }
        }
    }
}

fn bad(why: String) -> Refusal {
    Refusal::new(ErrorKind::BadRequest, why)
}

/// The platform's answer is none. What it has begun ends with its [`Begun`].
fn broken(channel: &Channel, why: &str) -> Refusal {
    tracing::warn!(channel = %channel.id, why, "the platform's answer to an offer cannot be used");
    ErrorKind::UpstreamProtocol.into()
}

/// The answer without the platform's id of the call, wherever else it stands.
fn without_id(body: Bytes, headers: &mut HeaderMap, platform_id: Option<&str>, id: &str) -> Bytes {
    let Some(platform_id) = platform_id.filter(|id| id.len() >= 6) else { return body };
    let holds = |value: &HeaderValue| memmem::find(value.as_bytes(), platform_id.as_bytes()).is_some();
    let telling: Vec<HeaderName> =
        headers.iter().filter(|(_, value)| holds(value)).map(|(name, _)| name.clone()).collect();
    for name in telling {
        headers.remove(name);
    }
    match std::str::from_utf8(&body) {
        Ok(text) if text.contains(platform_id) => text.replace(platform_id, id).into(),
        _ => body,
    }
}

/// The model of the call: the client secret's, else the settings', else the query's, else the channel's.
fn model(
    calls: &Calls,
    ask: &CallAsk<'_>,
    offer: &CallOffer,
    plan: &Plan,
) -> Result<Option<String>, Refusal> {
    let named = offer.session.as_deref().map(|session| calls.sdp.models(session)).unwrap_or_default();
    let (aside, in_session): (Vec<_>, Vec<_>) = named.into_iter().partition(|model| model.aside);
    let in_query = reading::models_in_query(ask.query);
    let own = || in_session.iter().map(|model| &model.name).chain(&in_query);
    let parent = ask.secret.and_then(ClientSecret::aside);
    let parent = parent.as_ref().unwrap_or(ask.user);
    for model in &aside {
        admit::model(parent, Some(&model.name), true)?;
    }
    if let Some(secret) = ask.secret {
        let kind = offer.session.as_deref().and_then(kind);
        if kind.is_some_and(|kind| kind != secret.claims.kind.as_str()) {
            let message =
                format!("This client secret is for a session of the type '{}'.", secret.claims.kind.as_str());
            return Err(Refusal::new(ErrorKind::SecretScope, message));
        }
        let pinned = &secret.claims.model;
        return match own().all(|model| model == pinned) {
            true => Ok(Some(pinned.clone())),
            false => Err(ErrorKind::SecretModel.into()),
        };
    }
    for model in own() {
        admit::model(ask.user, Some(model), true)?;
    }
    let usual = || plan.candidates.iter().find_map(|it| it.channel.default_model.as_deref());
    let first = own().next().map(String::as_str);
    let transcribes = offer.session.as_deref().is_some_and(transcribes);
    let first =
        if transcribes { first.or(aside.first().map(|model| &*model.name)) } else { first.or_else(usual) };
    if first.is_none() && !transcribes {
        return Err(bad(
            "The call names no model. Send it as 'session.model', add '?model=' to the URL, use a client secret, or have your administrator set the channel's default_model.".to_owned(),
        ));
    }
    admit::model(ask.user, first, true)?;
    Ok(first.map(str::to_owned))
}

/// Sessions that only transcribe name their model elsewhere in their settings.
fn transcribes(session: &str) -> bool {
    kind(session).as_deref() == Some("transcription")
}

/// What a session's settings say that it is.
fn kind(session: &str) -> Option<String> {
    let session: serde_json::Value = serde_json::from_str(session).ok()?;
    Some(session.get("type")?.as_str()?.to_owned())
}

/// Channels of one kind: an offer is either ours or the caller's.
fn retain_one_mode(plan: &mut Plan, media: bool) -> Result<WebRtc, Refusal> {
    plan.candidates.retain(|candidate| match candidate.channel.realtime.webrtc {
        WebRtc::Relay => media,
        WebRtc::Direct => true,
        WebRtc::Off => false,
    });
    let mode = plan.candidates.first().map(|first| first.channel.realtime.webrtc);
    let mode = mode.ok_or_else(|| Refusal::from(ErrorKind::CallsOff))?;
    plan.candidates.retain(|candidate| candidate.channel.realtime.webrtc == mode);
    Ok(mode)
}

/// Brings the offer into the shape in which it says what the platform has to know; the query that goes
/// with it.
fn shape<'q>(
    calls: &Calls,
    ask: &CallAsk<'q>,
    offer: &mut CallOffer,
    model: Option<&str>,
) -> Result<Option<Cow<'q, str>>, Refusal> {
    let initial = ask.secret.map(|secret| serde_json::Value::Object(secret.session()).to_string());
    let own = ask.query.map(Cow::Borrowed);
    // A raw offer on a path of calls has no place for a model but a session beside it.
    let parts = ask.target.normal.ends_with("/calls");
    if offer.shape == CallShape::Raw && !parts {
        let ModelPlace::Query(name) = ask.place else {
            return Err(bad(
                "Sessions on this path are offered as application/json with 'transport.sdp'.".to_owned()
            ));
        };
        if ask.secret.is_some_and(|secret| secret.claims.settings.is_some()) {
            return Err(bad("This client secret brings settings, which have no place here: offer the call at /v1/realtime/calls.".to_owned()));
        }
        let Some(model) = model.filter(|_| reading::models_in_query(ask.query).is_empty()) else {
            return Ok(own);
        };
        let more = format!("{name}={}", utf8_percent_encode(model, NON_ALPHANUMERIC));
        return Ok(Some(Cow::Owned(reading::with_parameter(ask.query, &more))));
    }
    let settled = calls.sdp.settle(offer.session.as_deref(), initial.as_deref(), model).map_err(bad)?;
    offer.session = Some(settled);
    if offer.shape == CallShape::Raw {
        offer.shape = CallShape::Multipart;
    }
    let named = query_pairs(ask.query).any(|(name, _)| name.eq_ignore_ascii_case("model"));
    if !named || !parts {
        return Ok(own);
    }
    let kept: Vec<&str> = ask
        .query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            !percent_encoding::percent_decode_str(name).decode_utf8_lossy().eq_ignore_ascii_case("model")
        })
        .collect();
    Ok((!kept.is_empty()).then(|| Cow::Owned(kept.join("&"))))
}

fn limits(realtime: &Realtime, system: &System) -> CallLimits {
    let media = system.media.as_ref();
    CallLimits {
        setup: media.map_or(Duration::from_secs(15), |media| media.setup),
        idle: realtime.idle,
        total: realtime.total,
        grace: media.map_or(Duration::from_millis(2500), |media| media.grace),
        message_bytes: realtime.message,
        held_bytes: realtime.buffer,
        report: system.journal.as_ref().map(|journal| journal.session_interval),
    }
}

fn is_metered(family: Family) -> bool {
    matches!(family, Family::OpenAi | Family::Azure | Family::DashScope | Family::Other)
}

/// Where the caller finds its call: relative, as the platforms answer.
fn location(path: &str, id: &str) -> String {
    let path = path.trim_end_matches('/');
    match path {
        _ if path.ends_with("/calls") || path.ends_with("/sessions") => format!("{path}/{id}"),
        "/openai/v1/realtime" => format!("{path}/calls/{id}"),
        _ => format!("/v1/realtime/calls/{id}"),
    }
}

/// The headers that a request of AIProxy's own to a platform begins with.
pub(crate) fn own_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let agent = concat!("aiproxy/", env!("CARGO_PKG_VERSION"));
    headers.insert(HeaderName::from_static("user-agent"), HeaderValue::from_static(agent));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_where_their_platforms_say() {
        for (path, at) in [
            ("/v1/realtime/calls", "/v1/realtime/calls/x"),
            ("/v1/realtime", "/v1/realtime/calls/x"),
            ("/openai/v1/realtime/calls", "/openai/v1/realtime/calls/x"),
            ("/v1/live/sessions", "/v1/live/sessions/x"),
            ("/api/v1/webrtc/realtime", "/v1/realtime/calls/x"),
        ] {
            assert_eq!(location(path, "x"), at);
        }
    }
}
