//! Many users or channels at once: all of them or none.

use std::collections::HashSet;
use std::sync::Arc;

use aiproxy_core::{EntityKind, Record};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::desk::{Desk, Told, cuts};
use super::error::{ApiError, ApiResult, Body, ErrorBody, FieldProblem};
use super::schema::CutShown;
use crate::State;
use crate::control::{Cut, Edit};

/// The most ids of one request.
const IDS: usize = 1000;

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(users)).routes(routes!(channels))
}

/// What to do with which.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Bulk {
    /// Ids; one that is unknown fails all.
    #[schema(min_items = 1, max_items = 1000, example = json!(["zhangsan", "lisi"]))]
    ids: Vec<String>,
    action: Action,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[schema(as = BulkAction)]
#[serde(rename_all = "snake_case")]
enum Action {
    Enable,
    Disable,
}

impl Action {
    const fn status(self) -> &'static str {
        match self {
            Self::Enable => "active",
            Self::Disable => "disabled",
        }
    }

    const fn verb(self) -> &'static str {
        match self {
            Self::Enable => "bulk_enable",
            Self::Disable => "bulk_disable",
        }
    }
}

/// What came of it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a schema")]
struct BulkDone {
    /// Ids whose status is another now.
    changed: Vec<String>,
    /// How many had it already.
    unchanged: u64,
    /// What was under way and has been ended.
    cut: Vec<CutShown>,
}

/// Enable or disable many users.
#[utoipa::path(post, path = "/api/v1/users/bulk", tag = "users", request_body = Bulk,
    responses(
        (status = 200, description = "What was done.", body = BulkDone),
        (status = 409, description = "`managed_by_file`", body = ErrorBody),
        (status = 422, description = "Ids that are unknown, or too many.", body = ErrorBody)))]
async fn users(desk: Desk, Body(bulk): Body<Bulk>) -> ApiResult<Told> {
    all(&desk, EntityKind::User, bulk).await
}

/// Enable or disable many channels.
#[utoipa::path(post, path = "/api/v1/channels/bulk", tag = "channels", request_body = Bulk,
    responses(
        (status = 200, description = "What was done.", body = BulkDone),
        (status = 409, description = "`managed_by_file`", body = ErrorBody),
        (status = 422, description = "Ids that are unknown, or too many.", body = ErrorBody)))]
async fn channels(desk: Desk, Body(bulk): Body<Bulk>) -> ApiResult<Told> {
    all(&desk, EntityKind::Channel, bulk).await
}

async fn all(desk: &Desk, kind: EntityKind, Bulk { ids, action }: Bulk) -> ApiResult<Told> {
    if ids.is_empty() || ids.len() > IDS {
        return Err(ApiError::field("ids", format!("1 to {IDS} ids")));
    }
    let mut edit = desk.edit().await?;
    let records = found(&mut edit, kind, &ids).await?;
    let mut changed = Vec::new();
    for record in &records {
        if record.fields.text("status").unwrap_or("active") != action.status() {
            let mut fields = record.fields.clone();
            fields.0.insert("status".into(), action.status().into());
            edit.put(kind, &record.id, fields);
            changed.push(&*record.id);
        }
    }
    if changed.is_empty() {
        return Ok(Told::ok(answer(&[], records.len(), &[])));
    }
    let unchanged = records.len() - changed.len();
    let mut entry = desk.caller.audit(&format!("{kind}.{}", action.verb()), kind.as_str(), "");
    entry.detail = Some(json!({ "status": action.status(), "changed": changed }));
    edit.audit(entry);
    desk.once.keep(&mut edit, StatusCode::OK, &answer(&changed, unchanged, &[]));
    let applied = edit.commit().await?;
    Ok(Told::ok(answer(&changed, unchanged, &applied.cut)))
}

/// Every record, each once; what is missing is told together.
async fn found(edit: &mut Edit, kind: EntityKind, ids: &[String]) -> ApiResult<Vec<Record>> {
    let (mut records, mut problems, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for (at, id) in ids.iter().enumerate() {
        if !seen.insert(id) {
            continue;
        }
        match edit.record(kind, id).await? {
            Some(record) => records.push(record),
            None => problems.push(FieldProblem {
                path: format!("ids[{at}]"),
                message: format!("there is no {kind} `{id}`"),
                suggestion: None,
            }),
        }
    }
    if problems.is_empty() { Ok(records) } else { Err(ApiError::invalid(problems)) }
}

fn answer(changed: &[&str], unchanged: usize, cut: &[Cut]) -> Value {
    json!({ "changed": changed, "unchanged": unchanged, "cut": cuts(cut) })
}
