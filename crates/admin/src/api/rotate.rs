//! The life of a Proxy-Key: replaced with grace, switched off and on, revoked.

use std::sync::Arc;

use aiproxy_core::EntityKind::Key;
use aiproxy_core::{Fields, Record};
use aiproxy_store::{Denial, DenialSubject};
use axum::body::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::{now, rfc3339};
use super::desk::{Desk, Told};
use super::documents::{self, audited, changed, document};
use super::error::{ApiError, ApiResult, ErrorBody, Id};
use super::keys::{KeyMade, not_revoked, one_in_use, put_fresh, with_cut};
use super::schema::{CutShown, KeyDocument};
use crate::State;
use crate::control::{Cut, Source};

/// The longest grace: 30 days.
const GRACE_MAX: u64 = 30 * 24 * 60 * 60;
/// What a new key does not take over from the old one.
const OWN: [&str; 5] = ["user", "sha256", "prefix", "status", "retires_at"];

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(rotate))
        .routes(routes!(revoke))
        .routes(routes!(disable))
        .routes(routes!(enable))
}

/// How a key is replaced.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rotate {
    /// Seconds for which the old key goes on working; without it, the setting `rotation_grace`.
    #[schema(minimum = 0, maximum = 2_592_000, example = 86_400)]
    grace: Option<u64>,
}

/// What a change of a key's status came to.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a schema")]
struct KeyChanged {
    key: KeyDocument,
    /// What was under way with it.
    cut: Vec<CutShown>,
    /// True where the configuration file is what is edited: the key is denied by the database, whatever
    /// the file says.
    denied: Option<bool>,
}

/// Replace a key by a new one with the same limits. The old one works for the grace that is given.
#[utoipa::path(post, path = "/api/v1/keys/{id}/rotate", tag = "keys", request_body = Option<Rotate>,
    params(("id" = String, Path, description = "The old key's id.")),
    responses(
        (status = 201, description = "The new key.", body = KeyMade),
        (status = 404, description = "There is no such key.", body = ErrorBody),
        (status = 409, description = "`key_revoked`, `key_replaced`, `key_exists`, `managed_by_file`", body = ErrorBody),
        (status = 422, description = "Fields that are not valid.", body = ErrorBody)))]
async fn rotate(desk: Desk, Id(id): Id, body: Bytes) -> ApiResult<Told> {
    let Rotate { grace } = super::offboard::optional(&body)?;
    if grace.is_some_and(|grace| grace > GRACE_MAX) {
        return Err(ApiError::field("grace", format!("0 to {GRACE_MAX} seconds")));
    }
    let mut edit = desk.edit().await?;
    let old = desk.record(&mut edit, Key, &id).await?;
    desk.matches_if_said(&old)?;
    not_revoked(&old)?;
    if old.fields.text("retires_at").is_some() {
        return Err(ApiError::conflict(
            "key_replaced",
            "The key has been replaced already: rotate the one that replaced it.",
        ));
    }
    let user = old.fields.text("user").unwrap_or_default().to_owned();
    one_in_use(&mut edit, &user, Some(&id)).await?;
    let grace = match grace {
        Some(grace) => grace,
        None => usual_grace(&desk.state).await?,
    };
    let mut retiring = old.fields.clone();
    retiring.0.insert("retires_at".into(), rfc3339(now().saturating_add_unsigned(grace)).into());
    if grace == 0 {
        retiring.0.insert("status".into(), "revoked".into());
    }
    edit.put(Key, &id, retiring.clone());
    let mut limits = old.fields.clone();
    limits.0.retain(|name, _| !OWN.contains(&&**name));
    let made = put_fresh(&mut edit, &user, limits);
    let mut entry = desk.caller.audit("key.rotate", "key", &id);
    entry.before = Some(audited(Key, &old.fields));
    entry.after = Some(audited(Key, &retiring));
    entry.detail = Some(serde_json::json!({ "replaced_by": made.record.id, "grace": grace }));
    edit.audit(entry);
    let replaced = document(&changed(&edit, Key, &id, retiring, Some(&old)));
    let more = Map::from_iter([("replaced".to_owned(), Value::Object(replaced))]);
    made.commit(&desk, edit, more).await
}

/// The setting `rotation_grace`, in seconds.
async fn usual_grace(state: &State) -> ApiResult<u64> {
    let settings = state.auth.settings.get(&state.control.store()?).await?;
    Ok(u64::try_from(settings.rotation_grace).unwrap_or(0).min(GRACE_MAX))
}

/// Revoke a key for good. What is under way with it ends.
#[utoipa::path(post, path = "/api/v1/keys/{id}/revoke", tag = "keys", params(("id" = String, Path, description = "The key's id.")),
    responses(
        (status = 200, description = "The key.", body = KeyChanged),
        (status = 404, description = "There is none.", body = ErrorBody),
        (status = 412, description = "`changed_meanwhile`", body = ErrorBody)))]
async fn revoke(desk: Desk, Id(id): Id) -> ApiResult<Told> {
    switch(&desk, &id, "revoked", "revoke").await
}

/// Refuse a key until it is enabled again. What is under way with it ends.
#[utoipa::path(post, path = "/api/v1/keys/{id}/disable", tag = "keys", params(("id" = String, Path, description = "The key's id.")),
    responses(
        (status = 200, description = "The key.", body = KeyChanged),
        (status = 404, description = "There is none.", body = ErrorBody),
        (status = 409, description = "`key_revoked`", body = ErrorBody),
        (status = 412, description = "`changed_meanwhile`", body = ErrorBody)))]
async fn disable(desk: Desk, Id(id): Id) -> ApiResult<Told> {
    switch(&desk, &id, "disabled", "disable").await
}

/// Take a key again. A user has one key in use.
#[utoipa::path(post, path = "/api/v1/keys/{id}/enable", tag = "keys", params(("id" = String, Path, description = "The key's id.")),
    responses(
        (status = 200, description = "The key.", body = KeyChanged),
        (status = 404, description = "There is none.", body = ErrorBody),
        (status = 409, description = "`key_revoked`, `key_exists`", body = ErrorBody),
        (status = 412, description = "`changed_meanwhile`", body = ErrorBody)))]
async fn enable(desk: Desk, Id(id): Id) -> ApiResult<Told> {
    switch(&desk, &id, "active", "enable").await
}

async fn switch(desk: &Desk, id: &str, status: &str, verb: &str) -> ApiResult<Told> {
    if desk.state.control.source() == Source::File {
        return by_denial(desk, id, status, verb).await;
    }
    let mut edit = desk.edit().await?;
    let old = desk.record(&mut edit, Key, id).await?;
    desk.matches_if_said(&old)?;
    if old.fields.text("status").unwrap_or("active") == status {
        return Ok(told(&old, &[], false));
    }
    not_revoked(&old)?;
    if status == "active" && old.fields.text("retires_at").is_none() {
        one_in_use(&mut edit, old.fields.text("user").unwrap_or_default(), Some(id)).await?;
    }
    let mut fields: Fields = old.fields.clone();
    fields.0.insert("status".into(), status.into());
    let mut entry = desk.caller.audit(&format!("key.{verb}"), "key", id);
    entry.before = Some(audited(Key, &old.fields));
    entry.after = Some(audited(Key, &fields));
    edit.put(Key, id, fields.clone());
    edit.audit(entry);
    let record = changed(&edit, Key, id, fields, Some(&old));
    desk.once.keep(&mut edit, StatusCode::OK, &with_cut(&record, &[]));
    let applied = edit.commit().await?;
    Ok(told(&record, &applied.cut, false))
}

/// Where the file is what is edited, a key is switched off beside it.
async fn by_denial(desk: &Desk, id: &str, status: &str, verb: &str) -> ApiResult<Told> {
    let key = documents::find(&desk.state, Key, id).await?;
    let Some(digest) = documents::digest(&key) else { return Err(ApiError::not_found("key", id)) };
    let entry = desk.caller.audit(&format!("key.{verb}"), "key", id);
    let subject = DenialSubject::Key(digest);
    if status == "active" {
        desk.state.control.allow(subject, entry).await?;
        return Ok(told(&key, &[], false));
    }
    let by = desk.caller.actor.name.clone();
    let denial = Denial { subject, reason: status.into(), by, at: now() };
    let applied = desk.state.control.deny(denial, entry).await?;
    Ok(told(&key, &applied.cut, true))
}

fn told(key: &Record, cut: &[Cut], denied: bool) -> Told {
    let mut body = with_cut(key, cut);
    if denied {
        body["denied"] = true.into();
    }
    Told::ok(body).tagged(key.revision)
}
