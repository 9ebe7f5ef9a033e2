//! One change of documents.

use std::sync::Arc;

use aiproxy_config::catalog::Edit as Change;
use aiproxy_core::{EntityKind, Fields, Record};
use aiproxy_store::{AuditEntry, Idempotent, Put, Tx};
use tokio::sync::OwnedMutexGuard;

use super::cut::{Cut, Watch};
use super::{Control, Inner, Refused, failed};

/// What a change did.
#[derive(Debug)]
pub struct Applied {
    /// The database's revision now.
    pub revision: i64,
    /// What was under way and may not go on.
    pub cut: Vec<Cut>,
}

/// A change that is being put together. Dropped without [`commit`](Self::commit), nothing happens.
#[derive(Debug)]
pub struct Edit {
    control: Arc<Control>,
    inner: OwnedMutexGuard<Inner>,
    tx: Tx,
    /// What is put, or deleted (`None`), in this order.
    pending: Vec<(EntityKind, String, Option<Fields>)>,
    audits: Vec<AuditEntry>,
    replies: Vec<Idempotent>,
}

impl Edit {
    pub(super) fn new(control: Arc<Control>, inner: OwnedMutexGuard<Inner>, tx: Tx) -> Self {
        Self { control, inner, tx, pending: Vec::new(), audits: Vec::new(), replies: Vec::new() }
    }

    /// A document as this change leaves it.
    ///
    /// # Errors
    /// [`Refused::Unavailable`].
    pub async fn record(&mut self, kind: EntityKind, id: &str) -> Result<Option<Record>, Refused> {
        let before = self.tx.record(kind, id).await?;
        let changed = self.pending.iter().rev().find(|(have, name, _)| *have == kind && name == id);
        Ok(match changed {
            None => before,
            Some((_, _, None)) => None,
            Some((_, _, Some(fields))) => Some(Record {
                kind,
                id: id.to_owned(),
                fields: fields.clone(),
                created_at: before.as_ref().map_or(0, |record| record.created_at),
                updated_at: before.as_ref().map_or(0, |record| record.updated_at),
                revision: self.next_revision(),
            }),
        })
    }

    /// A user's keys, as they are before this change.
    ///
    /// # Errors
    /// [`Refused::Unavailable`].
    pub async fn keys_of(&mut self, user: &str) -> Result<Vec<Record>, Refused> {
        Ok(self.tx.keys_of(user).await?)
    }

    /// Groups and users that refer to a document, as they are before this change.
    #[must_use]
    pub fn referring(&self, kind: EntityKind, id: &str) -> Vec<(EntityKind, Arc<str>)> {
        self.inner.catalog.referring(kind, id)
    }

    /// Makes a document, or puts it in place of another.
    pub fn put(&mut self, kind: EntityKind, id: &str, fields: Fields) {
        self.pending.push((kind, id.to_owned(), Some(fields)));
    }

    /// Deletes a document; a user's keys go with it.
    pub fn delete(&mut self, kind: EntityKind, id: &str) {
        self.pending.push((kind, id.to_owned(), None));
    }

    /// Has it written down that this was done.
    pub fn audit(&mut self, entry: AuditEntry) {
        self.audits.push(entry);
    }

    /// Has the answer kept for whoever asks the same again.
    pub fn idempotent(&mut self, entry: Idempotent) {
        self.replies.push(entry);
    }

    /// The transaction, for what else belongs into it.
    pub fn tx(&mut self) -> &mut Tx {
        &mut self.tx
    }

    /// The revision that the changed documents will carry.
    #[must_use]
    pub fn next_revision(&self) -> i64 {
        self.tx.revision() + 1
    }

    /// Checks the change against everything else, as [`commit`](Self::commit) will, and does nothing.
    ///
    /// # Errors
    /// [`Refused::Invalid`].
    pub fn check(&self) -> Result<(), Refused> {
        self.inner.catalog.prepare(&changes(&self.pending)).map(drop).map_err(Refused::Invalid)
    }

    /// Checks the change against everything else, writes it, and puts it into effect. It is finished even
    /// if whoever asked for it goes away.
    ///
    /// # Errors
    /// [`Refused::Invalid`], [`Refused::Unavailable`]; nothing has changed then.
    pub async fn commit(self) -> Result<Applied, Refused> {
        tokio::spawn(self.finish()).await.unwrap_or_else(|_| Err(failed()))
    }

    async fn finish(self) -> Result<Applied, Refused> {
        let Self { control, mut inner, mut tx, pending, audits, replies } = self;
        let prepared = inner.catalog.prepare(&changes(&pending)).map_err(Refused::Invalid)?;
        // Puts that follow each other at once: an import has thousands.
        let mut puts: Vec<Put> = Vec::new();
        for (kind, id, fields) in pending {
            if let Some(fields) = fields {
                puts.push(Put { kind, id, fields });
                continue;
            }
            tx.put_all(&std::mem::take(&mut puts)).await?;
            tx.delete(kind, &id).await?;
        }
        tx.put_all(&puts).await?;
        for entry in &audits {
            tx.audit(entry).await?;
        }
        for reply in &replies {
            tx.put_idempotent(reply).await?;
        }
        let revision = tx.commit().await?;
        // From here on nothing waits, unless something cannot be used: this change may have set it right,
        // and what depends on it then comes back as well.
        let old = control.registry.snapshot();
        let whole = match control.faults().is_empty() {
            true => None,
            false => control.read_all(&mut inner).await.ok(),
        };
        let new = whole.unwrap_or_else(|| {
            let mut new = (*old).clone();
            inner.catalog.install(prepared, &mut new);
            inner.revision = revision;
            new
        });
        let watch = Watch::new(&control.registry);
        control.publish_edit(&old, new);
        control.written(revision);
        Ok(Applied { revision, cut: watch.cut() })
    }
}

fn changes(pending: &[(EntityKind, String, Option<Fields>)]) -> Vec<Change<'_>> {
    pending
        .iter()
        .map(|(kind, id, fields)| match fields {
            Some(fields) => Change::Put(*kind, id, fields),
            None => Change::Delete(*kind, id),
        })
        .collect()
}
