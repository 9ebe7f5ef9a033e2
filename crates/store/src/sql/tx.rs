//! The transaction that writes: what it has seen, deletions, denials.

use std::time::{SystemTime, UNIX_EPOCH};

use aiproxy_core::{EntityKind, Record};

use super::error::Error;
use super::link::{Link, Value};
use super::put;
use super::records::{self, Scope};
use super::shape::Shape;
use super::types::{Denial, DenialSubject};

/// A transaction that writes; there is one at a time. Dropped without [`Tx::commit`], it leaves nothing.
///
/// When one of its calls has failed, all later ones fail, [`Tx::commit`] too: ask before whatever may be
/// refused.
#[derive(Debug)]
pub struct Tx {
    pub(super) link: Link,
    pub(super) revision: i64,
    /// Unix time, seconds.
    pub(super) now: i64,
    pub(super) changed: bool,
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
        put::delete_beside(&mut self.link, shape, &[id]).await?;
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
