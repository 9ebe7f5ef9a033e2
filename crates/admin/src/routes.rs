//! Paths and answers.

use std::sync::Arc;

use aiproxy_core::RequestId;
use aiproxy_telemetry::metrics::CONTENT_TYPE as METRICS_TYPE;
use axum::extract::{Request, State as Shared};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::State;
use crate::api;
use crate::host::{self, Wrong};
use crate::ready::Readiness;

type Ours = Shared<Arc<State>>;

/// Every route, with what holds for all of them.
pub(crate) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(api::router(&state))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "not_found", "There is nothing at this path."))
        .method_not_allowed_fallback(async || {
            refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "This path does not take that method; `allow` says which it takes.",
            )
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&state), all))
        .with_state(state)
}

async fn readyz(Shared(state): Ours) -> Response {
    let readiness = Readiness::of(&state.registry, &state.control);
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics(Shared(state): Ours) -> Response {
    match state.metrics.page() {
        Ok(page) => ([(CONTENT_TYPE, METRICS_TYPE)], page).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The metrics cannot be written.")
        }
    }
}

/// Around every answer, refusals among them.
async fn all(Shared(state): Ours, mut request: Request, next: Next) -> Response {
    let id = RequestId::fresh();
    request.extensions_mut().insert(id);
    let mut response = match host::check(request.headers(), request.uri(), request.version(), &state.hosts) {
        Ok(()) => next.run(request).await,
        Err(Wrong::Malformed) => {
            refuse(StatusCode::BAD_REQUEST, "bad_host", "The request needs one Host header that can be read.")
        }
        Err(Wrong::Unknown) => refuse(
            StatusCode::FORBIDDEN,
            "host_not_allowed",
            "This listener does not answer to that host name. Use its IP address or localhost.",
        ),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::try_from(id.as_str()) {
        headers.insert("x-aiproxy-request-id", id);
    }
    response
}

#[derive(Debug, Serialize)]
struct Refusal {
    error: Reason,
}

#[derive(Debug, Serialize)]
struct Reason {
    code: &'static str,
    message: &'static str,
}

fn refuse(status: StatusCode, code: &'static str, message: &'static str) -> Response {
    (status, Json(Refusal { error: Reason { code, message } })).into_response()
}
