//! `POST /reload`: reads the configuration file again now.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tokio::time::timeout;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::desk::{Desk, Told};
use super::error::{ApiError, ApiResult, ErrorBody};
use crate::State;

/// How long a reload is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a report; the process log has all of it.
const REPORT: usize = 16 * 1024;

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(reload))
}

/// What a reload changed.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a schema")]
struct Reloaded {
    /// For people.
    #[schema(example = "no change")]
    report: String,
}

/// Read the configuration file again now. A file with mistakes is refused, and the last good one serves.
#[utoipa::path(post, path = "/api/v1/reload", tag = "process",
    responses(
        (status = 200, description = "What changed.", body = Reloaded),
        (status = 422, description = "`reload_refused`: the mistakes, keys masked.", body = ErrorBody)))]
async fn reload(desk: Desk) -> ApiResult<Told> {
    let outcome = timeout(PATIENCE, desk.state.control.reload()).await.map_err(|_| {
        let message = "The file is still being read; the process log will say what came of it.";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message).retry_after(5)
    })?;
    let mut entry = desk.caller.audit("process.reload", "", "");
    if outcome.is_err() {
        entry.outcome = "reload_refused".into();
    }
    // The file has been read, whatever the database does.
    if let Err(error) = desk.note(&entry).await {
        tracing::warn!(code = error.code(), "a reload is missing in the audit");
    }
    match outcome {
        Ok(report) => Ok(Told::ok(json!({ "report": bounded(report) }))),
        Err(report) => {
            Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "reload_refused", bounded(report)))
        }
    }
}

fn bounded(mut report: String) -> String {
    if report.len() > REPORT {
        report.truncate(report.floor_char_boundary(REPORT));
        report.push('…');
    }
    report
}
