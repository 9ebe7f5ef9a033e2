//! Before every route: who asks, whether they may, and a body of bounded size and time.
//!
//! - `budget`: how much strangers may make us write down
//! - [`lockout`]: failed logins are counted, and the next one waits
//! - [`login`]: sign in, sign out, who am I, another password
//! - [`origin`]: whether a browser sends a request from a page of ours
//! - [`password`]: what they have to be, and their hashes
//! - [`session`]: cookies of browsers
//! - [`token`]: admin tokens of programs

pub(crate) mod budget;
pub(crate) mod lockout;
pub(crate) mod login;
pub(crate) mod origin;
pub(crate) mod password;
pub(crate) mod session;
pub(crate) mod token;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aiproxy_store::{Actor, Administrator, AuditEntry, Session, Store};
use axum::body::{self, Body};
use axum::extract::{MatchedPath, Request, State as Shared};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::json;
use tokio::time::timeout;

use super::access::{self, Access, Found, Scopes};
use super::caller::{Caller, Role, Via, Visitor, not_signed_in, now};
use super::error::{ApiError, ApiResult};
use super::extract::too_large;
use super::settings::Cached;
use crate::State;
use budget::Budget;
use password::Hasher;

/// Sessions and tokens whose last use is remembered, so that it is written once a minute.
const TOUCHED: usize = 10_000;

/// What logins need between requests. One for each process.
#[derive(Default)]
pub struct Auth {
    pub(crate) hasher: Hasher,
    pub(crate) settings: Cached,
    strangers: Budget,
    /// When the last use of a session or token was written, by digest.
    touched: Mutex<HashMap<[u8; 32], i64>>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth")
    }
}

impl Auth {
    /// Whether it is time to write down that the session or token with this digest is used.
    fn touch(&self, digest: [u8; 32], seen: i64, now: i64) -> bool {
        if now - seen < session::TOUCH {
            return false;
        }
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        if touched.len() >= TOUCHED {
            touched.clear();
        }
        let last = touched.insert(digest, now).unwrap_or(i64::MIN);
        let due = now.saturating_sub(last) >= session::TOUCH;
        if !due {
            touched.insert(digest, last);
        }
        due
    }
}

/// Around every route of the API.
pub(crate) async fn guard(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let Some(path) = request.extensions().get::<MatchedPath>().cloned() else {
        return next.run(request).await;
    };
    let access = match access::find(request.method(), path.as_str()) {
        Found::Route(access) => access,
        Found::OtherMethods => return next.run(request).await,
        Found::Nothing => return forbidden("nobody").into_response(),
    };
    match admit(&state, request, path.as_str(), access).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn admit(state: &Arc<State>, request: Request, path: &str, access: Access) -> ApiResult<Request> {
    let (mut parts, body) = request.into_parts();
    if access != Access::Open {
        let caller = who(state, &parts, access).await?;
        if !access.allows(caller.role, &caller.scopes) {
            let refusal = forbidden(&access.to_string());
            let mut entry = caller.audit("access.refuse", "route", path);
            refusal.code().clone_into(&mut entry.outcome);
            entry.detail = Some(json!({"method": parts.method.as_str(), "needs": access.to_string()}));
            record(state, entry).await;
            return Err(refusal);
        }
        parts.extensions.insert(caller);
    }
    let body = whole(body, Bounds::of(path, access)).await?;
    Ok(Request::from_parts(parts, body))
}

/// Who makes the request, checked as far as the route asks.
async fn who(state: &Arc<State>, parts: &Parts, access: Access) -> ApiResult<Caller> {
    let store = state.control.store()?;
    let (caller, administrator) = match token::given(&parts.headers) {
        token::Given::Token(token) => by_token(state, &store, parts, token).await?,
        token::Given::Malformed => return Err(invalid_token()),
        token::Given::Nothing => by_session(state, &store, parts).await?,
    };
    if administrator.must_change && access != Access::Own {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "password_change_required",
            "Change the password first: POST /api/v1/password.",
        ));
    }
    Ok(caller)
}

async fn by_token(
    state: &Arc<State>,
    store: &Store,
    parts: &Parts,
    token: &str,
) -> ApiResult<(Caller, Administrator)> {
    let (digest, now) = (session::digest(token), now());
    let token = store
        .token_by_digest(&digest)
        .await?
        .filter(|token| token.revoked_at.is_none() && token.expires_at.is_none_or(|expires| now < expires));
    let token = token.ok_or_else(invalid_token)?;
    let administrator = active(store, &token.created_by).await?.ok_or_else(invalid_token)?;
    if state.auth.touch(digest, token.last_used_at.unwrap_or(0), now) {
        let (store, id) = (store.clone(), token.id.clone());
        tokio::spawn(async move {
            let written = async {
                let mut tx = store.write().await?;
                tx.touch_token(&id, now).await?;
                tx.commit().await
            };
            if let Err(error) = written.await {
                tracing::debug!(%error, "the use of a token was not written");
            }
        });
    }
    let visitor = Visitor::of(&parts.extensions);
    let caller = Caller {
        actor: Actor { kind: "token".into(), id: token.id, name: token.name },
        role: Role::parse(&token.role).least(Role::parse(&administrator.role)),
        // A scope that is unknown by now gives nothing.
        scopes: Scopes::parse(&token.scopes).unwrap_or(Scopes::Some(Vec::new())),
        from: visitor.from,
        request_id: visitor.request_id,
        administrator: administrator.id.clone(),
        via: Via::Token,
    };
    Ok((caller, administrator))
}

async fn by_session(state: &Arc<State>, store: &Store, parts: &Parts) -> ApiResult<(Caller, Administrator)> {
    let id = session::id_in(&parts.headers).ok_or_else(not_signed_in)?;
    let (digest, now) = (session::digest(id), now());
    let settings = state.auth.settings.get(store).await?;
    let session =
        store.session(&digest).await?.filter(|session| session::alive(session, now, settings.session_idle));
    let session = session.ok_or_else(not_signed_in)?;
    let administrator = active(store, &session.administrator).await?.ok_or_else(not_signed_in)?;
    let visitor = Visitor::of(&parts.extensions);
    let caller = Caller {
        actor: actor(&administrator),
        role: Role::parse(&administrator.role),
        scopes: Scopes::All,
        from: visitor.from,
        request_id: visitor.request_id,
        administrator: administrator.id.clone(),
        via: Via::Session(digest),
    };
    if changes(&parts.method) {
        let refused =
            origin::check(&parts.headers).and_then(|()| session::check_csrf(&session, &parts.headers));
        if let Err(refusal) = refused {
            let mut entry = caller.audit("access.refuse", "route", parts.uri.path());
            refusal.code().clone_into(&mut entry.outcome);
            record(state, entry).await;
            return Err(refusal);
        }
    }
    seen(state, store, &session, now);
    Ok((caller, administrator))
}

/// Writes down that a session is used, without the request waiting for it.
fn seen(state: &Arc<State>, store: &Store, session: &Session, now: i64) {
    if !state.auth.touch(session.sha256, session.seen_at, now) {
        return;
    }
    let (store, digest) = (store.clone(), session.sha256);
    tokio::spawn(async move {
        let written = async {
            let mut tx = store.write().await?;
            tx.touch_session(&digest, now).await?;
            tx.commit().await
        };
        if let Err(error) = written.await {
            tracing::debug!(%error, "the use of a session was not written");
        }
    });
}

/// The administrator with this id, if they may sign in.
async fn active(store: &Store, id: &str) -> ApiResult<Option<Administrator>> {
    Ok(store.administrator(id).await?.filter(|administrator| administrator.status == "active"))
}

/// An administrator as audit records name them.
pub(crate) fn actor(administrator: &Administrator) -> Actor {
    Actor { kind: "administrator".into(), id: administrator.id.clone(), name: administrator.name.clone() }
}

/// Whether requests with the method change anything.
fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

fn invalid_token() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "invalid_token",
        "The admin token is unknown, revoked, expired, or of an administrator who is disabled.",
    )
}

fn forbidden(needs: &str) -> ApiError {
    let message = format!("Neither your role nor your token's scopes may do this: it needs {needs}.");
    ApiError::new(StatusCode::FORBIDDEN, "forbidden", message)
}

/// Writes an audit record that belongs to no change.
pub(crate) async fn record(state: &State, entry: AuditEntry) {
    let written = async {
        let store = state.control.store()?;
        let mut tx = store.write().await?;
        tx.audit(&entry).await?;
        tx.commit().await?;
        ApiResult::Ok(())
    };
    if let Err(error) = written.await {
        tracing::warn!(
            action = entry.action,
            outcome = entry.outcome,
            from = entry.from,
            code = error.code(),
            "an audit record could not be written"
        );
    }
}

/// Writes an audit record of somebody without a login, unless there were too many in this second.
pub(crate) async fn record_stranger(state: &State, entry: AuditEntry) {
    if state.auth.strangers.grant(entry.at / 1000) {
        record(state, entry).await;
    }
}

/// What a body may cost.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    bytes: usize,
    time: Duration,
}

impl Bounds {
    fn of(path: &str, access: Access) -> Self {
        let (kib, seconds) = match access {
            Access::Open | Access::Own => (16, 10),
            _ if path.ends_with("/import") => (16 * 1024, 60),
            _ => (1024, 30),
        };
        Self { bytes: kib * 1024, time: Duration::from_secs(seconds) }
    }
}

/// Reads the body before the route runs, so that a slow one holds nothing up.
async fn whole(body: Body, bounds: Bounds) -> ApiResult<Body> {
    use axum::body::HttpBody as _;
    if body.size_hint().lower() > bounds.bytes as u64 {
        return Err(too_large());
    }
    match timeout(bounds.time, body::to_bytes(body, bounds.bytes)).await {
        Ok(Ok(bytes)) => Ok(Body::from(bytes)),
        Ok(Err(error)) if long(&error) => Err(too_large()),
        Ok(Err(_)) => Err(ApiError::bad_request("The body could not be read.")),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_too_slow",
            "The body did not arrive in time.",
        )),
    }
}

/// Whether reading ended because of the bound.
fn long(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.to_string().contains("length limit"))
}
