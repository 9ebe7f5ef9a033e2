//! Users from a table: `POST users/import` with CSV, as Excel and HR systems write it.
//!
//! All rows or none. Every row that is wrong is told with its line and column. Cells are text, also those
//! that a spreadsheet would take for formulas.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use aiproxy_core::{EntityKind, Fields, Record};
use axum::body::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::desk::{Desk, Told};
use super::error::{ApiError, ApiResult, ErrorBody, FieldProblem, Params};
use super::table::{self, Row};
use crate::State;
use crate::control::Edit;

/// Bytes of a table.
pub(crate) const BYTES: usize = 16 << 20;
/// Problems that are told.
const PROBLEMS: usize = 1000;

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(import))
}

/// What to do with the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[schema(as = ImportMode)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Each row is a new user.
    #[default]
    Create,
    /// A row whose id is there changes that user; cells that are empty change nothing.
    Upsert,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ImportQuery {
    /// `create`, the default: each row is a new user. `upsert`: a row whose id is there changes that user;
    /// cells that are empty change nothing.
    #[param(inline)]
    mode: Option<Mode>,
    /// Only tell what would be done.
    dry_run: Option<bool>,
    /// The encoding, by its name on the web (`gb18030`, `utf-8`); without it, what the bytes look like.
    #[param(max_length = 40, example = "gb18030")]
    encoding: Option<String>,
}

/// What came of it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a schema")]
struct Imported {
    created: u64,
    updated: u64,
    unchanged: u64,
    dry_run: bool,
    rows: Vec<RowDone>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct RowDone {
    /// Line of the table, the first being 1.
    line: u64,
    /// The user's id.
    id: String,
    /// `created`, `updated` or `unchanged`.
    action: &'static str,
}

/// Make or change users from a CSV table. The first line names the columns, in English or Chinese: id 编号,
/// name 姓名, department 部门, email 邮箱, phone 电话, employee_number 工号, notes 备注, status 状态 (启用 or
/// 停用), groups 用户组 and channels 渠道 (`;` between them).
#[utoipa::path(post, path = "/api/v1/users/import", tag = "users",
    request_body(content = String, content_type = "text/csv", example = "编号,姓名,部门\nzhangsan,张三,研发部\n"),
    params(ImportQuery),
    responses(
        (status = 200, description = "What was done.", body = Imported),
        (status = 409, description = "`managed_by_file`", body = ErrorBody),
        (status = 422, description = "Every row that is wrong, with line and column. Nothing was done.", body = ErrorBody)))]
async fn import(
    desk: Desk,
    Params(query): Params<ImportQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> ApiResult<Told> {
    let charset = csv_charset(&headers)?;
    let encoding = query.encoding.as_deref().or(charset.as_deref());
    let mut edit = desk.edit().await?;
    let rows = table::read(&body, encoding)?;
    let mode = query.mode.unwrap_or_default();
    let done = apply(&desk, &mut edit, &rows, mode).await?;
    let count = |action: &str| done.iter().filter(|row| row.action == action).count();
    let (created, updated) = (count("created"), count("updated"));
    let dry_run = query.dry_run.unwrap_or_default();
    let answer = json!({
        "created": created, "updated": updated, "unchanged": count("unchanged"), "dry_run": dry_run, "rows": done,
    });
    let lines: HashMap<&str, u64> = done.iter().map(|row| (&*row.id, row.line)).collect();
    if dry_run {
        edit.check().map_err(|refused| at_lines(refused, &lines))?;
        return Ok(Told::ok(answer));
    }
    if created + updated > 0 {
        let mut entry = desk.caller.audit("user.import", "user", "");
        let changed = done.iter().filter(|row| row.action != "unchanged").map(|row| &row.id);
        entry.detail = Some(json!({
            "created": created, "updated": updated, "ids": changed.take(PROBLEMS).collect::<Vec<_>>(),
        }));
        edit.audit(entry);
        desk.once.keep(&mut edit, StatusCode::OK, &answer);
        edit.commit().await.map_err(|refused| at_lines(refused, &lines))?;
    }
    Ok(Told::ok(answer))
}

/// The charset that the body is said to have.
fn csv_charset(headers: &HeaderMap) -> ApiResult<Option<String>> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = given.split(';').map(str::trim);
    if !parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("text/csv")) {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "The body has to be CSV: `content-type: text/csv`.",
        ));
    }
    let charset =
        parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.eq_ignore_ascii_case("charset"));
    Ok(charset.map(|(_, value)| value.trim_matches('"').to_owned()))
}

/// Puts every row into the edit.
async fn apply(desk: &Desk, edit: &mut Edit, rows: &[Row], mode: Mode) -> ApiResult<Vec<RowDone>> {
    let known = Known::of(&desk.state).await?;
    let (mut done, mut problems) = (Vec::with_capacity(rows.len()), Vec::new());
    let mut seen: HashMap<&str, u64> = HashMap::new();
    for row in rows {
        let found = problems.len();
        problems.extend(row.problems.iter().map(|problem| row.problem(problem.column, &problem.message)));
        problems.extend(known.problems(row));
        if let Some(id) = row.id()
            && let Some(before) = seen.insert(id, row.line)
        {
            problems.push(row.problem("id", &format!("`{id}` stands in line {before} as well")));
            continue;
        }
        let old = row.id().and_then(|id| known.users.get(id));
        match (mode, old, row.id()) {
            (Mode::Create, Some(old), _) => {
                problems.push(row.problem("id", &format!("there is a user `{}` already", old.id)));
            }
            (Mode::Upsert, _, None) => problems.push(row.problem("id", "it is required to change users")),
            (Mode::Create, None, _) | (Mode::Upsert, _, Some(_)) => {}
        }
        if problems.len() > PROBLEMS {
            break;
        }
        if problems.len() == found {
            done.push(put(edit, row, old));
        }
    }
    if problems.is_empty() { Ok(done) } else { Err(refused(problems)) }
}

fn refused(mut problems: Vec<FieldProblem>) -> ApiError {
    problems.truncate(PROBLEMS);
    let message = format!("{} cells are wrong. Nothing was changed.", problems.len());
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message).with(problems)
}

fn put(edit: &mut Edit, row: &Row, old: Option<&Record>) -> RowDone {
    let line = row.line;
    let id = row.id().map_or_else(super::users::fresh_id, str::to_owned);
    let (before, action) = match old {
        Some(old) => (old.fields.clone(), "updated"),
        None => (Fields::default(), "created"),
    };
    let mut fields = before.clone();
    if action == "created" {
        fields.0.insert("status".into(), "active".into());
    }
    for (name, value) in row.values() {
        fields.0.insert(name.into(), value);
    }
    if fields == before {
        return RowDone { line, id, action: "unchanged" };
    }
    edit.put(EntityKind::User, &id, fields);
    RowDone { line, id, action }
}

/// What rows may change, and refer to. While an edit is open nobody else changes it.
struct Known {
    users: HashMap<String, Record>,
    groups: HashSet<String>,
    channels: HashSet<String>,
}

impl Known {
    async fn of(state: &State) -> ApiResult<Self> {
        let ids = async |kind| -> ApiResult<HashSet<String>> {
            Ok(super::documents::all(state, kind).await?.into_iter().map(|record| record.id).collect())
        };
        let users = super::documents::all(state, EntityKind::User).await?;
        let users = users.into_iter().map(|user| (user.id.clone(), user)).collect();
        Ok(Self { users, groups: ids(EntityKind::Group).await?, channels: ids(EntityKind::Channel).await? })
    }

    fn problems(&self, row: &Row) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        for (column, known, kind) in
            [("groups", &self.groups, "group"), ("channels", &self.channels, "channel")]
        {
            for id in row.ids(column) {
                if !known.contains(id) {
                    problems.push(row.problem(column, &format!("there is no {kind} `{id}`")));
                }
            }
        }
        problems
    }
}

/// What the catalog has to say about a user is said about its line.
fn at_lines(refused: crate::control::Refused, lines: &HashMap<&str, u64>) -> ApiError {
    use crate::control::Refused;
    let Refused::Invalid(faults) = refused else { return refused.into() };
    let problem = |fault: aiproxy_config::entity::Fault| FieldProblem {
        path: match lines.get(&*fault.id) {
            Some(line) => format!("line {line}, {}", fault.path),
            None => format!("{}.{}", fault.id, fault.path),
        },
        message: fault.message,
        suggestion: fault.suggestion,
    };
    self::refused(faults.into_iter().map(problem).collect())
}
