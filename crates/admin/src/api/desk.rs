//! Where handlers of documents stand: what they were given, and how they answer.

use std::sync::Arc;

use aiproxy_core::{EntityKind, Record};
use aiproxy_store::AuditEntry;
use axum::Json;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

use super::caller::Caller;
use super::error::{ApiError, ApiResult};
use super::idempotency::Once;
use super::tag::{etag, if_match};
use crate::State;
use crate::control::{Cut, Edit};

/// What every handler of documents needs: an extractor.
pub(crate) struct Desk {
    pub(crate) state: Arc<State>,
    pub(crate) caller: Caller,
    pub(crate) once: Once,
    headers: HeaderMap,
}

impl FromRequestParts<Arc<State>> for Desk {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let once = Once::of(&parts.extensions);
        Ok(Self { state: Arc::clone(state), caller, once, headers: parts.headers.clone() })
    }
}

impl Desk {
    /// Begins an edit; 409 where the file is what is edited.
    pub(crate) async fn edit(&self) -> ApiResult<Edit> {
        Ok(self.state.control.begin().await?)
    }

    /// The record that is to be changed, as the edit sees it.
    pub(crate) async fn record(&self, edit: &mut Edit, kind: EntityKind, id: &str) -> ApiResult<Record> {
        edit.record(kind, id).await?.ok_or_else(|| ApiError::not_found(kind.as_str(), id))
    }

    /// Whether the caller has read what is there now.
    pub(crate) fn matches(&self, record: &Record) -> ApiResult<()> {
        if_match(&self.headers, record.revision)
    }

    /// As [`matches`](Self::matches), where the caller may leave it open.
    pub(crate) fn matches_if_said(&self, record: &Record) -> ApiResult<()> {
        if self.headers.contains_key(http::header::IF_MATCH) { self.matches(record) } else { Ok(()) }
    }

    /// Writes a record of something that changes no document.
    pub(crate) async fn note(&self, entry: &AuditEntry) -> ApiResult<()> {
        let mut tx = self.state.control.store()?.write().await?;
        tx.audit(entry).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// An answer with JSON.
#[derive(Debug)]
pub(crate) struct Told {
    status: StatusCode,
    body: Value,
    revision: Option<i64>,
    location: Option<String>,
    replaces_secret: bool,
}

impl Told {
    pub(crate) fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, body, revision: None, location: None, replaces_secret: false }
    }

    /// Something was made, and is to be found there.
    pub(crate) fn created(body: Value, location: String) -> Self {
        Self { status: StatusCode::CREATED, location: Some(location), ..Self::ok(body) }
    }

    /// With the entity tag of what is told.
    pub(crate) fn tagged(mut self, revision: i64) -> Self {
        self.revision = Some(revision);
        self
    }

    /// It holds a secret: it is told once, and no copy is kept.
    pub(crate) fn once_only(mut self) -> Self {
        self.replaces_secret = true;
        self
    }
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        if let Some(revision) = self.revision {
            let (name, value) = etag(revision);
            headers.insert(name, value);
        }
        if let Some(location) = self.location.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(LOCATION, location);
        }
        if self.replaces_secret {
            response.extensions_mut().insert(super::idempotency::HoldsSecret);
        }
        response
    }
}

/// What was cut, as answers tell it.
pub(crate) fn cuts(cut: &[Cut]) -> Value {
    let one = |cut: &Cut| {
        serde_json::json!({
            "id": cut.id,
            "kind": cut.kind,
            "user": cut.user,
            "channel": cut.channel,
            "model": cut.model,
            "started_at": moment(cut.started),
        })
    };
    cut.iter().map(one).collect()
}

/// A moment as RFC 3339, to the second.
pub(crate) fn moment(time: std::time::SystemTime) -> Option<String> {
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok().map(super::caller::rfc3339)
}
