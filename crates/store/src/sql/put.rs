//! Writing documents, many with one statement: a statement costs a way to the driver's thread and back.

use std::collections::HashSet;

use aiproxy_core::{EntityKind, Fields};

use super::error::Error;
use super::link::{Link, Statement, Value};
use super::parts::Parts;
use super::shape::{PERMISSIONS, Shape};
use super::tx::Tx;

/// Documents that are written at once.
const DOCUMENTS: usize = 100;
/// Rows of a side table that one insert adds.
const ROWS: usize = 500;

/// A document that is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Put {
    /// What it describes.
    pub kind: EntityKind,
    /// Its id.
    pub id: String,
    /// What it says.
    pub fields: Fields,
}

impl Tx {
    /// Adds a document, or replaces it: then its place and `created_at` stay.
    ///
    /// # Errors
    /// `Constraint` where a key's user does not exist, or another key has the digest.
    pub async fn put(&mut self, kind: EntityKind, id: &str, fields: &Fields) -> Result<(), Error> {
        let parts = Parts::of(Shape::of(kind), fields);
        self.write_documents(Shape::of(kind), &[(id, parts)]).await
    }

    /// As [`Tx::put`], one after the other, in a fraction of the time.
    ///
    /// # Errors
    /// As [`Tx::put`].
    pub async fn put_all(&mut self, puts: &[Put]) -> Result<(), Error> {
        let mut rest = puts;
        while let Some(first) = rest.first() {
            // One statement writes no document twice.
            let mut seen = HashSet::new();
            let together = rest
                .iter()
                .take(DOCUMENTS)
                .take_while(|put| put.kind == first.kind && seen.insert(put.id.as_str()));
            let count = together.count();
            let (now, later) = rest.split_at(count);
            let shape = Shape::of(first.kind);
            let parts: Vec<_> =
                now.iter().map(|put| (put.id.as_str(), Parts::of(shape, &put.fields))).collect();
            self.write_documents(shape, &parts).await?;
            rest = later;
        }
        Ok(())
    }

    async fn write_documents(&mut self, shape: &Shape, documents: &[Document<'_>]) -> Result<(), Error> {
        self.changed = true;
        let ids: Vec<_> = documents.iter().map(|(id, _)| *id).collect();
        let mut columns = vec!["id", "created_at", "updated_at", "revision", "layout", "more"];
        columns.extend(shape.columns);
        let mut statement = inserting(&self.link, shape.table, &columns, documents.len());
        rows(&mut statement, documents, |statement, (id, parts)| {
            statement.bind(*id).push(", ").bind(self.now).push(", ").bind(self.now);
            statement.push(", ").bind(self.revision + 1);
            statement.push(", ").bind(&parts.layout).push(", ").bind(parts.more.as_deref());
            for column in &parts.columns {
                statement.push(", ").bind(*column);
            }
        });
        // What comes after `created_at` is replaced.
        self.link.dialect().or_update(&mut statement, &columns[..1], &columns[2..]);
        self.link.execute(statement).await?;
        let mut statement = self.link.sql("DELETE FROM tombstones WHERE kind = ");
        statement.bind(shape.kind.as_str()).push(" AND id IN ").list(ids.iter().copied());
        self.link.execute(statement).await?;
        delete_beside(&mut self.link, shape, &ids).await?;
        insert_beside(&mut self.link, shape, documents).await
    }
}

type Document<'a> = (&'a str, Parts<'a>);

/// Deletes what side tables hold of these documents.
pub(super) async fn delete_beside(link: &mut Link, shape: &Shape, ids: &[&str]) -> Result<(), Error> {
    let kind = shape.kind.as_str();
    if !shape.permissions.is_empty() {
        let mut statement = link.sql("DELETE FROM permissions WHERE subject_kind = ");
        statement.bind(kind).push(" AND subject IN ").list(ids.iter().copied());
        link.execute(statement).await?;
    }
    if shape.members {
        let mut statement = link.sql("DELETE FROM memberships WHERE user_id IN ");
        statement.list(ids.iter().copied());
        link.execute(statement).await?;
    }
    if shape.mapped {
        let mut statement = link.sql("DELETE FROM mapping WHERE subject_kind = ");
        statement.bind(kind).push(" AND subject IN ").list(ids.iter().copied());
        link.execute(statement).await?;
    }
    Ok(())
}

async fn insert_beside(link: &mut Link, shape: &Shape, documents: &[Document<'_>]) -> Result<(), Error> {
    let kind = shape.kind.as_str();
    let permitted: Vec<_> =
        documents.iter().filter(|(_, parts)| parts.permissions.iter().any(Option::is_some)).collect();
    if !permitted.is_empty() {
        let mut columns = vec!["subject_kind", "subject"];
        columns.extend(PERMISSIONS);
        let mut statement = inserting(link, "permissions", &columns, permitted.len());
        rows(&mut statement, permitted, |statement, (id, parts)| {
            statement.bind(kind).push(", ").bind(*id);
            for permission in &parts.permissions {
                statement.push(", ").bind(permission.as_deref());
            }
        });
        link.execute(statement).await?;
    }
    let members: Vec<_> = documents.iter().flat_map(|(id, parts)| numbered(id, &parts.members)).collect();
    for chunk in members.chunks(ROWS) {
        let mut statement = inserting(link, "memberships", &["user_id", "position", "group_id"], chunk.len());
        rows(&mut statement, chunk, |statement, (id, position, group)| {
            statement.bind(*id).push(", ").bind(*position).push(", ").bind(**group);
        });
        link.execute(statement).await?;
    }
    let mapped: Vec<_> = documents.iter().flat_map(|(id, parts)| numbered(id, &parts.mapped)).collect();
    for chunk in mapped.chunks(ROWS) {
        let columns = ["subject_kind", "subject", "position", "channel", "priority", "weight", "item"];
        let mut statement = inserting(link, "mapping", &columns, chunk.len());
        rows(&mut statement, chunk, |statement, (id, position, entry)| {
            statement.bind(kind).push(", ").bind(*id).push(", ").bind(*position);
            statement.push(", ").bind(&entry.channel);
            for value in [Value::from(entry.priority), entry.weight.into(), entry.item.as_deref().into()] {
                statement.push(", ").bind(value);
            }
        });
        link.execute(statement).await?;
    }
    Ok(())
}

/// A document's entries with their places.
fn numbered<T>(id: &str, entries: impl IntoIterator<Item = T>) -> impl Iterator<Item = (&str, i64, T)> {
    (0_i64..).zip(entries).map(move |(position, entry)| (id, position, entry))
}

/// The beginning of an insert; its rows are to follow.
fn inserting(link: &Link, table: &'static str, columns: &[&'static str], count: usize) -> Statement {
    let mut statement = link.sql("INSERT INTO ");
    statement.push(table).push(" (").names(columns).push(") VALUES ");
    if count > 1 {
        statement.once();
    }
    statement
}

fn rows<T>(
    statement: &mut Statement,
    values: impl IntoIterator<Item = T>,
    mut bind: impl FnMut(&mut Statement, T),
) {
    for (index, value) in values.into_iter().enumerate() {
        statement.push(if index == 0 { "(" } else { ", (" });
        bind(statement, value);
        statement.push(")");
    }
}
