//! Groups of users.

use std::sync::Arc;

use aiproxy_core::EntityKind;
use axum::extract::State as Shared;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::desk::{Desk, Told};
use super::documents;
use super::error::{ApiError, ApiResult, Body, ErrorBody, Id, Params};
use super::listing::{self, Place, Wanted};
use super::schema::{Deleted, GroupDocument, GroupFields, GroupList, GroupPatch};
use crate::State;
use crate::control::Edit;

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, patch, delete))
}

/// Which groups, in which order, which part of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct GroupQuery {
    /// Items of the page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
    /// Items that are passed over.
    #[param(minimum = 0, maximum = 1_000_000_000, default = 0)]
    offset: Option<u64>,
    /// A field, with `-` before it for the greatest first: `id`, `name`, `expires_at`, `created_at`,
    /// `updated_at`.
    #[param(example = "name")]
    sort: Option<String>,
    /// A text that id or name contains.
    #[param(max_length = 200)]
    q: Option<String>,
    /// Groups that are mapped to this channel.
    #[param(max_length = 200)]
    channel: Option<String>,
}

/// List groups.
#[utoipa::path(get, path = "/api/v1/groups", tag = "groups", params(GroupQuery),
    responses((status = 200, description = "A page of groups.", body = GroupList)))]
async fn list(
    Shared(state): Shared<Arc<State>>,
    place: Place,
    Params(query): Params<GroupQuery>,
) -> ApiResult<Response> {
    let GroupQuery { limit, offset, sort, q, channel } = query;
    let wanted = Wanted { limit, offset, sort, search: q, filters: vec![("channel", channel)] };
    listing::list(&state, EntityKind::Group, &place, wanted).await
}

/// Make a group. The id is the caller's choice.
#[utoipa::path(post, path = "/api/v1/groups", tag = "groups", request_body = GroupFields,
    responses(
        (status = 201, description = "The group.", body = GroupDocument),
        (status = 409, description = "`exists`, `managed_by_file`", body = ErrorBody),
        (status = 422, description = "Fields that are not valid.", body = ErrorBody)))]
async fn create(desk: Desk, Body(mut body): Body<Map<String, Value>>) -> ApiResult<Told> {
    let id = super::users::given_id(&mut body)?.ok_or_else(|| ApiError::field("id", "it is required"))?;
    documents::create(&desk, EntityKind::Group, id, body).await
}

/// Show a group.
#[utoipa::path(get, path = "/api/v1/groups/{id}", tag = "groups", params(("id" = String, Path, description = "The group.")),
    responses((status = 200, description = "The group.", body = GroupDocument), (status = 404, body = ErrorBody, description = "There is none.")))]
async fn get(Shared(state): Shared<Arc<State>>, Id(id): Id) -> ApiResult<Response> {
    documents::get(&state, EntityKind::Group, &id).await
}

/// Change a group by a merge patch (RFC 7396).
#[utoipa::path(patch, path = "/api/v1/groups/{id}", tag = "groups", request_body = GroupPatch,
    params(("id" = String, Path, description = "The group."), ("If-Match" = String, Header, description = "The ETag of what was read, or `*`.")),
    responses(
        (status = 200, description = "The group.", body = GroupDocument),
        (status = 404, description = "There is none.", body = ErrorBody),
        (status = 409, description = "`managed_by_file`", body = ErrorBody),
        (status = 412, description = "`changed_meanwhile`", body = ErrorBody),
        (status = 422, description = "Fields that are not valid.", body = ErrorBody),
        (status = 428, description = "`if_match_required`", body = ErrorBody)))]
async fn patch(desk: Desk, Id(id): Id, Body(body): Body<Map<String, Value>>) -> ApiResult<Told> {
    documents::update(&desk, EntityKind::Group, &id, body, |_, _, _| Ok(())).await
}

/// Delete a group that has no members.
#[utoipa::path(delete, path = "/api/v1/groups/{id}", tag = "groups",
    params(("id" = String, Path, description = "The group."), ("If-Match" = String, Header, description = "The ETag of what was read, or `*`.")),
    responses(
        (status = 200, description = "It is gone.", body = Deleted),
        (status = 404, description = "There is none.", body = ErrorBody),
        (status = 409, description = "`in_use`, `managed_by_file`", body = ErrorBody),
        (status = 412, description = "`changed_meanwhile`", body = ErrorBody),
        (status = 428, description = "`if_match_required`", body = ErrorBody)))]
async fn delete(desk: Desk, Id(id): Id) -> ApiResult<Told> {
    let mut edit = desk.edit().await?;
    let old = desk.record(&mut edit, EntityKind::Group, &id).await?;
    desk.matches(&old)?;
    unused(&edit, EntityKind::Group, &id)?;
    documents::delete(&desk, edit, &old).await
}

/// Fails while somebody refers to the document: how many users and groups do.
pub(crate) fn unused(edit: &Edit, kind: EntityKind, id: &str) -> ApiResult<()> {
    let all = edit.referring(kind, id);
    if all.is_empty() {
        return Ok(());
    }
    let users = all.iter().filter(|(kind, _)| *kind == EntityKind::User).count();
    let (groups, some) = (all.len() - users, all.iter().take(5).map(|(kind, id)| format!("{kind} `{id}`")));
    let some = some.collect::<Vec<_>>().join(", ");
    let message =
        format!("{users} users and {groups} groups refer to it ({some}, …). Take it from them first.");
    Err(ApiError::conflict("in_use", message))
}
