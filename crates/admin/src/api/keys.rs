//! Proxy-Keys: made and shown once, looked at, limited, switched off. `rotate` has the rest of their life.

use std::sync::Arc;

use aiproxy_config::entity;
use aiproxy_core::EntityKind::{Key, User};
use aiproxy_core::{Fields, KeyDigest, KeyTag, Record, ids};
use axum::extract::State as Shared;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::rfc3339;
use super::desk::{Desk, Told};
use super::documents::{self, audited, changed, document};
use super::error::{ApiError, ApiResult, Body, ErrorBody, Id, Params};
use super::listing::{self, Place, Wanted};
use super::schema::{KeyDocument, KeyFields, KeyList, KeyPatch};
use crate::State;
use crate::control::Edit;

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(list)).routes(routes!(get, patch))
}

/// A key that was made: the only answer that holds it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a schema")]
pub(crate) struct KeyMade {
    key: KeyDocument,
    /// The Proxy-Key itself, for its user. It is not shown again; `null` where the request was sent twice.
    #[schema(example = "pk_0123456789ABCDEFGHIJabcdefghij0123456789")]
    proxy_key: Option<String>,
}

/// Make the user's Proxy-Key. It is shown once. A user has one key in use: rotate it to replace it.
#[utoipa::path(post, path = "/api/v1/users/{id}/keys", tag = "keys", request_body(content = KeyFields, example = json!({ "name": "笔记本电脑", "expires_at": "2027-01-01" })),
    params(("id" = String, Path, description = "The user.")),
    responses(
        (status = 201, description = "The key.", body = KeyMade),
        (status = 404, description = "There is no such user.", body = ErrorBody),
        (status = 409, description = "`key_exists`, `managed_by_file`", body = ErrorBody),
        (status = 422, description = "Fields that are not valid.", body = ErrorBody)))]
async fn create(desk: Desk, Id(user): Id, Body(body): Body<Map<String, Value>>) -> ApiResult<Told> {
    let mut edit = desk.edit().await?;
    desk.record(&mut edit, User, &user).await?;
    one_in_use(&mut edit, &user, None).await?;
    let body = documents::fields_of(Key, body, None)?;
    let fields = entity::merge(Key, &Fields::default(), &body);
    let made = put_fresh(&mut edit, &user, fields);
    let mut entry = desk.caller.audit("key.create", "key", &made.record.id);
    entry.after = Some(audited(Key, &made.record.fields));
    edit.audit(entry);
    made.commit(&desk, edit, Map::new()).await
}

/// Fails where the user has a key in use besides this one.
pub(crate) async fn one_in_use(edit: &mut Edit, user: &str, besides: Option<&str>) -> ApiResult<()> {
    let keys = edit.keys_of(user).await?;
    let other = keys.iter().find(|key| besides != Some(&*key.id) && is_in_use(key));
    other.map_or(Ok(()), |key| {
        let message = format!(
            "The user has the key `{}`. Rotate it (POST /api/v1/keys/{}/rotate) or revoke it.",
            key.id, key.id
        );
        Err(ApiError::conflict("key_exists", message))
    })
}

/// Whether the key is the one that its user has: neither off for good nor replaced.
pub(crate) fn is_in_use(key: &Record) -> bool {
    let status = key.fields.text("status").unwrap_or("active");
    status == "active" && key.fields.text("retires_at").is_none()
}

/// A key that an edit makes.
pub(crate) struct Made {
    pub(crate) record: Record,
    /// The key itself.
    proxy_key: String,
}

/// Puts a key with these limits into the edit.
pub(crate) fn put_fresh(edit: &mut Edit, user: &str, limits: Fields) -> Made {
    let proxy_key = ids::random_key("pk_", 40);
    let id = ids::random_key("k_", 12);
    let mut fields = Map::new();
    fields.insert("user".into(), user.into());
    fields.insert("sha256".into(), KeyDigest::of(proxy_key.as_bytes()).hex().into());
    fields.insert("prefix".into(), KeyTag::of(&proxy_key).prefix.into_string().into());
    fields.insert("status".into(), "active".into());
    fields.extend(limits.0);
    let fields = Fields(fields);
    edit.put(Key, &id, fields.clone());
    Made { record: changed(edit, Key, &id, fields, None), proxy_key }
}

impl Made {
    /// Commits the edit and tells the key, this once.
    pub(crate) async fn commit(
        self,
        desk: &Desk,
        mut edit: Edit,
        more: Map<String, Value>,
    ) -> ApiResult<Told> {
        let mut body = Map::new();
        body.insert("key".into(), document(&self.record).into());
        body.insert("proxy_key".into(), Value::Null);
        body.extend(more);
        desk.once.keep(&mut edit, StatusCode::CREATED, &Value::Object(body.clone()));
        edit.commit().await?;
        body.insert("proxy_key".into(), self.proxy_key.into());
        let location = format!("/api/v1/keys/{}", self.record.id);
        Ok(Told::created(body.into(), location).tagged(self.record.revision).once_only())
    }
}

/// Which keys, in which order, which part of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct KeyQuery {
    /// Items of the page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
    /// Items that are passed over.
    #[param(minimum = 0, maximum = 1_000_000_000, default = 0)]
    offset: Option<u64>,
    /// A field, with `-` before it for the greatest first: `id`, `name`, `user`, `status`, `prefix`,
    /// `expires_at`, `created_at`, `updated_at`.
    #[param(example = "-created_at")]
    sort: Option<String>,
    /// A text that id, name or visible beginning contains.
    #[param(max_length = 200)]
    q: Option<String>,
    /// Keys of this user.
    #[param(max_length = 200)]
    user: Option<String>,
    /// `active`, `disabled` or `revoked`.
    #[param(max_length = 200)]
    status: Option<String>,
}

/// List keys, by their tags.
#[utoipa::path(get, path = "/api/v1/keys", tag = "keys", params(KeyQuery),
    responses((status = 200, description = "A page of keys.", body = KeyList)))]
async fn list(
    Shared(state): Shared<Arc<State>>,
    place: Place,
    Params(query): Params<KeyQuery>,
) -> ApiResult<Response> {
    let KeyQuery { limit, offset, sort, q: search, user, status } = query;
    let filters = vec![("user", user), ("status", status)];
    listing::list(&state, Key, &place, Wanted { limit, offset, sort, search, filters }).await
}

/// Show a key, by its tag.
#[utoipa::path(get, path = "/api/v1/keys/{id}", tag = "keys", params(("id" = String, Path, description = "The key's id.")),
    responses((status = 200, description = "The key.", body = KeyDocument), (status = 404, description = "There is none.", body = ErrorBody)))]
async fn get(Shared(state): Shared<Arc<State>>, Id(id): Id) -> ApiResult<Response> {
    let record = documents::find(&state, Key, &id).await?;
    let revision = record.revision;
    let body = shown(&state, &[record]).await?.pop().unwrap_or_default();
    Ok(Told::ok(body).tagged(revision).into_response())
}

/// Keys as answers show them, with when they were used last.
pub(crate) async fn shown(state: &State, keys: &[Record]) -> ApiResult<Vec<Value>> {
    let ids: Vec<String> = keys.iter().map(|key| key.id.clone()).collect();
    // Without the database it is not known; that is no reason to show nothing.
    let used = match state.control.store() {
        Ok(store) if !ids.is_empty() => store.last_used(&ids).await.unwrap_or_default(),
        _ => std::collections::HashMap::default(),
    };
    let one = |key: &Record| {
        let mut body = document(key);
        let last = used.get(&key.id).map_or(Value::Null, |at| rfc3339(*at).into());
        body.insert("last_used_at".into(), last);
        body.into()
    };
    Ok(keys.iter().map(one).collect())
}

/// Change a key's name, validity and limits by a merge patch (RFC 7396).
#[utoipa::path(patch, path = "/api/v1/keys/{id}", tag = "keys", request_body(content = KeyPatch, example = json!({ "models": ["gpt-realtime*"] })),
    params(("id" = String, Path, description = "The key's id."), ("If-Match" = String, Header, description = "The ETag of what was read, or `*`.")),
    responses(
        (status = 200, description = "The key.", body = KeyDocument),
        (status = 404, description = "There is none.", body = ErrorBody),
        (status = 409, description = "`key_revoked`, `managed_by_file`", body = ErrorBody),
        (status = 412, description = "`changed_meanwhile`", body = ErrorBody),
        (status = 422, description = "Fields that are not valid.", body = ErrorBody),
        (status = 428, description = "`if_match_required`", body = ErrorBody)))]
async fn patch(desk: Desk, Id(id): Id, Body(body): Body<Map<String, Value>>) -> ApiResult<Told> {
    documents::update(&desk, Key, &id, body, |old, _, _| not_revoked(old)).await
}

/// A revoked key stays as it is.
pub(crate) fn not_revoked(key: &Record) -> ApiResult<()> {
    if key.fields.text("status") == Some("revoked") {
        return Err(ApiError::conflict("key_revoked", "The key is revoked for good. Make a new one."));
    }
    Ok(())
}

/// A key's answer with what ended.
pub(crate) fn with_cut(key: &Record, cut: &[crate::control::Cut]) -> Value {
    json!({ "key": document(key), "cut": super::desk::cuts(cut) })
}
