//! Who makes a request.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use aiproxy_store::{Actor, AuditEntry};
use axum::extract::FromRequestParts;
use http::StatusCode;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Scopes;
use super::error::ApiError;

/// What somebody who signed in may do at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Everything.
    Administrator,
    /// Reads everything, changes nothing.
    Auditor,
}

impl Role {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Administrator => "administrator",
            Self::Auditor => "auditor",
        }
    }

    /// The role with this name; an unknown one may do least.
    pub(crate) fn parse(name: &str) -> Self {
        if name == "administrator" { Self::Administrator } else { Self::Auditor }
    }

    /// The lesser of the two.
    pub(crate) fn least(self, other: Self) -> Self {
        if self == Self::Administrator { other } else { Self::Auditor }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the caller has shown who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// By a session's cookie; its id's digest.
    Session([u8; 32]),
    /// By a token.
    Token,
}

/// Who makes the request: an extractor, for every route that needs a login.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// As audit records name it.
    pub(crate) actor: Actor,
    pub(crate) role: Role,
    /// What a token may do of what its role may.
    pub(crate) scopes: Scopes,
    /// The caller's address.
    pub(crate) from: String,
    /// `x-aiproxy-request-id` of the answer.
    pub(crate) request_id: String,
    /// The administrator who signed in, or who made the token.
    pub(crate) administrator: String,
    pub(crate) via: Via,
}

impl Caller {
    /// A record of something that this caller does now: outcome `ok`, nothing before or after.
    pub(crate) fn audit(&self, action: &str, object_kind: &str, object_id: &str) -> AuditEntry {
        AuditEntry {
            actor: self.actor.clone(),
            from: self.from.clone(),
            request_id: self.request_id.clone(),
            ..done(action, object_kind, object_id)
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(not_signed_in)
    }
}

/// Something that is done now, by nobody yet.
fn done(action: &str, object_kind: &str, object_id: &str) -> AuditEntry {
    AuditEntry {
        at: now_ms(),
        action: action.into(),
        object_kind: object_kind.into(),
        object_id: object_id.into(),
        outcome: "ok".into(),
        ..AuditEntry::default()
    }
}

/// Where an open request comes from: an extractor for routes without a login.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    pub(crate) from: String,
    pub(crate) request_id: String,
}

impl Visitor {
    /// A record of what somebody unknown has tried.
    pub(crate) fn audit(&self, action: &str, object_kind: &str, object_id: &str) -> AuditEntry {
        AuditEntry {
            actor: Actor { kind: "anonymous".into(), id: String::new(), name: String::new() },
            from: self.from.clone(),
            request_id: self.request_id.clone(),
            ..done(action, object_kind, object_id)
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self::of(&parts.extensions))
    }
}

impl Visitor {
    /// What the listener noted of the request.
    pub(crate) fn of(extensions: &http::Extensions) -> Self {
        let from =
            extensions.get::<Peer>().map_or_else(String::new, |peer| peer.0.to_canonical().to_string());
        let request_id =
            extensions.get::<aiproxy_core::RequestId>().map_or_else(String::new, ToString::to_string);
        Self { from, request_id }
    }
}

/// The other end of the connection; the listener puts it into each request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) std::net::IpAddr);

pub(crate) fn not_signed_in() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "not_signed_in",
        "Sign in at /api/v1/login, or send `Authorization: Bearer` with an admin token.",
    )
}

/// Unix time in milliseconds.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Unix time in seconds.
pub(crate) fn now() -> i64 {
    now_ms() / 1000
}

/// Unix seconds as RFC 3339, in UTC; empty for a time that no calendar has.
pub(crate) fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.to_string())
}
