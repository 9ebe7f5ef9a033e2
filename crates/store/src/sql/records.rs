//! Reading documents: one query for the documents of a kind and one for each side table, however many
//! there are.

use std::collections::HashMap;

use aiproxy_core::{EntityKind, Record};

use super::error::Error;
use super::link::{Link, Row, Statement};
use super::parts::{Mapped, Side, join};
use super::shape::{PERMISSIONS, Shape};

/// How many ids one statement names.
const CHUNK: usize = 500;

/// Which documents of a kind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scope<'a> {
    All,
    One(&'a str),
    Ids(&'a [String]),
    /// Changed after this revision.
    Since(i64),
    /// Keys of this user.
    Of(&'a str),
}

impl Scope<'_> {
    /// The condition on the kind's table.
    fn condition(self, statement: &mut Statement) {
        match self {
            Self::All => statement.push("1 = 1"),
            Self::One(id) => statement.push("id = ").bind(id),
            Self::Ids(ids) => statement.push("id IN ").list(ids.iter().map(String::as_str)),
            Self::Since(revision) => statement.push("revision > ").bind(revision),
            Self::Of(user) => statement.push("user_id = ").bind(user),
        };
    }

    /// The condition on a side table, whose column `subject` names the document.
    fn beside(self, statement: &mut Statement, shape: &Shape, subject: &'static str) {
        if !matches!(self, Self::All) {
            statement
                .push(" AND ")
                .push(subject)
                .push(" IN (SELECT id FROM ")
                .push(shape.table)
                .push(" WHERE ");
            self.condition(statement);
            statement.push(")");
        }
    }
}

/// One document.
pub(super) async fn one(link: &mut Link, kind: EntityKind, id: &str) -> Result<Option<Record>, Error> {
    Ok(read(link, kind, Scope::One(id)).await?.pop())
}

/// Documents in the order in which they came.
pub(super) async fn read(link: &mut Link, kind: EntityKind, scope: Scope<'_>) -> Result<Vec<Record>, Error> {
    let shape = Shape::of(kind);
    let mut statement = link.sql("SELECT id, layout, more, created_at, updated_at, revision, ");
    statement.names(shape.columns).push(" FROM ").push(shape.table).push(" WHERE ");
    scope.condition(&mut statement);
    statement.push(" ORDER BY seq");
    let rows = link.rows(statement).await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut sides = HashMap::new();
    permissions(link, shape, scope, &mut sides).await?;
    members(link, shape, scope, &mut sides).await?;
    mapped(link, shape, scope, &mut sides).await?;
    rows.iter().map(|row| record(shape, row, &mut sides)).collect()
}

/// These documents, in the order of the ids; ids without a document are left out.
pub(super) async fn these(link: &mut Link, kind: EntityKind, ids: &[String]) -> Result<Vec<Record>, Error> {
    let mut found = HashMap::with_capacity(ids.len());
    for chunk in ids.chunks(CHUNK) {
        for record in read(link, kind, Scope::Ids(chunk)).await? {
            found.insert(record.id.clone(), record);
        }
    }
    Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
}

type Sides = HashMap<String, Side>;

fn record(shape: &Shape, row: &Row, sides: &mut Sides) -> Result<Record, Error> {
    let id = row.text(0)?;
    let side = sides.remove(&id).unwrap_or_default();
    let columns = (0..shape.columns.len()).map(|at| row.maybe_text(6 + at)).collect::<Result<_, _>>()?;
    Ok(Record {
        kind: shape.kind,
        fields: join(shape, columns, side, &row.text(1)?, row.maybe_text(2)?.as_deref())?,
        id,
        created_at: row.int(3)?,
        updated_at: row.int(4)?,
        revision: row.int(5)?,
    })
}

async fn permissions(
    link: &mut Link,
    shape: &Shape,
    scope: Scope<'_>,
    sides: &mut Sides,
) -> Result<(), Error> {
    if shape.permissions.is_empty() {
        return Ok(());
    }
    let mut statement = link.sql("SELECT subject, ");
    statement.names(&PERMISSIONS).push(" FROM permissions WHERE subject_kind = ").bind(shape.kind.as_str());
    scope.beside(&mut statement, shape, "subject");
    for row in link.rows(statement).await? {
        let side = sides.entry(row.text(0)?).or_default();
        for (at, permission) in side.permissions.iter_mut().enumerate() {
            *permission = row.maybe_text(1 + at)?;
        }
    }
    Ok(())
}

async fn members(link: &mut Link, shape: &Shape, scope: Scope<'_>, sides: &mut Sides) -> Result<(), Error> {
    if !shape.members {
        return Ok(());
    }
    let mut statement = link.sql("SELECT user_id, group_id FROM memberships WHERE 1 = 1");
    scope.beside(&mut statement, shape, "user_id");
    statement.push(" ORDER BY user_id, position");
    for row in link.rows(statement).await? {
        sides.entry(row.text(0)?).or_default().members.push(row.text(1)?);
    }
    Ok(())
}

async fn mapped(link: &mut Link, shape: &Shape, scope: Scope<'_>, sides: &mut Sides) -> Result<(), Error> {
    if !shape.mapped {
        return Ok(());
    }
    let mut statement =
        link.sql("SELECT subject, channel, priority, weight, item FROM mapping WHERE subject_kind = ");
    statement.bind(shape.kind.as_str());
    scope.beside(&mut statement, shape, "subject");
    statement.push(" ORDER BY subject, position");
    for row in link.rows(statement).await? {
        sides.entry(row.text(0)?).or_default().mapped.push(Mapped {
            channel: row.text(1)?,
            priority: row.maybe_int(2)?,
            weight: row.maybe_int(3)?,
            item: row.maybe_text(4)?,
        });
    }
    Ok(())
}
