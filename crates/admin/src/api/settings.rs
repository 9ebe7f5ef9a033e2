//! What administrators set for the control plane itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aiproxy_store::Store;
use axum::Json;
use axum::extract::State as Shared;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::error::{ApiError, ApiResult, Body, FieldProblem};
use crate::State;

/// How long another process's change of a setting may go unnoticed.
const FRESH: Duration = Duration::from_secs(5);

/// The settings, each within its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Settings {
    /// Seconds without a request after which a session ends.
    #[schema(minimum = 60, maximum = 86_400, default = 1800)]
    pub(crate) session_idle: i64,
    /// Seconds after which a session ends in any case.
    #[schema(minimum = 300, maximum = 2_592_000, default = 43_200)]
    pub(crate) session_total: i64,
    /// Failed logins of a name after which the next has to wait.
    #[schema(minimum = 1, maximum = 100, default = 5)]
    pub(crate) lockout_failures: i64,
    /// Seconds for which a rotated Proxy-Key goes on working, unless the rotation says otherwise.
    #[schema(minimum = 0, maximum = 2_592_000, default = 86_400)]
    pub(crate) rotation_grace: i64,
    /// Days after which audit records are deleted.
    #[schema(minimum = 1, maximum = 3650, default = 400)]
    pub(crate) audit_retention_days: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            session_idle: 1800,
            session_total: 43_200,
            lockout_failures: 5,
            rotation_grace: 86_400,
            audit_retention_days: 400,
        }
    }
}

impl Settings {
    /// Each setting with its name and bounds.
    fn fields(&mut self) -> [(&'static str, &mut i64, std::ops::RangeInclusive<i64>); 5] {
        [
            ("session_idle", &mut self.session_idle, 60..=86_400),
            ("session_total", &mut self.session_total, 300..=2_592_000),
            ("lockout_failures", &mut self.lockout_failures, 1..=100),
            ("rotation_grace", &mut self.rotation_grace, 0..=2_592_000),
            ("audit_retention_days", &mut self.audit_retention_days, 1..=3650),
        ]
    }

    /// What the database holds; what is out of bounds there is as if it were not there.
    fn of(stored: &Map<String, Value>) -> Self {
        let mut settings = Self::default();
        for (name, value, bounds) in settings.fields() {
            if let Some(known) =
                stored.get(name).and_then(Value::as_i64).filter(|known| bounds.contains(known))
            {
                *value = known;
            }
        }
        settings
    }
}

/// The settings as they were read a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Cached(Mutex<Option<(Instant, Settings)>>);

impl Cached {
    /// The settings, at most a few seconds old.
    pub(crate) async fn get(&self, store: &Store) -> ApiResult<Settings> {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, settings)) = known
            && read.elapsed() < FRESH
        {
            return Ok(settings);
        }
        let settings = Settings::of(&store.settings().await?);
        self.put(settings);
        Ok(settings)
    }

    fn put(&self, settings: Settings) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), settings));
    }
}

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(show, change))
}

/// Settings
///
/// All of them; those that nobody has set have their defaults.
#[utoipa::path(get, path = "/api/v1/settings", tag = "settings", operation_id = "get_settings", responses(
    (status = 200, description = "The settings", body = Settings),
))]
pub(crate) async fn show(Shared(state): Shared<Arc<State>>) -> ApiResult<Json<Settings>> {
    let store = state.control.store()?;
    Ok(Json(Settings::of(&store.settings().await?)))
}

/// What to set; `null` and what is absent stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = SettingsPatch)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    #[schema(minimum = 60, maximum = 86_400)]
    session_idle: Option<i64>,
    #[schema(minimum = 300, maximum = 2_592_000)]
    session_total: Option<i64>,
    #[schema(minimum = 1, maximum = 100)]
    lockout_failures: Option<i64>,
    #[schema(minimum = 0, maximum = 2_592_000)]
    rotation_grace: Option<i64>,
    #[schema(minimum = 1, maximum = 3650)]
    audit_retention_days: Option<i64>,
}

impl Change {
    fn values(&self) -> [Option<i64>; 5] {
        [
            self.session_idle,
            self.session_total,
            self.lockout_failures,
            self.rotation_grace,
            self.audit_retention_days,
        ]
    }
}

/// Changes settings
///
/// Those that the body names. A shorter session counts for sessions that begin from now on; a shorter
/// idle time for all.
#[utoipa::path(patch, path = "/api/v1/settings", tag = "settings", operation_id = "change_settings", request_body = Change, responses(
    (status = 200, description = "All settings as they are now", body = Settings),
))]
pub(crate) async fn change(
    Shared(state): Shared<Arc<State>>,
    caller: Caller,
    Body(change): Body<Change>,
) -> ApiResult<Json<Settings>> {
    let store = state.control.store()?;
    let mut tx = store.write().await?;
    let before = Settings::of(&store.settings().await?);
    let mut after = before;
    let mut problems = Vec::new();
    for ((name, value, bounds), given) in after.fields().into_iter().zip(change.values()) {
        let Some(given) = given else { continue };
        if !bounds.contains(&given) {
            let message = format!("from {} to {}", bounds.start(), bounds.end());
            problems.push(FieldProblem { path: name.into(), message, suggestion: None });
        }
        *value = given;
        tx.put_setting(name, &Value::from(given)).await?;
    }
    if !problems.is_empty() {
        return Err(ApiError::invalid(problems));
    }
    let mut entry = caller.audit("settings.change", "settings", "");
    (entry.before, entry.after) = (Some(json!(before)), Some(json!(after)));
    tx.audit(&entry).await?;
    tx.commit().await?;
    state.auth.settings.put(after);
    Ok(Json(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_in_the_database_is_as_if_it_were_not_there() {
        let stored = json!({"session_idle": 60, "session_total": -1, "lockout_failures": "5", "unknown": 7});
        let settings = Settings::of(stored.as_object().unwrap());
        assert_eq!(settings, Settings { session_idle: 60, ..Settings::default() });
    }
}
