//! Users: people and product lines.

use std::sync::Arc;

use aiproxy_core::EntityKind::User;
use aiproxy_core::ids;
use axum::extract::State as Shared;
use axum::response::{IntoResponse as _, Response};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::desk::{Desk, Told};
use super::documents::{self, document};
use super::error::{ApiError, ApiResult, Body, ErrorBody, Id, Params};
use super::keys;
use super::listing::{self, Place, Wanted};
use super::schema::{Deleted, UserDocument, UserFields, UserList, UserPatch};
use crate::State;

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, patch, delete))
        .routes(routes!(enable))
        .routes(routes!(disable))
        .routes(routes!(mapping))
}

/// Which users, in which order, which part of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UserQuery {
    /// Items of the page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
    /// Items that are passed over.
    #[param(minimum = 0, maximum = 1_000_000_000, default = 0)]
    offset: Option<u64>,
    /// A field, with `-` before it for the greatest first: `id`, `name`, `department`, `email`, `phone`,
    /// `employee_number`, `status`, `expires_at`, `created_at`, `updated_at`.
    #[param(example = "-created_at")]
    sort: Option<String>,
    /// A text that id, name, department, email, phone or employee number contains.
    #[param(max_length = 200, example = "张")]
    q: Option<String>,
    /// `active` or `disabled`.
    #[param(max_length = 200)]
    status: Option<String>,
    /// Users of this department.
    #[param(max_length = 200, example = "研发部")]
    department: Option<String>,
    /// Users of this group.
    #[param(max_length = 200)]
    group: Option<String>,
    /// Users to whom this channel is mapped.
    #[param(max_length = 200)]
    channel: Option<String>,
    /// Users with this email.
    #[param(max_length = 200)]
    email: Option<String>,
    /// Users with this employee number.
    #[param(max_length = 200)]
    employee_number: Option<String>,
}

/// List users.
#[utoipa::path(get, path = "/api/v1/users", tag = "users", params(UserQuery),
    responses((status = 200, description = "A page of users.", body = UserList)))]
async fn list(
    Shared(state): Shared<Arc<State>>,
    place: Place,
    Params(query): Params<UserQuery>,
) -> ApiResult<Response> {
    let filters = vec![
        ("status", query.status),
        ("department", query.department),
        ("group", query.group),
        ("channel", query.channel),
        ("email", query.email),
        ("employee_number", query.employee_number),
    ];
    let UserQuery { limit, offset, sort, q: search, .. } = query;
    listing::list(&state, User, &place, Wanted { limit, offset, sort, search, filters }).await
}

/// Make a user. Without an id, one is made.
#[utoipa::path(post, path = "/api/v1/users", tag = "users",
    request_body(content = UserFields, example = json!({ "id": "zhangsan", "name": "张三", "department": "研发部", "channels": ["openai"] })),
    responses(
        (status = 201, description = "The user.", body = UserDocument),
        (status = 409, description = "`exists`, `managed_by_file`", body = ErrorBody),
        (status = 422, description = "Fields that are not valid.", body = ErrorBody)))]
async fn create(desk: Desk, Body(mut body): Body<Map<String, Value>>) -> ApiResult<Told> {
    let id = given_id(&mut body)?.unwrap_or_else(fresh_id);
    body.entry("status").or_insert_with(|| "active".into());
    documents::create(&desk, User, id, body).await
}

/// Show a user, with its keys by their tags.
#[utoipa::path(get, path = "/api/v1/users/{id}", tag = "users", params(("id" = String, Path, description = "The user.")),
    responses((status = 200, description = "The user.", body = UserDocument), (status = 404, description = "There is none.", body = ErrorBody)))]
async fn get(Shared(state): Shared<Arc<State>>, Id(id): Id) -> ApiResult<Response> {
    let record = documents::find(&state, User, &id).await?;
    let mut body = document(&record);
    let keys = documents::keys_of(&state, &id).await?;
    body.insert("keys".into(), keys::shown(&state, &keys).await?.into());
    Ok(Told::ok(body.into()).tagged(record.revision).into_response())
}

/// Change a user by a merge patch (RFC 7396).
#[utoipa::path(patch, path = "/api/v1/users/{id}", tag = "users", request_body(content = UserPatch, example = json!({ "department": "市场部", "notes": null })),
    params(("id" = String, Path, description = "The user."), ("If-Match" = String, Header, description = "The ETag of what was read, or `*`.")),
    responses(
        (status = 200, description = "The user.", body = UserDocument),
        (status = 404, description = "There is none.", body = ErrorBody),
        (status = 409, description = "`managed_by_file`", body = ErrorBody),
        (status = 412, description = "`changed_meanwhile`", body = ErrorBody),
        (status = 422, description = "Fields that are not valid.", body = ErrorBody),
        (status = 428, description = "`if_match_required`", body = ErrorBody)))]
async fn patch(desk: Desk, Id(id): Id, Body(body): Body<Map<String, Value>>) -> ApiResult<Told> {
    documents::update(&desk, User, &id, body, |_, _, _| Ok(())).await
}

/// Delete a user and every key of it. What is under way with them ends.
#[utoipa::path(delete, path = "/api/v1/users/{id}", tag = "users",
    params(("id" = String, Path, description = "The user."), ("If-Match" = String, Header, description = "The ETag of what was read, or `*`.")),
    responses(
        (status = 200, description = "It is gone.", body = Deleted),
        (status = 404, description = "There is none.", body = ErrorBody),
        (status = 409, description = "`managed_by_file`", body = ErrorBody),
        (status = 412, description = "`changed_meanwhile`", body = ErrorBody),
        (status = 428, description = "`if_match_required`", body = ErrorBody)))]
async fn delete(desk: Desk, Id(id): Id) -> ApiResult<Told> {
    let mut edit = desk.edit().await?;
    let old = desk.record(&mut edit, User, &id).await?;
    desk.matches(&old)?;
    documents::delete(&desk, edit, &old).await
}

/// Let a user call again.
#[utoipa::path(post, path = "/api/v1/users/{id}/enable", tag = "users",
    params(("id" = String, Path, description = "The user."), ("If-Match" = Option<String>, Header, description = "The ETag of what was read.")),
    responses(
        (status = 200, description = "The user.", body = UserDocument),
        (status = 404, description = "There is none.", body = ErrorBody),
        (status = 409, description = "`managed_by_file`", body = ErrorBody),
        (status = 412, description = "`changed_meanwhile`", body = ErrorBody)))]
async fn enable(desk: Desk, Id(id): Id) -> ApiResult<Told> {
    documents::set_status(&desk, User, &id, "active", "enable").await
}

/// Refuse every call of a user, and end what is under way.
#[utoipa::path(post, path = "/api/v1/users/{id}/disable", tag = "users",
    params(("id" = String, Path, description = "The user."), ("If-Match" = Option<String>, Header, description = "The ETag of what was read.")),
    responses(
        (status = 200, description = "The user.", body = UserDocument),
        (status = 404, description = "There is none.", body = ErrorBody),
        (status = 409, description = "`managed_by_file`", body = ErrorBody),
        (status = 412, description = "`changed_meanwhile`", body = ErrorBody)))]
async fn disable(desk: Desk, Id(id): Id) -> ApiResult<Told> {
    documents::set_status(&desk, User, &id, "disabled", "disable").await
}

/// A channel that a user may use, and its place.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = MappedChannel)]
#[serde(deny_unknown_fields)]
struct Mapped {
    /// The channel's id.
    #[schema(example = "openai", max_length = 64)]
    channel: String,
    /// Lower comes first; channels of the same order take turns.
    #[schema(minimum = 1, maximum = 1_000_000)]
    order: Option<u32>,
    /// How often the channel comes first among those of the same order.
    #[schema(minimum = 1, maximum = 1_000_000)]
    weight: Option<u32>,
}

impl Mapped {
    /// As the document has it.
    fn item(&self) -> Value {
        let Self { channel, order, weight } = self;
        if order.is_none() && weight.is_none() {
            return channel.clone().into();
        }
        let mut item = Map::new();
        item.insert("id".into(), channel.clone().into());
        for (name, value) in [("order", order), ("weight", weight)] {
            if let Some(value) = value {
                item.insert(name.into(), (*value).into());
            }
        }
        item.into()
    }
}

/// Say which channels a user may use, in which order.
#[utoipa::path(put, path = "/api/v1/users/{id}/mapping", tag = "users", request_body = Vec<Mapped>,
    params(("id" = String, Path, description = "The user."), ("If-Match" = String, Header, description = "The ETag of what was read, or `*`.")),
    responses(
        (status = 200, description = "The user.", body = UserDocument),
        (status = 404, description = "There is none.", body = ErrorBody),
        (status = 409, description = "`managed_by_file`", body = ErrorBody),
        (status = 412, description = "`changed_meanwhile`", body = ErrorBody),
        (status = 422, description = "A channel that does not exist, or is there twice.", body = ErrorBody),
        (status = 428, description = "`if_match_required`", body = ErrorBody)))]
async fn mapping(desk: Desk, Id(id): Id, Body(list): Body<Vec<Mapped>>) -> ApiResult<Told> {
    let items: Vec<Value> = list.iter().map(Mapped::item).collect();
    let mut edit = desk.edit().await?;
    let old = desk.record(&mut edit, User, &id).await?;
    desk.matches(&old)?;
    let mut fields = old.fields.clone();
    fields.0.insert("channels".into(), items.into());
    documents::put(&desk, edit, &old, fields, "map", None).await
}

/// Takes the id out of a body.
pub(crate) fn given_id(body: &mut Map<String, Value>) -> ApiResult<Option<String>> {
    match body.shift_remove("id") {
        None => Ok(None),
        Some(Value::String(id)) => Ok(Some(id)),
        Some(_) => Err(ApiError::field("id", "it is a text")),
    }
}

pub(crate) fn fresh_id() -> String {
    ids::random_key("u_", 10)
}
