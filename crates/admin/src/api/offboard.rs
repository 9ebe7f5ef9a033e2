//! Somebody leaves: one request that ends all that they may and do.

use std::sync::Arc;

use aiproxy_core::{EntityKind, Record};
use aiproxy_store::{Denial, DenialSubject};
use axum::body::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::now;
use super::desk::{Desk, Told, cuts};
use super::documents::{self, audited, changed, document, tag};
use super::error::{ApiResult, ErrorBody, Id};
use super::schema::{CutShown, UserDocument};
use crate::State;
use crate::control::{Cut, Source};

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(offboard))
}

/// Why somebody is offboarded.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Offboard {
    /// For the audit.
    #[schema(max_length = 1000, example = "2026-03-31 离职")]
    reason: Option<String>,
}

/// What came of it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a schema")]
struct Offboarded {
    user: UserDocument,
    keys_revoked: Vec<KeyRevoked>,
    /// What was under way.
    cut: Vec<CutShown>,
    /// True where the configuration file is what is edited: the user is denied by the database, whatever
    /// the file says.
    denied: Option<bool>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "a schema")]
struct KeyRevoked {
    id: String,
    tag: String,
}

/// Disable a user, revoke every key, and end what is under way: all of it or nothing.
#[utoipa::path(post, path = "/api/v1/users/{id}/offboard", tag = "users", request_body = Option<Offboard>,
    params(("id" = String, Path, description = "The user.")),
    responses(
        (status = 200, description = "What was done.", body = Offboarded),
        (status = 404, description = "There is no such user.", body = ErrorBody),
        (status = 422, description = "Fields that are not valid.", body = ErrorBody)))]
async fn offboard(desk: Desk, Id(id): Id, body: Bytes) -> ApiResult<Told> {
    let Offboard { reason } = optional(&body)?;
    let reason = reason.filter(|reason| !reason.trim().is_empty());
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > 1000) {
        return Err(super::error::ApiError::field("reason", "it has at most 1000 characters"));
    }
    match desk.state.control.source() {
        Source::Database => in_database(&desk, &id, reason).await,
        Source::File => denied(&desk, &id, reason).await,
    }
}

/// A body that may be left out.
pub(crate) fn optional<T: Default + serde::de::DeserializeOwned>(body: &[u8]) -> ApiResult<T> {
    if body.is_empty() {
        return Ok(T::default());
    }
    super::extract::parse::<Option<T>>(body).map(Option::unwrap_or_default)
}

async fn in_database(desk: &Desk, id: &str, reason: Option<String>) -> ApiResult<Told> {
    let mut edit = desk.edit().await?;
    let old = desk.record(&mut edit, EntityKind::User, id).await?;
    let mut fields = old.fields.clone();
    fields.0.insert("status".into(), "disabled".into());
    if fields != old.fields {
        edit.put(EntityKind::User, id, fields.clone());
    }
    let mut revoked = Vec::new();
    for key in edit.keys_of(id).await? {
        if key.fields.text("status") != Some("revoked") {
            let mut fields = key.fields.clone();
            fields.0.insert("status".into(), "revoked".into());
            edit.put(EntityKind::Key, &key.id, fields);
            revoked.push(key);
        }
    }
    let mut entry = desk.caller.audit("user.offboard", "user", id);
    entry.before = Some(audited(EntityKind::User, &old.fields));
    entry.after = Some(audited(EntityKind::User, &fields));
    entry.detail = Some(json!({ "reason": reason, "keys_revoked": keys(&revoked) }));
    edit.audit(entry);
    let user =
        if fields == old.fields { old } else { changed(&edit, EntityKind::User, id, fields, Some(&old)) };
    desk.once.keep(&mut edit, StatusCode::OK, &answer(&user, &revoked, &[], false));
    let applied = edit.commit().await?;
    Ok(Told::ok(answer(&user, &revoked, &applied.cut, false)))
}

/// Where the file is what is edited: it may go on saying what it says.
async fn denied(desk: &Desk, id: &str, reason: Option<String>) -> ApiResult<Told> {
    let user = documents::find(&desk.state, EntityKind::User, id).await?;
    let keys_of = documents::keys_of(&desk.state, id).await?;
    let mut entry = desk.caller.audit("user.offboard", "user", id);
    entry.before = Some(audited(EntityKind::User, &user.fields));
    entry.detail = Some(json!({ "reason": reason, "denied": true, "keys_revoked": keys(&keys_of) }));
    let denial = |subject| Denial {
        subject,
        reason: reason.clone().unwrap_or_else(|| "offboarded".into()),
        by: desk.caller.actor.name.clone(),
        at: now(),
    };
    let subjects = std::iter::once(DenialSubject::User(id.into()))
        .chain(keys_of.iter().filter_map(documents::digest).map(DenialSubject::Key));
    let applied = desk.state.control.deny_all(subjects.map(denial).collect(), entry).await?;
    Ok(Told::ok(answer(&user, &keys_of, &applied.cut, true)))
}

fn keys(keys: &[Record]) -> Value {
    keys.iter().map(|key| json!({ "id": key.id, "tag": tag(key) })).collect()
}

fn answer(user: &Record, revoked: &[Record], cut: &[Cut], denied: bool) -> Value {
    let mut answer = json!({ "user": document(user), "keys_revoked": keys(revoked), "cut": cuts(cut) });
    if denied {
        answer["denied"] = true.into();
    }
    answer
}
