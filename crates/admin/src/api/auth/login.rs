//! Sign in, sign out, who am I, another password.

use std::sync::Arc;

use aiproxy_core::Secret;
use aiproxy_store::{Administrator, AuditEntry, Store};
use axum::Json;
use axum::extract::State as Shared;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::lockout::Attempt;
use super::password::{self, Password};
use super::{actor, origin, record_stranger, session};
use crate::State;
use crate::api::caller::{Caller, Role, Via, Visitor, now, rfc3339};
use crate::api::error::{ApiError, ApiResult, Body, ErrorBody};
use crate::api::first;

/// Characters of an administrator's name.
pub(crate) const NAME: usize = 64;

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(me))
        .routes(routes!(change))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    #[schema(min_length = 1, max_length = 64, example = "admin")]
    name: String,
    #[schema(value_type = String, format = Password, min_length = 1, max_length = 256)]
    password: Password,
}

/// Somebody who is signed in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Me {
    administrator: Own,
    /// What this login may do at most.
    role: Role,
    /// What it may do of that; a session may do all.
    #[schema(example = json!(["*"]))]
    scopes: Vec<String>,
    /// For `x-csrf-token`; none for a token.
    csrf_token: Option<String>,
    /// When the session ends at the latest; none for a token.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Nothing else can be done before the password is changed.
    must_change_password: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SignedIn)]
struct Own {
    id: String,
    name: String,
    display_name: String,
}

impl From<&Administrator> for Own {
    fn from(of: &Administrator) -> Self {
        Self { id: of.id.clone(), name: of.name.clone(), display_name: of.display_name.clone() }
    }
}

/// Signs in
///
/// Begins a session: the cookie `aiproxy_session` holds it, and `csrf_token` has to come with every
/// change in `x-csrf-token`. After several failures the next attempt has to wait.
#[utoipa::path(post, path = "/api/v1/login", tag = "login", operation_id = "login", request_body = Login, responses(
    (status = 200, description = "Signed in", body = Me, headers(("set-cookie" = String, description = "The session"))),
    (status = 401, description = "`wrong_login`: no such name, or not its password", body = ErrorBody),
    (status = 429, description = "`locked_out`: too many failures; see `retry-after`", body = ErrorBody),
))]
pub(crate) async fn login(
    Shared(state): Shared<Arc<State>>,
    visitor: Visitor,
    headers: HeaderMap,
    Body(Login { name, password }): Body<Login>,
) -> ApiResult<([(HeaderName, HeaderValue); 1], Json<Me>)> {
    let tried = attempt(&state, &visitor, &headers, &name, &password.0).await;
    if let Err(refusal) = &tried.1 {
        let mut entry = visitor.audit("login", "administrator", &tried.0);
        refusal.code().clone_into(&mut entry.outcome);
        record_stranger(&state, entry).await;
    }
    tried.1
}

type SignedIn = ([(HeaderName, HeaderValue); 1], Json<Me>);

/// The id of the administrator with that name, if there is one, and what came of it.
async fn attempt(
    state: &State,
    visitor: &Visitor,
    headers: &HeaderMap,
    name: &str,
    password: &Secret,
) -> (String, ApiResult<SignedIn>) {
    let mut id = String::new();
    let outcome = async {
        origin::check(headers)?;
        let given = password.expose().chars().count();
        if !(1..=NAME).contains(&name.chars().count()) || !(1..=*password::LENGTH.end()).contains(&given) {
            return Err(wrong_login());
        }
        let store = state.control.store()?;
        let settings = state.auth.settings.get(&store).await?;
        let known = store.administrator_by_name(name).await?;
        if let Some(known) = &known {
            id.clone_from(&known.id);
        }
        let attempt = Attempt::new(name, &visitor.from);
        attempt.begin(&store, settings.lockout_failures, now()).await?;
        let hash = known.as_ref().map(|known| known.password_hash.clone());
        let right = state.auth.hasher.verify(password, hash).await?;
        let known = known.filter(|_| right).ok_or_else(wrong_login)?;
        begin_session(&store, &attempt, &known, settings.session_total, visitor, headers).await
    };
    let outcome = outcome.await;
    (id, outcome)
}

/// The password was right: what else it takes is looked at in the transaction that begins the session.
async fn begin_session(
    store: &Store,
    attempt: &Attempt,
    verified: &Administrator,
    total: i64,
    visitor: &Visitor,
    headers: &HeaderMap,
) -> ApiResult<SignedIn> {
    let now = now();
    let mut tx = store.write().await?;
    let mut known = store.administrator(&verified.id).await?.ok_or_else(wrong_login)?;
    if known.status != "active" || known.password_hash.expose() != verified.password_hash.expose() {
        return Err(wrong_login());
    }
    let fresh = session::begin(&known.id, now, total, &visitor.from, headers);
    let me = Me {
        administrator: Own::from(&known),
        role: Role::parse(&known.role),
        scopes: vec!["*".into()],
        csrf_token: Some(fresh.csrf.clone()),
        expires_at: Some(rfc3339(fresh.session.expires_at)),
        must_change_password: known.must_change,
    };
    let entry = AuditEntry { actor: actor(&known), ..visitor.audit("login", "administrator", &known.id) };
    known.last_login_at = Some(now);
    attempt.succeeded(store, &mut tx).await?;
    tx.put_administrator(&known).await?;
    tx.delete_expired(now).await?;
    tx.put_session(&fresh.session).await?;
    tx.audit(&entry).await?;
    tx.commit().await?;
    Ok(([(SET_COOKIE, session::cookie(&fresh.id, total, headers)?)], Json(me)))
}

fn wrong_login() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "wrong_login",
        "There is no such name, or that is not its password.",
    )
}

/// Signs out
///
/// Ends the session.
#[utoipa::path(post, path = "/api/v1/logout", tag = "login", operation_id = "logout", responses(
    (status = 204, description = "Signed out", headers(("set-cookie" = String, description = "Takes the cookie back"))),
))]
pub(crate) async fn logout(
    Shared(state): Shared<Arc<State>>,
    caller: Caller,
    headers: HeaderMap,
) -> ApiResult<(StatusCode, [(HeaderName, HeaderValue); 1])> {
    let Via::Session(digest) = caller.via else { return Err(session_required()) };
    let mut tx = state.control.store()?.write().await?;
    tx.delete_session(&digest).await?;
    tx.audit(&caller.audit("logout", "administrator", &caller.administrator)).await?;
    tx.commit().await?;
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, session::cookie("", 0, &headers)?)]))
}

/// Who am I
///
/// The login with which the request is made.
#[utoipa::path(get, path = "/api/v1/me", tag = "login", operation_id = "me", responses(
    (status = 200, description = "The login", body = Me),
))]
pub(crate) async fn me(
    Shared(state): Shared<Arc<State>>,
    caller: Caller,
    headers: HeaderMap,
) -> ApiResult<Json<Me>> {
    let store = state.control.store()?;
    let known =
        store.administrator(&caller.administrator).await?.ok_or_else(crate::api::caller::not_signed_in)?;
    let (csrf_token, expires_at) = match caller.via {
        Via::Session(digest) => {
            let expires = store.session(&digest).await?.map(|session| rfc3339(session.expires_at));
            (session::id_in(&headers).map(session::csrf_of), expires)
        }
        Via::Token => (None, None),
    };
    Ok(Json(Me {
        administrator: Own::from(&known),
        role: caller.role,
        scopes: caller.scopes.list(),
        csrf_token,
        expires_at,
        must_change_password: known.must_change,
    }))
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = PasswordChange)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    #[schema(value_type = String, format = Password, min_length = 1, max_length = 256)]
    current: Password,
    /// Twelve characters at least, five different ones among them, and not the name.
    #[schema(value_type = String, format = Password, min_length = 12, max_length = 256)]
    new: Password,
}

/// Changes the password
///
/// The caller's own. Their other sessions end.
#[utoipa::path(post, path = "/api/v1/password", tag = "login", operation_id = "change_password", request_body = Change, responses(
    (status = 204, description = "Changed"),
    (status = 409, description = "`changed_meanwhile`: another request changed it at the same time", body = ErrorBody),
    (status = 429, description = "`locked_out`: too many failures; see `retry-after`", body = ErrorBody),
))]
pub(crate) async fn change(
    Shared(state): Shared<Arc<State>>,
    caller: Caller,
    Body(Change { current, new }): Body<Change>,
) -> ApiResult<StatusCode> {
    let outcome = change_password(&state, &caller, &current.0, &new.0).await;
    if let Err(refusal) = &outcome {
        let mut entry = caller.audit("password.change", "administrator", &caller.administrator);
        refusal.code().clone_into(&mut entry.outcome);
        super::record(&state, entry).await;
    }
    outcome.map(|()| StatusCode::NO_CONTENT)
}

async fn change_password(state: &State, caller: &Caller, current: &Secret, new: &Secret) -> ApiResult<()> {
    let Via::Session(digest) = caller.via else { return Err(session_required()) };
    let store = state.control.store()?;
    let settings = state.auth.settings.get(&store).await?;
    let known =
        store.administrator(&caller.administrator).await?.ok_or_else(crate::api::caller::not_signed_in)?;
    password::check(new, &known.name).map_err(|why| ApiError::field("new", why))?;
    if new.expose() == current.expose() {
        return Err(ApiError::field("new", "the new password is the current one"));
    }
    let attempt = Attempt::new(&known.name, &caller.from);
    attempt.begin(&store, settings.lockout_failures, now()).await?;
    if !state.auth.hasher.verify(current, Some(known.password_hash.clone())).await? {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "wrong_password",
            "That is not the current password.",
        ));
    }
    let hash = state.auth.hasher.hash(new).await?;
    let mut tx = store.write().await?;
    let own = store.session(&digest).await?.ok_or_else(crate::api::caller::not_signed_in)?;
    let mut now_known =
        store.administrator(&known.id).await?.ok_or_else(crate::api::caller::not_signed_in)?;
    if now_known.password_hash.expose() != known.password_hash.expose() {
        return Err(ApiError::conflict("changed_meanwhile", "The password was changed at the same time."));
    }
    now_known.password_hash = hash;
    now_known.must_change = false;
    now_known.updated_at = now();
    attempt.succeeded(&store, &mut tx).await?;
    tx.put_administrator(&now_known).await?;
    let ended = tx.delete_sessions_of(&known.id).await?;
    tx.put_session(&own).await?;
    let mut entry = caller.audit("password.change", "administrator", &known.id);
    entry.detail = Some(json!({"sessions_ended": ended.saturating_sub(1)}));
    tx.audit(&entry).await?;
    tx.commit().await?;
    if known.must_change && known.name == first::NAME {
        first::forget(&state.registry.snapshot().system.data_dir);
    }
    Ok(())
}

fn session_required() -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        "session_required",
        "This is for people who signed in, not for tokens.",
    )
}
