//! The audit: added to, read in pages, cut at its old end.

use super::dialect::beginning;
use super::error::Error;
use super::link::{Link, Row, Statement};
use super::list::search;
use super::query::{AuditPage, AuditQuery, PAGE_LIMIT};
use super::tx::Tx;
use super::types::{Actor, AuditEntry, AuditRecord};
use super::{Store, json};

/// Columns that a search looks into.
const SEARCHED: [&str; 6] = ["actor_id", "actor_name", "action", "object_id", "from_address", "request_id"];

impl Store {
    /// The newest records that the query asks for.
    ///
    /// # Errors
    /// As the database.
    pub async fn audit(&self, query: &AuditQuery) -> Result<AuditPage, Error> {
        let mut link = self.pool.read().await?;
        let mut statement = link.sql(
            "SELECT e.id, e.at_ms, e.actor_kind, e.actor_id, e.actor_name, e.from_address, e.request_id, \
             e.action, e.object_kind, e.object_id, e.outcome, e.value_before, e.value_after, e.detail \
             FROM audit e WHERE 1 = 1",
        );
        conditions(statement.once(), &link, query);
        let limit = query.limit.min(PAGE_LIMIT) as usize;
        statement.push(" ORDER BY e.id DESC LIMIT ").bind(i64::try_from(limit + 1).unwrap_or(i64::MAX));
        let rows = link.rows(statement).await?;
        let records = rows.iter().take(limit).map(record).collect::<Result<_, _>>()?;
        Ok(AuditPage { records, more: rows.len() > limit })
    }
}

impl Tx {
    /// Adds a record, which is kept with all else that this transaction does; its id.
    ///
    /// # Errors
    /// As the database.
    pub async fn audit(&mut self, entry: &AuditEntry) -> Result<i64, Error> {
        let text = |value: &Option<serde_json::Value>| value.as_ref().map(ToString::to_string);
        let (before, after, detail) = (text(&entry.before), text(&entry.after), text(&entry.detail));
        let values = [
            ("at_ms", entry.at.into()),
            ("actor_kind", (&entry.actor.kind).into()),
            ("actor_id", (&entry.actor.id).into()),
            ("actor_name", (&entry.actor.name).into()),
            ("from_address", (&entry.from).into()),
            ("request_id", (&entry.request_id).into()),
            ("action", (&entry.action).into()),
            ("object_kind", (&entry.object_kind).into()),
            ("object_id", (&entry.object_id).into()),
            ("outcome", (&entry.outcome).into()),
            ("value_before", before.as_deref().into()),
            ("value_after", after.as_deref().into()),
            ("detail", detail.as_deref().into()),
        ];
        self.link.insert("audit", &values).await?;
        // Nobody else writes meanwhile.
        let statement = self.link.sql("SELECT MAX(id) FROM audit");
        self.link.row(statement).await?.map_or(Ok(0), |row| row.int(0))
    }

    /// Deletes records from before this moment (Unix time, milliseconds); how many.
    ///
    /// # Errors
    /// As the database.
    pub async fn prune_audit(&mut self, before: i64) -> Result<u64, Error> {
        let mut statement = self.link.sql("DELETE FROM audit WHERE at_ms < ");
        statement.bind(before);
        self.link.execute(statement).await
    }
}

fn conditions(statement: &mut Statement, link: &Link, query: &AuditQuery) {
    if let Some(actor) = &query.actor {
        statement.push(" AND (e.actor_id = ").bind(actor).push(" OR e.actor_name = ").bind(actor).push(")");
    }
    if let Some(action) = &query.action {
        if !action.ends_with('.') {
            statement.push(" AND e.action = ").bind(action);
        } else if let Some(pattern) = beginning(action) {
            let (like, end) = link.dialect().like();
            statement.push(" AND e.action").push(like).bind(&pattern).push(end);
        } else {
            statement.push(" AND 1 = 0");
        }
    }
    let texts = [
        (" AND e.object_kind = ", &query.object_kind),
        (" AND e.object_id = ", &query.object_id),
        (" AND e.outcome = ", &query.outcome),
    ];
    for (text, value) in texts {
        if let Some(value) = value {
            statement.push(text).bind(value);
        }
    }
    let numbers = [
        (" AND e.at_ms >= ", query.from_ms),
        (" AND e.at_ms < ", query.until_ms),
        (" AND e.id < ", query.before_id),
    ];
    for (text, value) in numbers {
        if let Some(value) = value {
            statement.push(text).bind(value);
        }
    }
    if let Some(text) = query.search.as_deref().filter(|text| !text.is_empty()) {
        search(statement, link, &SEARCHED, text);
    }
}

fn record(row: &Row) -> Result<AuditRecord, Error> {
    let value = |at| row.maybe_text(at)?.map(|text| json(&text, "an audit record")).transpose();
    let entry = AuditEntry {
        at: row.int(1)?,
        actor: Actor { kind: row.text(2)?, id: row.text(3)?, name: row.text(4)? },
        from: row.text(5)?,
        request_id: row.text(6)?,
        action: row.text(7)?,
        object_kind: row.text(8)?,
        object_id: row.text(9)?,
        outcome: row.text(10)?,
        before: value(11)?,
        after: value(12)?,
        detail: value(13)?,
    };
    Ok(AuditRecord { id: row.int(0)?, entry })
}
