//! Pages of documents: searched, filtered, sorted.

use aiproxy_core::EntityKind;

use super::dialect::containing;
use super::error::Error;
use super::link::{Link, Statement};
use super::query::{Field, PAGE_LIMIT, Page, Query};
use super::records;
use super::shape::Shape;

/// The page that the query asks for.
pub(super) async fn page(link: &mut Link, query: &Query) -> Result<Page, Error> {
    let shape = Shape::of(query.kind);
    check(query)?;
    let mut statement = link.sql("SELECT COUNT(*) FROM ");
    statement.push(shape.table).push(" e");
    conditions(statement.once(), link, shape, query);
    let total = match link.row(statement).await? {
        Some(row) => u64::try_from(row.int(0)?).unwrap_or_default(),
        None => 0,
    };
    let mut statement = link.sql("SELECT e.id FROM ");
    statement.push(shape.table).push(" e");
    conditions(statement.once(), link, shape, query);
    order(&mut statement, link, query);
    statement.push(" LIMIT ").bind(i64::from(query.limit.min(PAGE_LIMIT)));
    statement.push(" OFFSET ").bind(i64::try_from(query.offset).unwrap_or(i64::MAX));
    let ids = link.rows(statement).await?.iter().map(|row| row.text(0)).collect::<Result<Vec<_>, _>>()?;
    Ok(Page { records: records::these(link, query.kind, &ids).await?, total })
}

fn check(query: &Query) -> Result<(), Error> {
    if query.filters.iter().any(|(field, _)| !field.belongs_to(query.kind)) {
        return Err(Error::Query("this kind has no such field to filter by"));
    }
    if !query.sort.field.belongs_to(query.kind) || !query.sort.field.sorts() {
        return Err(Error::Query("this kind has no such field to sort by"));
    }
    Ok(())
}

fn conditions(statement: &mut Statement, link: &Link, shape: &Shape, query: &Query) {
    statement.push(" WHERE 1 = 1");
    if let Some(text) = query.search.as_deref().filter(|text| !text.is_empty()) {
        search(statement, link, shape.searched, text);
    }
    for (field, value) in &query.filters {
        statement.push(" AND ");
        filter(statement, link, query.kind, *field, value);
    }
}

/// Any of the columns contains the text.
pub(super) fn search(statement: &mut Statement, link: &Link, columns: &[&'static str], text: &str) {
    let Some(pattern) = containing(text) else {
        statement.push(" AND 1 = 0");
        return;
    };
    let (like, end) = link.dialect().like();
    for (index, column) in columns.iter().enumerate() {
        statement.push(if index == 0 { " AND (" } else { " OR " });
        statement.push("e.").push(column).push(like).bind(&pattern).push(end);
    }
    statement.push(")");
}

fn filter(statement: &mut Statement, link: &Link, kind: EntityKind, field: Field, value: &str) {
    match field {
        Field::Group => {
            statement.push("e.id IN (SELECT user_id FROM memberships WHERE group_id = ");
            statement.bind(value).push(")");
        }
        Field::Channel => {
            statement.push("e.id IN (SELECT subject FROM mapping WHERE subject_kind = ").bind(kind.as_str());
            statement.push(" AND channel = ").bind(value).push(")");
        }
        Field::ExpiresAt => {
            statement.push("e.id IN (SELECT subject FROM permissions WHERE subject_kind = ");
            statement.bind(kind.as_str()).push(" AND expires_at = ").bind(value).push(")");
        }
        Field::CreatedAt | Field::UpdatedAt => match value.parse::<i64>() {
            Ok(moment) => {
                statement.push(column(field)).push(" = ").bind(moment);
            }
            Err(_) => {
                statement.push("1 = 0");
            }
        },
        _ => {
            statement.push(column(field)).push(" = ").bind(value);
            if no_case(field) {
                statement.push(link.dialect().no_case());
            }
        }
    }
}

fn order(statement: &mut Statement, link: &Link, query: &Query) {
    statement.push(" ORDER BY ");
    if query.sort.field == Field::ExpiresAt {
        statement
            .push("(SELECT p.expires_at FROM permissions p WHERE p.subject = e.id AND p.subject_kind = ");
        statement.bind(query.kind.as_str()).push(")");
    } else {
        statement.push(column(query.sort.field));
        if no_case(query.sort.field) {
            statement.push(link.dialect().no_case());
        }
    }
    statement.push(if query.sort.descending { " DESC, e.seq" } else { ", e.seq" });
}

/// Texts that people wrote for people.
fn no_case(field: Field) -> bool {
    matches!(field, Field::Name | Field::Department | Field::Email | Field::Phone | Field::EmployeeNumber)
}

/// What a field is in the kind's table; side tables are not meant.
fn column(field: Field) -> &'static str {
    match field {
        Field::Id | Field::Group | Field::Channel | Field::ExpiresAt => "e.id",
        Field::Name => "e.name",
        Field::Department => "e.department",
        Field::Email => "e.email",
        Field::Phone => "e.phone",
        Field::EmployeeNumber => "e.employee_number",
        // What says nothing is active.
        Field::Status => "COALESCE(e.status, 'active')",
        Field::Platform => "e.platform",
        Field::BaseUrl => "e.base_url",
        Field::User => "e.user_id",
        Field::Prefix => "e.prefix",
        Field::CreatedAt => "e.created_at",
        Field::UpdatedAt => "e.updated_at",
    }
}
