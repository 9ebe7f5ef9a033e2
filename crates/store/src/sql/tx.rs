//! The transaction that writes: documents and denials.

use std::time::{SystemTime, UNIX_EPOCH};

use aiproxy_core::{EntityKind, Fields, Record};

use super::error::Error;
use super::link::{Link, Value};
use super::parts::Parts;
use super::records::{self, Scope};
use super::shape::{PERMISSIONS, Shape};
use super::types::{Denial, DenialSubject};

/// Rows that one insert adds.
const CHUNK: usize = 500;

/// A transaction that writes; there is one at a time. Dropped without [`Tx::commit`], it leaves nothing.
///
/// Nothing of a transaction in which a call has failed may be committed: drop it.
#[derive(Debug)]
pub struct Tx {
    pub(super) link: Link,
    revision: i64,
    now: i64,
    changed: bool,
    cleared: bool,
}

impl Tx {
    pub(super) async fn begin(mut link: Link) -> Result<Self, Error> {
        let revision = revision(&mut link).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        Ok(Self { link, revision, now, changed: false, cleared: false })
    }

    /// The revision before this transaction. What it changes carries the next one.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// A document, as this transaction has left it.
    ///
    /// # Errors
    /// As the database.
    pub async fn record(&mut self, kind: EntityKind, id: &str) -> Result<Option<Record>, Error> {
        records::one(&mut self.link, kind, id).await
    }

    /// The keys of a user, as this transaction has left them, oldest first.
    ///
    /// # Errors
    /// As the database.
    pub async fn keys_of(&mut self, user: &str) -> Result<Vec<Record>, Error> {
        records::read(&mut self.link, EntityKind::Key, Scope::Of(user)).await
    }

    /// Adds a document, or replaces it: then its place and `created_at` stay.
    ///
    /// # Errors
    /// `Constraint` where a key's user does not exist, or another key has the digest.
    pub async fn put(&mut self, kind: EntityKind, id: &str, fields: &Fields) -> Result<(), Error> {
        let shape = Shape::of(kind);
        let parts = Parts::of(shape, fields);
        self.changed = true;
        let mut values: Vec<_> =
            shape.columns.iter().copied().zip(parts.columns.iter().copied().map(Value::from)).collect();
        values.extend([
            ("layout", Value::from(&parts.layout)),
            ("more", parts.more.as_deref().into()),
            ("updated_at", self.now.into()),
            ("revision", (self.revision + 1).into()),
        ]);
        let mut update = self.link.updating(shape.table, &values);
        update.push(" WHERE id = ").bind(id);
        if self.link.execute(update).await? == 0 {
            values.extend([("id", id.into()), ("created_at", self.now.into())]);
            self.link.insert(shape.table, &values).await?;
            self.forget_tombstone(kind, id).await?;
        } else {
            self.delete_beside(shape, id).await?;
        }
        self.put_beside(shape, id, &parts).await
    }

    async fn forget_tombstone(&mut self, kind: EntityKind, id: &str) -> Result<(), Error> {
        let mut statement = self.link.sql("DELETE FROM tombstones WHERE kind = ");
        statement.bind(kind.as_str()).push(" AND id = ").bind(id);
        self.link.execute(statement).await.map(drop)
    }

    async fn put_beside(&mut self, shape: &Shape, id: &str, parts: &Parts<'_>) -> Result<(), Error> {
        let kind = shape.kind.as_str();
        if parts.permissions.iter().any(Option::is_some) {
            let mut values = vec![("subject_kind", Value::from(kind)), ("subject", id.into())];
            let permissions = parts.permissions.iter().map(|text| Value::from(text.as_deref()));
            values.extend(PERMISSIONS.into_iter().zip(permissions));
            self.link.insert("permissions", &values).await?;
        }
        for (index, chunk) in parts.members.chunks(CHUNK).enumerate() {
            let mut statement =
                self.link.sql("INSERT INTO memberships (user_id, position, group_id) VALUES ");
            for (at, group) in chunk.iter().enumerate() {
                statement.push(if at == 0 { "(" } else { ", (" }).bind(id);
                statement.push(", ").bind(position(index, at)).push(", ").bind(*group).push(")");
            }
            self.link.execute(statement).await?;
        }
        for (index, chunk) in parts.mapped.chunks(CHUNK).enumerate() {
            let mut statement = self.link.sql(
                "INSERT INTO mapping (subject_kind, subject, position, channel, priority, weight, item) VALUES ",
            );
            for (at, entry) in chunk.iter().enumerate() {
                statement.push(if at == 0 { "(" } else { ", (" }).bind(kind).push(", ").bind(id);
                statement.push(", ").bind(position(index, at)).push(", ").bind(&entry.channel);
                statement.push(", ").bind(entry.priority).push(", ").bind(entry.weight);
                statement.push(", ").bind(entry.item.as_deref()).push(")");
            }
            self.link.execute(statement).await?;
        }
        Ok(())
    }

    async fn delete_beside(&mut self, shape: &Shape, id: &str) -> Result<(), Error> {
        let kind = shape.kind.as_str();
        if !shape.permissions.is_empty() {
            let mut statement = self.link.sql("DELETE FROM permissions WHERE subject_kind = ");
            statement.bind(kind).push(" AND subject = ").bind(id);
            self.link.execute(statement).await?;
        }
        if shape.members {
            let mut statement = self.link.sql("DELETE FROM memberships WHERE user_id = ");
            statement.bind(id);
            self.link.execute(statement).await?;
        }
        if shape.mapped {
            let mut statement = self.link.sql("DELETE FROM mapping WHERE subject_kind = ");
            statement.bind(kind).push(" AND subject = ").bind(id);
            self.link.execute(statement).await?;
        }
        Ok(())
    }

    /// Deletes a document; `false` where there is none. A user's keys go too. What refers to it elsewhere
    /// (memberships, mapping) stays: whoever deletes a group or a channel sees to that.
    ///
    /// # Errors
    /// As the database.
    pub async fn delete(&mut self, kind: EntityKind, id: &str) -> Result<bool, Error> {
        if kind == EntityKind::User {
            let mut statement = self.link.sql("SELECT id FROM proxy_keys WHERE user_id = ");
            statement.bind(id);
            for key in self.link.rows(statement).await? {
                self.delete_one(EntityKind::Key, &key.text(0)?).await?;
            }
        }
        self.delete_one(kind, id).await
    }

    async fn delete_one(&mut self, kind: EntityKind, id: &str) -> Result<bool, Error> {
        let shape = Shape::of(kind);
        self.delete_beside(shape, id).await?;
        let mut statement = self.link.sql("DELETE FROM ");
        statement.push(shape.table).push(" WHERE id = ").bind(id);
        if self.link.execute(statement).await? == 0 {
            return Ok(false);
        }
        if kind == EntityKind::Key {
            let mut statement = self.link.sql("DELETE FROM key_use WHERE key_id = ");
            statement.bind(id);
            self.link.execute(statement).await?;
        }
        self.changed = true;
        let revision = self.revision + 1;
        let values = [("kind", kind.as_str().into()), ("id", id.into()), ("revision", revision.into())];
        self.link.insert("tombstones", &values).await?;
        Ok(true)
    }

    /// Deletes all documents, for an import that replaces them. What is put again has a new place and a new
    /// `created_at`.
    ///
    /// # Errors
    /// As the database.
    pub async fn clear(&mut self) -> Result<(), Error> {
        self.changed = true;
        self.cleared = true;
        // Keys before the users to whom they refer.
        for kind in EntityKind::ALL.into_iter().rev() {
            let shape = Shape::of(kind);
            let mut statement = self.link.sql("INSERT INTO tombstones (kind, id, revision) SELECT ");
            statement.bind(kind.as_str()).push(", id, ").bind(self.revision + 1);
            statement.push(" FROM ").push(shape.table);
            self.link.execute(statement).await?;
            let mut statement = self.link.sql("DELETE FROM ");
            statement.push(shape.table);
            self.link.execute(statement).await?;
        }
        for text in ["DELETE FROM permissions", "DELETE FROM memberships", "DELETE FROM mapping"] {
            let statement = self.link.sql(text);
            self.link.execute(statement).await?;
        }
        Ok(())
    }

    /// Denies; `false`, and nothing changed, where the subject is denied already.
    ///
    /// # Errors
    /// As the database.
    pub async fn deny(&mut self, denial: &Denial) -> Result<bool, Error> {
        let (kind, subject) = denial.subject.parts();
        let mut statement = self.link.sql("SELECT 1 FROM denials WHERE subject_kind = ");
        statement.bind(kind).push(" AND subject = ").bind(&subject);
        if self.link.row(statement).await?.is_some() {
            return Ok(false);
        }
        let values = [
            ("subject_kind", kind.into()),
            ("subject", Value::from(&subject)),
            ("reason", (&denial.reason).into()),
            ("denied_by", (&denial.by).into()),
            ("denied_at", denial.at.into()),
        ];
        self.link.insert("denials", &values).await?;
        self.changed = true;
        Ok(true)
    }

    /// Takes a denial back; `false` where there is none.
    ///
    /// # Errors
    /// As the database.
    pub async fn allow(&mut self, subject: &DenialSubject) -> Result<bool, Error> {
        let (kind, subject) = subject.parts();
        let mut statement = self.link.sql("DELETE FROM denials WHERE subject_kind = ");
        statement.bind(kind).push(" AND subject = ").bind(&subject);
        let gone = self.link.execute(statement).await? > 0;
        self.changed |= gone;
        Ok(gone)
    }

    /// Keeps everything; what was answered `Ok` survives a power loss. The revision that stands now.
    ///
    /// # Errors
    /// As the database: then nothing is kept.
    pub async fn commit(mut self) -> Result<i64, Error> {
        if self.cleared {
            // Keys that did not come back are used no more.
            let text = "DELETE FROM key_use WHERE key_id NOT IN (SELECT id FROM proxy_keys)";
            let statement = self.link.sql(text);
            self.link.execute(statement).await?;
        }
        if self.changed {
            self.revision += 1;
            let mut statement = self.link.updating("meta", &[("value", self.revision.into())]);
            statement.push(" WHERE name = 'revision'");
            self.link.execute(statement).await?;
        }
        self.link.commit().await?;
        Ok(self.revision)
    }
}

/// The revision that the connection sees.
pub(super) async fn revision(link: &mut Link) -> Result<i64, Error> {
    let statement = link.sql("SELECT value FROM meta WHERE name = 'revision'");
    match link.row(statement).await? {
        Some(row) => row.int(0),
        None => Err(Error::Damaged("it has no revision".into())),
    }
}

fn position(chunk: usize, at: usize) -> i64 {
    i64::try_from(chunk * CHUNK + at).unwrap_or(i64::MAX)
}
