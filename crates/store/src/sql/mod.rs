//! The database of the control plane: documents, denials, the audit, who may sign in.
//!
//! One connection writes, each transaction taking the lock at its beginning; four read and never wait for
//! it. All documents share one revision, which counts up with each transaction that changes any of them.
//! A [`Store`] is used within a Tokio runtime.
//!
//! - `open`: the file, its mode, its schema
//! - `link`: statements, connections and rows of whichever database; `dialect`: where databases differ
//! - `shape`: where each field is kept; `parts`: a document taken apart and put together
//! - `records`: reading documents; `list`: pages of them; `tx`, `put`: writing them
//! - `accounts`, `audit`, `notes`: everything else
//! - `types`, `query`, `error`: the words

mod accounts;
mod audit;
mod dialect;
mod error;
mod link;
mod list;
mod notes;
mod open;
mod parts;
mod put;
mod query;
mod records;
mod shape;
#[cfg(test)]
mod tests;
mod tx;
mod types;

use std::path::Path;

use aiproxy_core::{EntityKind, Record};

pub use error::{Error, OpenError};
pub use put::Put;
pub use query::{AuditPage, AuditQuery, Field, PAGE_LIMIT, Page, Query, Sort};
pub use tx::Tx;
pub use types::{
    Actor, Administrator, AuditEntry, AuditRecord, Changes, Denial, DenialSubject, Idempotent, Lockout,
    Migration, Session, Token,
};

use link::{Link, Pool};
use records::Scope;

/// A database that is open. Copies are the same one.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Pool,
}

impl Store {
    /// Opens the SQLite file, or makes it (mode 0600, folders above it 0700), and brings its schema up to
    /// date.
    ///
    /// # Errors
    /// When the file is none of ours, is of a newer program, or cannot be used. It is as it was then.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self { pool: open::open(path, open::PATIENCE).await? })
    }

    /// The steps of the schema, first to last, and which of them the file has. Changes nothing; a file that
    /// is not there has none.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn migrations(path: &Path) -> Result<Vec<Migration>, OpenError> {
        open::migrations(path).await
    }

    /// The revision of the documents and denials.
    ///
    /// # Errors
    /// As the database.
    pub async fn revision(&self) -> Result<i64, Error> {
        tx::revision(&mut self.pool.read().await?).await
    }

    /// The revision and all documents of one moment: by kind, in the order of [`EntityKind::ALL`], then as
    /// they came.
    ///
    /// # Errors
    /// As the database.
    pub async fn all(&self) -> Result<(i64, Vec<Record>), Error> {
        let mut link = self.pool.read().await?;
        let revision = tx::revision(&mut link).await?;
        let mut all = Vec::new();
        for kind in EntityKind::ALL {
            all.append(&mut records::read(&mut link, kind, Scope::All).await?);
        }
        Ok((revision, all))
    }

    /// What has changed since a revision, in the order of [`Store::all`].
    ///
    /// # Errors
    /// As the database.
    pub async fn changes_since(&self, revision: i64) -> Result<Changes, Error> {
        let mut link = self.pool.read().await?;
        let now = tx::revision(&mut link).await?;
        let mut changed = Vec::new();
        for kind in EntityKind::ALL {
            changed.append(&mut records::read(&mut link, kind, Scope::Since(revision)).await?);
        }
        let mut statement = link.sql("SELECT kind, id FROM tombstones WHERE revision > ");
        statement.bind(revision).push(" ORDER BY revision, kind, id");
        let mut deleted = Vec::new();
        for row in link.rows(statement).await? {
            let kind = EntityKind::parse(&row.text(0)?).ok_or_else(|| Error::Damaged("a kind".into()))?;
            deleted.push((kind, row.text(1)?));
        }
        let denials = denials(&mut link).await?;
        Ok(Changes { revision: now, changed, deleted, denials })
    }

    /// A document.
    ///
    /// # Errors
    /// As the database.
    pub async fn record(&self, kind: EntityKind, id: &str) -> Result<Option<Record>, Error> {
        records::one(&mut self.pool.read().await?, kind, id).await
    }

    /// The keys of a user, oldest first.
    ///
    /// # Errors
    /// As the database.
    pub async fn keys_of(&self, user: &str) -> Result<Vec<Record>, Error> {
        records::read(&mut self.pool.read().await?, EntityKind::Key, Scope::Of(user)).await
    }

    /// A page of documents.
    ///
    /// # Errors
    /// `Query` where the kind has no such field.
    pub async fn list(&self, query: &Query) -> Result<Page, Error> {
        list::page(&mut self.pool.read().await?, query).await
    }

    /// All denials, oldest first.
    ///
    /// # Errors
    /// As the database.
    pub async fn denials(&self) -> Result<Vec<Denial>, Error> {
        denials(&mut self.pool.read().await?).await
    }

    /// Begins to write. Waits for whoever writes, up to ten seconds.
    ///
    /// # Errors
    /// `Busy` after that.
    pub async fn write(&self) -> Result<Tx, Error> {
        Tx::begin(self.pool.write().await?).await
    }

    /// Waits for those who use the database, and closes it. Later calls are `Unavailable`.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

async fn denials(link: &mut Link) -> Result<Vec<Denial>, Error> {
    let statement = link.sql(
        "SELECT subject_kind, subject, reason, denied_by, denied_at FROM denials \
         ORDER BY denied_at, subject_kind, subject",
    );
    let rows = link.rows(statement).await?;
    let denial = |row: &link::Row| {
        let subject = DenialSubject::of_parts(&row.text(0)?, row.text(1)?);
        let subject = subject.ok_or_else(|| Error::Damaged("the subject of a denial".into()))?;
        Ok(Denial { subject, reason: row.text(2)?, by: row.text(3)?, at: row.int(4)? })
    };
    rows.iter().map(denial).collect()
}

/// Reads what this program wrote as JSON.
fn json<T: serde::de::DeserializeOwned>(text: &str, what: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|_| Error::Damaged(what.into()))
}
