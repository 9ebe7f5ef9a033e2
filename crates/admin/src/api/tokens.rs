//! Admin tokens: for programs.

use std::sync::Arc;

use aiproxy_core::ids::random_key;
use aiproxy_store::Token;
use axum::Json;
use axum::extract::State as Shared;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Scopes;
use super::auth::{session, token};
use super::caller::{Caller, Role, now, rfc3339};
use super::error::{ApiError, ApiResult, Body, ErrorBody, Id};
use crate::State;

/// Characters of a name.
const NAME: usize = 128;
/// Scopes in one list.
const SCOPES: usize = 32;
/// Tokens at most: their list is one answer.
const MOST: usize = 1000;

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

/// An admin token: never the token itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
pub(crate) struct Shown {
    id: String,
    name: String,
    /// How the token begins.
    #[schema(example = "at_3fB9x")]
    prefix: String,
    role: Role,
    #[schema(example = json!(["users:read", "keys:write"]))]
    scopes: Vec<String>,
    /// Id of the administrator: when they are disabled, the token stops working.
    created_by: String,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// To the minute.
    #[schema(format = DateTime)]
    last_used_at: Option<String>,
}

impl From<&Token> for Shown {
    fn from(of: &Token) -> Self {
        Self {
            id: of.id.clone(),
            name: of.name.clone(),
            prefix: of.prefix.clone(),
            role: Role::parse(&of.role),
            scopes: of.scopes.clone(),
            created_by: of.created_by.clone(),
            created_at: rfc3339(of.created_at),
            expires_at: of.expires_at.map(rfc3339),
            last_used_at: of.last_used_at.map(rfc3339),
        }
    }
}

/// Every token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TokenList)]
pub(crate) struct List {
    items: Vec<Shown>,
    total: usize,
}

/// Tokens
///
/// All that are not revoked, expired ones among them.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", operation_id = "list_tokens", responses(
    (status = 200, description = "All tokens", body = List),
))]
pub(crate) async fn list(Shared(state): Shared<Arc<State>>) -> ApiResult<Json<List>> {
    let all = state.control.store()?.tokens().await?;
    let items: Vec<_> = all.iter().filter(|token| token.revoked_at.is_none()).map(Shown::from).collect();
    Ok(Json(List { total: items.len(), items }))
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewToken)]
#[serde(deny_unknown_fields)]
pub(crate) struct New {
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// No more than the caller's own.
    role: Role,
    /// `<area>:read`, `<area>:write` or `*`; no more than the caller's own.
    #[schema(min_items = 1, max_items = 32, example = json!(["users:read", "keys:write"]))]
    scopes: Vec<String>,
    /// Never, if absent.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// A new token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CreatedToken)]
pub(crate) struct Created {
    details: Shown,
    /// For `authorization: Bearer`: shown this once.
    token: String,
}

/// Creates a token
///
/// With the caller's rights or less. It works as long as its creator does.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", operation_id = "create_token", request_body = New, responses(
    (status = 201, description = "Created", body = Created),
    (status = 409, description = "`too_many`: there are a thousand already", body = ErrorBody),
))]
pub(crate) async fn create(
    Shared(state): Shared<Arc<State>>,
    caller: Caller,
    Body(new): Body<New>,
) -> ApiResult<(StatusCode, Json<Created>)> {
    let now = now();
    let (scopes, expires_at) = check(&new, &caller, now)?;
    let text = token::fresh();
    let token = Token {
        id: random_key("", 16),
        name: new.name,
        sha256: session::digest(&text),
        prefix: token::prefix(&text),
        role: new.role.as_str().into(),
        scopes: scopes.list(),
        created_by: caller.administrator.clone(),
        created_at: now,
        expires_at,
        last_used_at: None,
        revoked_at: None,
    };
    let store = state.control.store()?;
    let mut tx = store.write().await?;
    if store.tokens().await?.len() >= MOST {
        return Err(ApiError::conflict("too_many", "There are a thousand tokens already: revoke some."));
    }
    tx.put_token(&token).await?;
    let mut entry = caller.audit("token.create", "token", &token.id);
    entry.after = Some(audited(&token));
    tx.audit(&entry).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(Created { details: Shown::from(&token), token: text })))
}

/// What the token may do and until when (Unix time, seconds).
fn check(new: &New, caller: &Caller, now: i64) -> ApiResult<(Scopes, Option<i64>)> {
    let name = new.name.trim();
    if name.is_empty() || new.name.chars().count() > NAME || name.chars().any(char::is_control) {
        return Err(ApiError::field(
            "name",
            "a name has 1 to 128 characters, none of them a control character",
        ));
    }
    if !(1..=SCOPES).contains(&new.scopes.len()) {
        return Err(ApiError::field("scopes", "1 to 32 scopes"));
    }
    let scopes = Scopes::parse(&new.scopes).map_err(|_| {
        ApiError::field(
            "scopes",
            "a scope is `<area>:read`, `<area>:write` or `*`; docs/admin-api.md lists the areas",
        )
    })?;
    if new.role.least(caller.role) != new.role || !caller.scopes.cover(&scopes) {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "more_than_own",
            "A token may do no more than whoever makes it.",
        ));
    }
    let expires_at = new.expires_at.as_deref().map(|text| {
        let moment = text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_second);
        moment.ok().filter(|moment| *moment > now)
    });
    match expires_at {
        Some(None) => Err(ApiError::field("expires_at", "a moment to come, like 2030-01-31T12:00:00Z")),
        Some(moment) => Ok((scopes, moment)),
        None => Ok((scopes, None)),
    }
}

/// Revokes a token
///
/// At once and for good.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens", operation_id = "revoke_token",
    params(("id" = String, Path, description = "The id")), responses(
    (status = 204, description = "Revoked"),
))]
pub(crate) async fn revoke(
    Shared(state): Shared<Arc<State>>,
    caller: Caller,
    Id(id): Id,
) -> ApiResult<StatusCode> {
    let store = state.control.store()?;
    let mut tx = store.write().await?;
    let token = store.tokens().await?.into_iter().find(|token| token.id == id && token.revoked_at.is_none());
    let token = token.ok_or_else(|| ApiError::not_found("token", &id))?;
    tx.delete_token(&id).await?;
    let mut entry = caller.audit("token.revoke", "token", &id);
    entry.before = Some(audited(&token));
    tx.audit(&entry).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn audited(token: &Token) -> Value {
    json!({
        "name": token.name,
        "prefix": token.prefix,
        "role": token.role,
        "scopes": token.scopes,
        "expires_at": token.expires_at.map(rfc3339),
    })
}
