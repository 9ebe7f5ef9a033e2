//! How the process is doing, for people who signed in.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ApiResult;
use crate::State;
use crate::control::Source;
use crate::ready;

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(show))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProcessStatus)]
pub(crate) struct Status {
    version: &'static str,
    /// Where users, groups, channels and keys come from.
    source: From,
    database: Database,
    /// The database's revision; none while it is away.
    revision: Option<i64>,
    /// Seconds since the start.
    uptime: u64,
    /// Requests, streams, sockets and calls under way.
    live_sessions: usize,
    mode: Mode,
    reload: Reload,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ManagedBy)]
#[serde(rename_all = "snake_case")]
enum From {
    /// The configuration file; the API cannot edit them.
    File,
    Database,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DatabaseState)]
#[serde(rename_all = "snake_case")]
enum Database {
    Available,
    /// The relay goes on with what it knows; nothing can be changed.
    Away,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProcessMode)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Serving,
    /// The process was told to end and finishes what is under way.
    Draining,
}

/// What became of changed configurations since the start.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reloads)]
struct Reload {
    applied: u64,
    refused: u64,
    /// Why the last one was refused; none once one was applied.
    error: Option<String>,
}

/// Status
///
/// What runs, from where it takes what it knows, and what became of the last change.
#[utoipa::path(get, path = "/api/v1/status", tag = "process", operation_id = "status", responses(
    (status = 200, description = "The status", body = Status),
))]
pub(crate) async fn show(Shared(state): Shared<Arc<State>>) -> ApiResult<Json<Status>> {
    let revision = match state.control.store() {
        Ok(store) => store.revision().await.ok(),
        Err(_) => None,
    };
    let registry = &state.registry;
    let (applied, refused) = registry.status.reloads();
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        source: match state.control.source() {
            Source::File => From::File,
            Source::Database => From::Database,
        },
        database: if revision.is_some() { Database::Available } else { Database::Away },
        revision,
        uptime: state.started.elapsed().as_secs(),
        live_sessions: registry.live.len(),
        mode: if registry.status.draining() { Mode::Draining } else { Mode::Serving },
        reload: Reload { applied, refused, error: registry.status.reload_error().map(ready::bounded) },
    }))
}
