//! A CSV table of users: its encoding, its columns, its rows.

use encoding_rs::{Encoding, GB18030, UTF_8};
use serde_json::Value;

use super::error::{ApiError, ApiResult, FieldProblem};

/// The most rows.
const ROWS: usize = 100_000;
/// Characters of a cell.
const CELL: usize = 2000;

/// Columns: the field, and what people call it.
const COLUMNS: &[(&str, &[&str])] = &[
    ("id", &["id", "编号", "用户编号", "用户id", "账号"]),
    ("name", &["name", "姓名", "名称", "用户名"]),
    ("department", &["department", "部门"]),
    ("email", &["email", "e-mail", "mail", "邮箱", "电子邮箱", "邮件"]),
    ("phone", &["phone", "mobile", "电话", "手机", "手机号", "联系电话"]),
    ("employee_number", &["employee_number", "employee number", "employee_no", "工号", "员工编号"]),
    ("notes", &["notes", "note", "备注", "说明"]),
    ("status", &["status", "状态"]),
    ("groups", &["groups", "group", "用户组", "分组", "组"]),
    ("channels", &["channels", "channel", "渠道", "通道"]),
];

/// One row.
#[derive(Debug)]
pub(crate) struct Row {
    /// Line of the table, the first being 1.
    pub(crate) line: u64,
    cells: Vec<(&'static str, usize, String)>,
    pub(crate) problems: Vec<Problem>,
}

/// What is wrong with a cell by itself.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) column: &'static str,
    pub(crate) message: String,
}

impl Row {
    fn cell(&self, column: &str) -> Option<&str> {
        let cell = self.cells.iter().find(|(name, ..)| *name == column);
        cell.map(|(.., text)| &**text).filter(|text| !text.is_empty())
    }

    pub(crate) fn id(&self) -> Option<&str> {
        self.cell("id")
    }

    /// The ids of a cell that lists some.
    pub(crate) fn ids(&self, column: &str) -> impl Iterator<Item = &str> {
        let cell = self.cell(column).unwrap_or_default();
        cell.split([';', '；']).map(str::trim).filter(|id| !id.is_empty())
    }

    /// The document's fields that the row says something about.
    pub(crate) fn values(&self) -> Vec<(&'static str, Value)> {
        let mut values = Vec::new();
        for (name, _, text) in &self.cells {
            let value = match *name {
                _ if text.is_empty() => continue,
                "id" => continue,
                "status" => match status(text) {
                    Some(status) => status.into(),
                    None => continue,
                },
                "groups" | "channels" => self.ids(name).map(Value::from).collect(),
                _ => Value::from(&**text),
            };
            values.push((*name, value));
        }
        values
    }

    /// A problem with a cell, by its place.
    pub(crate) fn problem(&self, column: &str, message: &str) -> FieldProblem {
        let at = self.cells.iter().find(|(name, ..)| *name == column).map(|(_, at, _)| at + 1);
        let path = match at {
            Some(at) => format!("line {}, column {at} ({column})", self.line),
            None => format!("line {} ({column})", self.line),
        };
        FieldProblem { path, message: message.to_owned(), suggestion: None }
    }
}

fn status(text: &str) -> Option<&'static str> {
    match &*text.to_lowercase() {
        "active" | "enabled" | "启用" | "正常" | "在职" => Some("active"),
        "disabled" | "inactive" | "停用" | "禁用" | "离职" => Some("disabled"),
        _ => None,
    }
}

/// Reads a table.
///
/// # Errors
/// 422 when the bytes are no text, the columns are not known, or there are too many rows. What is wrong
/// with one row stands in the row.
pub(crate) fn read(bytes: &[u8], encoding: Option<&str>) -> ApiResult<Vec<Row>> {
    let text = decode(bytes, encoding)?;
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut records = reader.records();
    let broken = |error: &csv::Error| {
        let line = error.position().map_or(0, csv::Position::line);
        ApiError::field(&format!("line {line}"), "this is no CSV")
    };
    let Some(first) = records.next() else {
        return Err(ApiError::field("line 1", "the names of the columns are missing"));
    };
    let columns = columns(&first.map_err(|error| broken(&error))?)?;
    let (mut rows, mut lines) = (Vec::new(), Lines { text: &text, at: 0, line: 1 });
    for record in records {
        let record = record.map_err(|error| broken(&error))?;
        if record.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        if rows.len() == ROWS {
            return Err(ApiError::field("", format!("a table has at most {ROWS} rows")));
        }
        let line = lines.of(record.position().map_or(0, csv::Position::byte));
        rows.push(row(line, &record, &columns));
    }
    if rows.is_empty() {
        return Err(ApiError::field("line 2", "there are no rows"));
    }
    Ok(rows)
}

/// What the bytes say: the encoding that is named, or that of the byte order mark, or UTF-8, or GB18030,
/// which has GBK and GB 2312 in it.
fn decode(bytes: &[u8], named: Option<&str>) -> ApiResult<String> {
    let wrong = |message: String| ApiError::field("encoding", message);
    let named = match named {
        Some(name) => Some(
            Encoding::for_label(name.as_bytes()).ok_or_else(|| wrong("there is no such encoding".into()))?,
        ),
        None => None,
    };
    let marked = Encoding::for_bom(bytes);
    let (encoding, bytes) = match (marked, named) {
        (Some((encoding, length)), _) => (encoding, bytes.get(length..).unwrap_or_default()),
        (None, Some(encoding)) => (encoding, bytes),
        (None, None) if std::str::from_utf8(bytes).is_ok() => (UTF_8, bytes),
        (None, None) => (GB18030, bytes),
    };
    encoding
        .decode_without_bom_handling_and_without_replacement(bytes)
        .map(std::borrow::Cow::into_owned)
        .filter(|text| !text.contains('\0'))
        .ok_or_else(|| wrong(format!("the table is not {}; name its encoding", encoding.name())))
}

/// Which column is which field.
fn columns(names: &csv::StringRecord) -> ApiResult<Vec<&'static str>> {
    let (mut columns, mut problems) = (Vec::new(), Vec::new());
    for (at, name) in names.iter().enumerate() {
        let clean = name.trim().to_lowercase();
        let field = COLUMNS.iter().find(|(_, names)| names.contains(&&*clean)).map(|(field, _)| *field);
        let message = match field {
            None => format!("there is no such column; known are {}", known()),
            Some(field) if columns.contains(&field) => "this column is there twice".to_owned(),
            Some(field) => {
                columns.push(field);
                continue;
            }
        };
        problems.push(FieldProblem { path: format!("line 1, column {}", at + 1), message, suggestion: None });
    }
    if problems.is_empty() { Ok(columns) } else { Err(ApiError::invalid(problems)) }
}

fn known() -> String {
    let names = COLUMNS.iter().map(|(field, names)| {
        let chinese = names.iter().find(|name| !name.is_ascii()).copied().unwrap_or_default();
        format!("{field} {chinese}")
    });
    names.collect::<Vec<_>>().join(", ")
}

/// Counts lines as people see them: the reader's own count stands still at line ends that it skips.
struct Lines<'t> {
    text: &'t str,
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of the first cell behind this byte. Later ones ask with later bytes.
    fn of(&mut self, byte: u64) -> u64 {
        let from = usize::try_from(byte).unwrap_or(usize::MAX);
        let bytes = self.text.as_bytes();
        let skipped = bytes.iter().skip(from).take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let start = (from + skipped).min(bytes.len());
        let passed = bytes.get(self.at..start).unwrap_or_default();
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.at = self.at.max(start);
        self.line
    }
}

fn row(line: u64, record: &csv::StringRecord, columns: &[&'static str]) -> Row {
    let mut cells = Vec::new();
    let mut problems = Vec::new();
    for (at, text) in record.iter().enumerate() {
        let text = text.trim();
        let Some(column) = columns.get(at).copied() else {
            if !text.is_empty() {
                problems.push(Problem {
                    column: "more",
                    message: "the row has more cells than the table has columns".into(),
                });
            }
            continue;
        };
        if text.chars().count() > CELL {
            problems.push(Problem { column, message: format!("a cell has at most {CELL} characters") });
        }
        if column == "status" && !text.is_empty() && status(text).is_none() {
            problems.push(Problem { column, message: "`active` 启用 or `disabled` 停用".into() });
        }
        cells.push((column, at, text.to_owned()));
    }
    Row { line, cells, problems }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
