//! Denials: users and keys that are refused, whatever the documents say. They work in both modes.

use std::collections::HashMap;
use std::sync::Arc;

use aiproxy_core::{EntityKind, KeyDigest};
use aiproxy_store::{Denial, DenialSubject};
use axum::extract::State as Shared;
use axum::extract::{FromRequestParts, Path};
use axum::response::Response;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::{now, rfc3339};
use super::desk::{Desk, Told, cuts};
use super::documents;
use super::error::{ApiError, ApiResult, Body, ErrorBody, Params};
use super::listing::{Part, Place};
use super::schema::{CutShown, DenialList};
use crate::State;

/// Characters of a reason.
const REASON: usize = 1000;

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(delete))
}

/// A denial that stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DenialShown {
    /// `user` or `key`.
    #[schema(example = "user")]
    kind: &'static str,
    /// The user's id, or the SHA-256 of the key.
    #[schema(example = "zhangsan")]
    subject: String,
    /// The key's id, where there is such a key.
    key_id: Option<String>,
    reason: String,
    /// Who denied.
    by: String,
    /// RFC 3339.
    at: String,
}

impl DenialShown {
    fn of(denial: Denial, ids: &HashMap<KeyDigest, String>) -> Self {
        let Denial { subject, reason, by, at } = denial;
        let key_id = match &subject {
            DenialSubject::Key(digest) => ids.get(digest).cloned(),
            DenialSubject::User(_) => None,
        };
        let (kind, subject) = parts(&subject);
        Self { kind, subject, key_id, reason, by, at: rfc3339(at) }
    }
}

fn parts(subject: &DenialSubject) -> (&'static str, String) {
    match subject {
        DenialSubject::User(id) => ("user", id.clone()),
        DenialSubject::Key(digest) => ("key", digest.hex()),
    }
}

/// Which part of the denials.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DenialQuery {
    /// Items of the page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
    /// Items that are passed over.
    #[param(minimum = 0, maximum = 1_000_000_000, default = 0)]
    offset: Option<u64>,
    /// `user` or `key`.
    kind: Option<String>,
}

/// List denials, the newest first.
#[utoipa::path(get, path = "/api/v1/denials", tag = "denials", params(DenialQuery),
    responses((status = 200, description = "A page of denials.", body = DenialList)))]
async fn list(
    Shared(state): Shared<Arc<State>>,
    place: Place,
    Params(query): Params<DenialQuery>,
) -> ApiResult<Response> {
    let part = Part::of(query.limit, query.offset)?;
    if query.kind.as_deref().is_some_and(|kind| !matches!(kind, "user" | "key")) {
        return Err(ApiError::bad_request("`kind` is `user` or `key`."));
    }
    let mut all = state.control.store()?.denials().await?;
    all.retain(|denial| query.kind.as_deref().is_none_or(|kind| parts(&denial.subject).0 == kind));
    all.sort_by_key(|denial| std::cmp::Reverse(denial.at));
    let total = all.len() as u64;
    let page = part.cut(all);
    let ids = if page.iter().any(|denial| matches!(denial.subject, DenialSubject::Key(_))) {
        let keys = documents::all(&state, EntityKind::Key).await?;
        keys.iter().filter_map(|key| Some((documents::digest(key)?, key.id.clone()))).collect()
    } else {
        HashMap::default()
    };
    let items: Vec<Value> = page.into_iter().map(|denial| json!(DenialShown::of(denial, &ids))).collect();
    Ok(place.page(&items, total, part))
}

/// Whom or what to deny: one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Deny {
    /// A user by id, who need not exist (yet).
    #[schema(example = "zhangsan")]
    user: Option<String>,
    /// A key by its id, or by its SHA-256 in 64 hexadecimal digits.
    key: Option<String>,
    /// For the audit.
    #[schema(max_length = 1000, example = "密钥泄露")]
    reason: Option<String>,
}

/// What came of it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a schema")]
struct Denied {
    denial: DenialShown,
    /// What was under way.
    cut: Vec<CutShown>,
}

/// Refuse a user or a key from this moment on, and end what is under way.
#[utoipa::path(post, path = "/api/v1/denials", tag = "denials", request_body(content = Deny, example = json!({ "user": "zhangsan", "reason": "离职" })),
    responses(
        (status = 201, description = "The denial.", body = Denied),
        (status = 404, description = "There is no such key.", body = ErrorBody),
        (status = 422, description = "None or both of the fields.", body = ErrorBody)))]
async fn create(desk: Desk, Body(body): Body<Deny>) -> ApiResult<Told> {
    let reason = body.reason.unwrap_or_default();
    if reason.chars().count() > REASON {
        return Err(ApiError::field("reason", format!("it has at most {REASON} characters")));
    }
    let subject = match (body.user, body.key) {
        (Some(user), None) if !user.is_empty() && user.len() <= 128 => DenialSubject::User(user),
        (None, Some(key)) => DenialSubject::Key(digest_of(&desk.state, &key).await?),
        _ => return Err(ApiError::field("", "name one of `user` and `key`")),
    };
    let denial = Denial { subject, reason, by: desk.caller.actor.name.clone(), at: now() };
    let shown = json!(DenialShown::of(denial.clone(), &HashMap::default()));
    let (kind, id) = parts(&denial.subject);
    let mut entry = desk.caller.audit("denial.create", kind, &id);
    entry.after = Some(shown.clone());
    let applied = desk.state.control.deny(denial, entry).await?;
    let location = format!("/api/v1/denials/{kind}/{id}");
    Ok(Told::created(json!({ "denial": shown, "cut": cuts(&applied.cut) }), location))
}

/// By the digest itself, or by the key's id.
async fn digest_of(state: &State, key: &str) -> ApiResult<KeyDigest> {
    if let Some(digest) = KeyDigest::from_hex(key) {
        return Ok(digest);
    }
    let record = documents::find(state, EntityKind::Key, key).await?;
    documents::digest(&record).ok_or_else(|| ApiError::not_found("key", key))
}

/// A denial that was taken back.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a schema")]
struct DenialGone {
    kind: String,
    subject: String,
}

/// Kind and subject in the path.
struct Subject(String, String);

impl<S: Send + Sync> FromRequestParts<S> for Subject {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        path.map(|Path((kind, subject))| Self(kind, subject))
            .map_err(|_| ApiError::bad_request("The path is not readable as UTF-8."))
    }
}

/// Take a denial back. What was ended stays ended.
#[utoipa::path(delete, path = "/api/v1/denials/{kind}/{subject}", tag = "denials",
    params(("kind" = String, Path, description = "`user` or `key`."), ("subject" = String, Path, description = "The user's id; the key's id or SHA-256.")),
    responses((status = 200, description = "It is gone.", body = DenialGone), (status = 404, description = "There is none.", body = ErrorBody)))]
async fn delete(desk: Desk, Subject(kind, subject): Subject) -> ApiResult<Told> {
    let wanted = match &*kind {
        "user" => DenialSubject::User(subject.clone()),
        "key" => DenialSubject::Key(digest_of(&desk.state, &subject).await?),
        _ => return Err(ApiError::not_found("denial", &kind)),
    };
    let (kind, id) = parts(&wanted);
    let there =
        desk.state.control.store()?.denials().await?.into_iter().find(|denial| denial.subject == wanted);
    let Some(there) = there else { return Err(ApiError::not_found("denial", &subject)) };
    let mut entry = desk.caller.audit("denial.delete", kind, &id);
    entry.before = Some(json!(DenialShown::of(there, &HashMap::default())));
    if !desk.state.control.allow(wanted, entry).await? {
        return Err(ApiError::not_found("denial", &subject));
    }
    Ok(Told::ok(Value::from_iter([("kind", kind), ("subject", &*id)])))
}
