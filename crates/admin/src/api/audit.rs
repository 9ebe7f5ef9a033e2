//! Who did what, when, from where.

use std::sync::Arc;

use aiproxy_store::{AuditQuery, AuditRecord};
use axum::Json;
use axum::extract::State as Shared;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiResult, Params};
use crate::State;

/// Records of a page, unless the request says otherwise, and at most.
const LIMIT: (u32, u32) = (50, 500);

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Id or name of who did it.
    actor: Option<String>,
    /// What was done, or the beginning of it up to the full stop.
    #[param(example = "user.")]
    action: Option<String>,
    /// `user`, `key`, `channel` …
    object_kind: Option<String>,
    object_id: Option<String>,
    /// `ok`, or the code of the refusal.
    outcome: Option<String>,
    /// From this moment on.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Before this moment.
    #[param(format = DateTime)]
    until: Option<String>,
    /// A text that actor, action, object, address or request id contains.
    q: Option<String>,
    /// Only older records than this: `next` of the page before.
    before: Option<i64>,
    /// Records of a page: 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// A page of the audit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditPage)]
pub(crate) struct Page {
    items: Vec<Item>,
    /// `before` of the next page; none when this is the last.
    next: Option<i64>,
}

/// One record.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditRecord)]
pub(crate) struct Item {
    id: i64,
    #[schema(format = DateTime)]
    at: String,
    actor: Actor,
    /// The caller's address.
    from: String,
    request_id: String,
    #[schema(example = "user.create")]
    action: String,
    object_kind: String,
    object_id: String,
    /// `ok`, or the code of the refusal.
    outcome: String,
    /// The object before, secrets masked.
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// The object after, secrets masked.
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
    #[schema(value_type = Option<Object>)]
    detail: Option<Value>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditActor)]
struct Actor {
    /// `administrator`, `token`, `cli`, `system` or `anonymous`.
    kind: String,
    id: String,
    name: String,
}

impl From<AuditRecord> for Item {
    fn from(AuditRecord { id, entry }: AuditRecord) -> Self {
        let at =
            jiff::Timestamp::from_millisecond(entry.at).map_or_else(|_| String::new(), |at| at.to_string());
        Self {
            id,
            at,
            actor: Actor { kind: entry.actor.kind, id: entry.actor.id, name: entry.actor.name },
            from: entry.from,
            request_id: entry.request_id,
            action: entry.action,
            object_kind: entry.object_kind,
            object_id: entry.object_id,
            outcome: entry.outcome,
            before: entry.before,
            after: entry.after,
            detail: entry.detail,
        }
    }
}

/// Audit records
///
/// Newest first: every change, every login, every refusal of a login or a role.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", operation_id = "list_audit", params(Filter), responses(
    (status = 200, description = "A page of records", body = Page),
))]
pub(crate) async fn list(
    Shared(state): Shared<Arc<State>>,
    Params(filter): Params<Filter>,
) -> ApiResult<Json<Page>> {
    let limit = filter.limit.unwrap_or(LIMIT.0);
    if !(1..=LIMIT.1).contains(&limit) {
        return Err(ApiError::bad_request("`limit` is from 1 to 500."));
    }
    let query = AuditQuery {
        actor: filter.actor,
        action: filter.action,
        object_kind: filter.object_kind,
        object_id: filter.object_id,
        outcome: filter.outcome,
        from_ms: moment("from", filter.from.as_deref())?,
        until_ms: moment("until", filter.until.as_deref())?,
        search: filter.q.filter(|text| !text.is_empty()),
        before_id: filter.before,
        limit,
    };
    let page = state.control.store()?.audit(&query).await?;
    let next = page.records.last().filter(|_| page.more).map(|record| record.id);
    Ok(Json(Page { items: page.records.into_iter().map(Item::from).collect(), next }))
}

/// RFC 3339 as Unix time in milliseconds.
fn moment(name: &str, text: Option<&str>) -> ApiResult<Option<i64>> {
    let parse = |text: &str| {
        let wrong = || ApiError::bad_request(format!("`{name}` is a moment like 2026-01-31T12:00:00Z."));
        text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_millisecond).map_err(|_| wrong())
    };
    text.map(parse).transpose()
}
