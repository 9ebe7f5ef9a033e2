//! Channels: accounts at platforms. Their keys go in and never come out.

use std::sync::Arc;
use std::time::Instant;

use aiproxy_config::entity;
use aiproxy_core::EntityKind::Channel;
use aiproxy_core::{Fields, Record};
use aiproxy_registry::breaker::State as Breaker;
use axum::Json;
use axum::extract::State as Shared;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::desk::{Desk, Told};
use super::documents::{self, key_required};
use super::error::{ApiError, ApiResult, Body, ErrorBody, Id, Params};
use super::groups::unused;
use super::listing::{self, Place, Wanted};
use super::schema::{ChannelDocument, ChannelFields, ChannelList, ChannelPatch, Deleted};
use crate::State;

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, patch, delete))
        .routes(routes!(enable))
        .routes(routes!(disable))
        .routes(routes!(drain))
        .routes(routes!(health))
}

/// Which channels, in which order, which part of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ChannelQuery {
    /// Items of the page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
    /// Items that are passed over.
    #[param(minimum = 0, maximum = 1_000_000_000, default = 0)]
    offset: Option<u64>,
    /// A field, with `-` before it for the greatest first: `id`, `name`, `status`, `platform`, `base_url`,
    /// `created_at`, `updated_at`.
    #[param(example = "name")]
    sort: Option<String>,
    /// A text that id, name, platform or address contains.
    #[param(max_length = 200)]
    q: Option<String>,
    /// `active`, `draining` or `disabled`.
    #[param(max_length = 200)]
    status: Option<String>,
    /// Channels that say this platform.
    #[param(max_length = 200, example = "openai")]
    platform: Option<String>,
}

/// List channels. Secrets are `***`.
#[utoipa::path(get, path = "/api/v1/channels", tag = "channels", params(ChannelQuery),
    responses((status = 200, description = "A page of channels.", body = ChannelList)))]
async fn list(
    Shared(state): Shared<Arc<State>>,
    place: Place,
    Params(query): Params<ChannelQuery>,
) -> ApiResult<Response> {
    let ChannelQuery { limit, offset, sort, q: search, status, platform } = query;
    let filters = vec![("status", status), ("platform", platform)];
    listing::list(&state, Channel, &place, Wanted { limit, offset, sort, search, filters }).await
}

/// Make a channel. Values stand for themselves: `${NAME}` and `file:` are text here.
#[utoipa::path(post, path = "/api/v1/channels", tag = "channels",
    request_body(content = ChannelFields, example = json!({ "id": "openai", "api_key": "sk-…", "base_url": "https://api.openai.com" })),
    responses(
        (status = 201, description = "The channel.", body = ChannelDocument),
        (status = 409, description = "`exists`, `managed_by_file`", body = ErrorBody),
        (status = 422, description = "Fields that are not valid.", body = ErrorBody)))]
async fn create(desk: Desk, Body(mut body): Body<Map<String, Value>>) -> ApiResult<Told> {
    let id = super::users::given_id(&mut body)?.ok_or_else(|| ApiError::field("id", "it is required"))?;
    documents::create(&desk, Channel, id, body).await
}

/// Show a channel. Secrets are `***`.
#[utoipa::path(get, path = "/api/v1/channels/{id}", tag = "channels", params(("id" = String, Path, description = "The channel.")),
    responses((status = 200, description = "The channel.", body = ChannelDocument), (status = 404, description = "There is none.", body = ErrorBody)))]
async fn get(Shared(state): Shared<Arc<State>>, Id(id): Id) -> ApiResult<Response> {
    documents::get(&state, Channel, &id).await
}

/// Change a channel by a merge patch (RFC 7396). A secret that is `***` stays. Who changes where the key
/// would go (`base_url`, `platform`, `egress_proxy`, `ca`, `client_certificate`, `key_placement`,
/// `resolve`) gives every secret of the channel anew: else whoever may edit channels could have the key
/// sent to a place of their own.
#[utoipa::path(patch, path = "/api/v1/channels/{id}", tag = "channels", request_body(content = ChannelPatch, example = json!({ "models": ["gpt-*"] })),
    params(("id" = String, Path, description = "The channel."), ("If-Match" = String, Header, description = "The ETag of what was read, or `*`.")),
    responses(
        (status = 200, description = "The channel.", body = ChannelDocument),
        (status = 404, description = "There is none.", body = ErrorBody),
        (status = 409, description = "`managed_by_file`", body = ErrorBody),
        (status = 412, description = "`changed_meanwhile`", body = ErrorBody),
        (status = 422, description = "Fields that are not valid; `key_required`.", body = ErrorBody),
        (status = 428, description = "`if_match_required`", body = ErrorBody)))]
async fn patch(desk: Desk, Id(id): Id, Body(body): Body<Map<String, Value>>) -> ApiResult<Told> {
    documents::update(&desk, Channel, &id, body, key_stays_where_it_went).await
}

fn key_stays_where_it_went(old: &Record, patch: &Map<String, Value>, new: &Fields) -> ApiResult<()> {
    let elsewhere = entity::leads_elsewhere(&old.fields, new);
    if elsewhere.is_empty() {
        return Ok(());
    }
    let kept = entity::secrets_kept(&old.fields, patch);
    if kept.is_empty() {
        return Ok(());
    }
    let fields = elsewhere.join("`, `");
    let message = format!(
        "A change of `{fields}` sends the channel's secrets to another place: give them anew in the same request."
    );
    Err(key_required(&message, kept))
}

/// Delete a channel that nobody may use.
#[utoipa::path(delete, path = "/api/v1/channels/{id}", tag = "channels",
    params(("id" = String, Path, description = "The channel."), ("If-Match" = String, Header, description = "The ETag of what was read, or `*`.")),
    responses(
        (status = 200, description = "It is gone.", body = Deleted),
        (status = 404, description = "There is none.", body = ErrorBody),
        (status = 409, description = "`in_use`, `managed_by_file`", body = ErrorBody),
        (status = 412, description = "`changed_meanwhile`", body = ErrorBody),
        (status = 428, description = "`if_match_required`", body = ErrorBody)))]
async fn delete(desk: Desk, Id(id): Id) -> ApiResult<Told> {
    let mut edit = desk.edit().await?;
    let old = desk.record(&mut edit, Channel, &id).await?;
    desk.matches(&old)?;
    unused(&edit, Channel, &id)?;
    documents::delete(&desk, edit, &old).await
}

/// Take a channel into service.
#[utoipa::path(post, path = "/api/v1/channels/{id}/enable", tag = "channels",
    params(("id" = String, Path, description = "The channel."), ("If-Match" = Option<String>, Header, description = "The ETag of what was read.")),
    responses(
        (status = 200, description = "The channel.", body = ChannelDocument),
        (status = 404, description = "There is none.", body = ErrorBody),
        (status = 409, description = "`managed_by_file`", body = ErrorBody),
        (status = 412, description = "`changed_meanwhile`", body = ErrorBody)))]
async fn enable(desk: Desk, Id(id): Id) -> ApiResult<Told> {
    documents::set_status(&desk, Channel, &id, "active", "enable").await
}

/// Take a channel out of service, and end what uses it.
#[utoipa::path(post, path = "/api/v1/channels/{id}/disable", tag = "channels",
    params(("id" = String, Path, description = "The channel."), ("If-Match" = Option<String>, Header, description = "The ETag of what was read.")),
    responses(
        (status = 200, description = "The channel.", body = ChannelDocument),
        (status = 404, description = "There is none.", body = ErrorBody),
        (status = 409, description = "`managed_by_file`", body = ErrorBody),
        (status = 412, description = "`changed_meanwhile`", body = ErrorBody)))]
async fn disable(desk: Desk, Id(id): Id) -> ApiResult<Told> {
    documents::set_status(&desk, Channel, &id, "disabled", "disable").await
}

/// Begin nothing new at a channel; what is under way goes on.
#[utoipa::path(post, path = "/api/v1/channels/{id}/drain", tag = "channels",
    params(("id" = String, Path, description = "The channel."), ("If-Match" = Option<String>, Header, description = "The ETag of what was read.")),
    responses(
        (status = 200, description = "The channel.", body = ChannelDocument),
        (status = 404, description = "There is none.", body = ErrorBody),
        (status = 409, description = "`managed_by_file`", body = ErrorBody),
        (status = 412, description = "`changed_meanwhile`", body = ErrorBody)))]
async fn drain(desk: Desk, Id(id): Id) -> ApiResult<Told> {
    documents::set_status(&desk, Channel, &id, "draining", "drain").await
}

/// How a channel is doing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChannelHealth)]
struct Health {
    id: String,
    /// `closed`, `open` or `half_open`.
    #[schema(example = "closed")]
    breaker: &'static str,
    /// Milliseconds until the breaker lets a request through again.
    #[schema(example = json!(null))]
    reopens_in_ms: Option<u64>,
    /// The platform refused the channel's key or account.
    rejected: bool,
    /// The health check fails.
    unhealthy: bool,
    /// Requests and sessions under way at it.
    live: u64,
}

/// Tell how a channel is doing.
#[utoipa::path(get, path = "/api/v1/channels/{id}/health", tag = "channels", params(("id" = String, Path, description = "The channel.")),
    responses((status = 200, description = "How it is doing.", body = Health), (status = 404, description = "There is none.", body = ErrorBody)))]
async fn health(Shared(state): Shared<Arc<State>>, Id(id): Id) -> ApiResult<Json<Health>> {
    let snapshot = state.registry.snapshot();
    let channel = snapshot.channel(&id).ok_or_else(|| ApiError::not_found("channel", &id))?;
    let now = Instant::now();
    let view = state.registry.health.get(&channel.id).view(now);
    let reopens_in_ms = match view.breaker {
        Breaker::Open(until) => {
            Some(u64::try_from(until.duration_since(now).as_millis()).unwrap_or(u64::MAX))
        }
        Breaker::Closed | Breaker::HalfOpen => None,
    };
    let live = state.registry.live.list();
    let live = live.iter().filter(|live| live.channel().as_deref() == Some(&*id)).count() as u64;
    let breaker = view.breaker.as_str();
    Ok(Json(Health { id, breaker, reopens_in_ms, rejected: view.rejected, unhealthy: view.unhealthy, live }))
}
