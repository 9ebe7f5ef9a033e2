//! What is over is deleted: sessions, old audit records, answers kept for repeated requests.

use std::sync::Arc;
use std::time::Duration;

use aiproxy_store::{Actor, AuditEntry};
use serde_json::json;
use tokio::time::sleep;

use super::caller::{now, now_ms};
use super::error::ApiResult;
use crate::State;

/// From one look to the next.
const INTERVAL: Duration = Duration::from_secs(3600);
/// Seconds for which answers to requests with an idempotency key are kept.
const IDEMPOTENT: i64 = 24 * 3600;
/// Milliseconds of a day.
const DAY: i64 = 24 * 3600 * 1000;

/// Deletes now and each hour, as long as the listener stands.
pub(crate) async fn run(state: Arc<State>) {
    loop {
        if let Err(error) = once(&state).await {
            tracing::warn!(code = error.code(), "old sessions and audit records could not be deleted");
        }
        sleep(INTERVAL).await;
    }
}

/// Deletes what is over.
pub(crate) async fn once(state: &State) -> ApiResult<()> {
    let store = state.control.store()?;
    let days = state.auth.settings.get(&store).await?.audit_retention_days;
    let mut tx = store.write().await?;
    tx.delete_expired(now()).await?;
    tx.expire_idempotent(now() - IDEMPOTENT).await?;
    let deleted = tx.prune_audit(now_ms() - days * DAY).await?;
    if deleted > 0 {
        tx.audit(&AuditEntry {
            at: now_ms(),
            actor: Actor { kind: "system".into(), ..Actor::default() },
            action: "audit.prune".into(),
            object_kind: "audit".into(),
            outcome: "ok".into(),
            detail: Some(json!({"deleted": deleted, "older_than_days": days})),
            ..AuditEntry::default()
        })
        .await?;
    }
    tx.commit().await?;
    Ok(())
}
