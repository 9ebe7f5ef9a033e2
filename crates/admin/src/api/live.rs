//! What is under way at this moment, and how an administrator ends it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use aiproxy_core::{EntityKind, ErrorKind, KeyDigest, RequestId};
use aiproxy_registry::live::{Kind, Live};
use axum::Json;
use axum::extract::State as Shared;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::desk::{Desk, Told, moment};
use super::documents;
use super::error::{ApiError, ApiResult, Body, ErrorBody, Id, Params};
use super::listing::{Part, Place};
use super::schema::{CutShown, LiveList};
use crate::State;

/// What those hear whose session an administrator ends.
const ENDED: ErrorKind = ErrorKind::SessionEnded;

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, cut)).routes(routes!(cut_all))
}

/// One request or session under way.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LiveSession {
    /// Its request id.
    #[schema(example = "req_0123456789abcdefghij")]
    id: String,
    /// `http`, `websocket` or `call`.
    #[schema(example = "websocket")]
    kind: &'static str,
    user: String,
    /// The key's tag.
    #[schema(example = "pk_01234…3f2a91bc")]
    key: String,
    /// The channel that serves it at the moment.
    channel: Option<String>,
    /// The model asked for, once it is known.
    model: Option<String>,
    /// RFC 3339.
    started_at: Option<String>,
    /// Seconds since then.
    age: u64,
    /// Bytes handed to the caller so far.
    bytes_out: u64,
    /// It has been told to end and has not yet.
    ending: bool,
}

impl LiveSession {
    fn of(live: &Live) -> Self {
        Self {
            id: live.id.to_string(),
            kind: name(live.kind),
            user: live.user.to_string(),
            key: format!("{}…{}", live.key.prefix, live.key.digest),
            channel: live.channel().as_deref().map(str::to_owned),
            model: live.model().map(str::to_owned),
            started_at: moment(live.started),
            age: age(live).as_secs(),
            bytes_out: live.bytes_out.load(Ordering::Relaxed),
            ending: live.is_cut().is_some(),
        }
    }
}

const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Http => "http",
        Kind::WebSocket => "websocket",
        Kind::Call => "call",
    }
}

fn age(live: &Live) -> Duration {
    SystemTime::now().duration_since(live.started).unwrap_or_default()
}

/// Which sessions, which part of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LiveQuery {
    /// Items of the page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
    /// Items that are passed over.
    #[param(minimum = 0, maximum = 1_000_000_000, default = 0)]
    offset: Option<u64>,
    /// Sessions of this user.
    #[param(max_length = 200)]
    user: Option<String>,
    /// Sessions with the key of this id.
    #[param(max_length = 200)]
    key: Option<String>,
    /// Sessions at this channel.
    #[param(max_length = 200)]
    channel: Option<String>,
    /// `http`, `websocket` or `call`.
    #[param(example = "websocket")]
    kind: Option<String>,
    /// Sessions that asked for this model.
    #[param(max_length = 200)]
    model: Option<String>,
    /// Sessions that have lasted longer than so many seconds.
    #[param(minimum = 0, example = 3600)]
    older_than: Option<u64>,
}

/// List what is under way, the oldest first.
#[utoipa::path(get, path = "/api/v1/sessions", tag = "sessions", params(LiveQuery),
    responses((status = 200, description = "A page of sessions.", body = LiveList)))]
async fn list(
    Shared(state): Shared<Arc<State>>,
    place: Place,
    Params(query): Params<LiveQuery>,
) -> ApiResult<Response> {
    let part = Part::of(query.limit, query.offset)?;
    if let Some(kind) = &query.kind
        && ![Kind::Http, Kind::WebSocket, Kind::Call].map(name).contains(&&**kind)
    {
        return Err(ApiError::bad_request("`kind` is `http`, `websocket` or `call`."));
    }
    let digest = match &query.key {
        Some(key) => Some(digest_of(&state, key).await?),
        None => None,
    };
    let mut all = state.registry.live.list();
    all.retain(|live| {
        query.user.as_deref().is_none_or(|user| &*live.user == user)
            && digest.is_none_or(|digest| digest == Some(live.digest))
            && query.channel.as_deref().is_none_or(|channel| live.channel().as_deref() == Some(channel))
            && query.kind.as_deref().is_none_or(|kind| name(live.kind) == kind)
            && query.model.as_deref().is_none_or(|model| live.model() == Some(model))
            && query.older_than.is_none_or(|seconds| age(live).as_secs() > seconds)
    });
    all.sort_by(|a, b| a.started.cmp(&b.started).then_with(|| a.id.as_str().cmp(b.id.as_str())));
    let total = all.len() as u64;
    let items: Vec<Value> = part.cut(all).iter().map(|live| json!(LiveSession::of(live))).collect();
    Ok(place.page(&items, total, part))
}

/// The digest of a key by its id; none where there is no such key: nothing is under way with it.
async fn digest_of(state: &State, id: &str) -> ApiResult<Option<KeyDigest>> {
    match documents::find(state, EntityKind::Key, id).await {
        Ok(key) => Ok(documents::digest(&key)),
        Err(error) if error.status() == http::StatusCode::NOT_FOUND => Ok(None),
        Err(error) => Err(error),
    }
}

fn find(state: &State, id: &str) -> ApiResult<Arc<Live>> {
    let all = state.registry.live.list();
    all.into_iter().find(|live| live.id.as_str() == id).ok_or_else(|| ApiError::not_found("session", id))
}

/// Show one session.
#[utoipa::path(get, path = "/api/v1/sessions/{id}", tag = "sessions", params(("id" = String, Path, description = "The request id.")),
    responses((status = 200, description = "The session.", body = LiveSession), (status = 404, description = "It has ended, or never was.", body = ErrorBody)))]
async fn get(Shared(state): Shared<Arc<State>>, Id(id): Id) -> ApiResult<Json<LiveSession>> {
    Ok(Json(LiveSession::of(&*find(&state, &id)?)))
}

/// What was ended.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a schema")]
struct Ended {
    cut: Vec<CutShown>,
}

/// End one session. Its caller hears `session_ended` and may begin another.
#[utoipa::path(delete, path = "/api/v1/sessions/{id}", tag = "sessions", params(("id" = String, Path, description = "The request id.")),
    responses((status = 200, description = "It ends.", body = Ended), (status = 404, description = "It has ended, or never was.", body = ErrorBody)))]
async fn cut(desk: Desk, Id(id): Id) -> ApiResult<Told> {
    let live = find(&desk.state, &id)?;
    let wanted: RequestId = live.id;
    let cut = end(&desk.state, |live| live.id == wanted);
    let mut entry = desk.caller.audit("session.cut", "session", &id);
    entry.detail = Some(json!({ "cut": cut }));
    desk.note(&entry).await?;
    Ok(Told::ok(json!({ "cut": cut })))
}

/// Whose sessions to end: one of the three.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CutAll {
    /// All of this user.
    #[schema(example = "zhangsan")]
    user: Option<String>,
    /// All at this channel.
    channel: Option<String>,
    /// All with the key of this id.
    key: Option<String>,
}

/// End all sessions of a user, at a channel, or with a key. Their callers hear `session_ended` and may
/// begin others: disable the user or the key to prevent that.
#[utoipa::path(post, path = "/api/v1/sessions/cut", tag = "sessions", request_body(content = CutAll, example = json!({ "user": "zhangsan" })),
    responses(
        (status = 200, description = "What ends.", body = Ended),
        (status = 404, description = "There is no such key.", body = ErrorBody),
        (status = 422, description = "None or several of the fields.", body = ErrorBody)))]
async fn cut_all(desk: Desk, Body(wanted): Body<CutAll>) -> ApiResult<Told> {
    let (kind, id, cut) = match wanted {
        CutAll { user: Some(user), channel: None, key: None } => {
            let cut = end(&desk.state, |live| *live.user == *user);
            ("user", user, cut)
        }
        CutAll { user: None, channel: Some(channel), key: None } => {
            let cut = end(&desk.state, |live| live.channel().as_deref() == Some(&*channel));
            ("channel", channel, cut)
        }
        CutAll { user: None, channel: None, key: Some(key) } => {
            let digest =
                digest_of(&desk.state, &key).await?.ok_or_else(|| ApiError::not_found("key", &key))?;
            let cut = end(&desk.state, |live| live.digest == digest);
            ("key", key, cut)
        }
        _ => return Err(ApiError::field("", "name one of `user`, `channel` and `key`")),
    };
    let mut entry = desk.caller.audit("session.cut", kind, &id);
    entry.detail = Some(json!({ "cut": cut }));
    desk.note(&entry).await?;
    Ok(Told::ok(json!({ "cut": cut })))
}

/// Ends what fits; tells what has not ended already.
fn end(state: &State, fits: impl Fn(&Live) -> bool) -> Vec<Value> {
    let mut ended = Vec::new();
    for live in state.registry.live.list() {
        if live.is_cut().is_none() && fits(&live) {
            live.cut(ENDED);
            ended.push(json!({
                "id": live.id.as_str(),
                "kind": name(live.kind),
                "user": &*live.user,
                "channel": live.channel().as_deref(),
                "model": live.model(),
                "started_at": moment(live.started),
            }));
        }
    }
    ended
}
