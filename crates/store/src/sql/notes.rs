//! Small things beside the documents: settings, answers to repeat, when keys were used.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::error::Error;
use super::tx::Tx;
use super::types::Idempotent;
use super::{Store, json};

/// How many ids one statement names.
const CHUNK: usize = 500;

impl Store {
    /// A setting.
    ///
    /// # Errors
    /// As the database.
    pub async fn setting(&self, name: &str) -> Result<Option<Json>, Error> {
        let mut link = self.pool.read().await?;
        let mut statement = link.sql("SELECT value FROM settings WHERE name = ");
        statement.bind(name);
        let Some(row) = link.row(statement).await? else { return Ok(None) };
        json(&row.text(0)?, "a setting").map(Some)
    }

    /// All settings, by name.
    ///
    /// # Errors
    /// As the database.
    pub async fn settings(&self) -> Result<Map<String, Json>, Error> {
        let mut link = self.pool.read().await?;
        let statement = link.sql("SELECT name, value FROM settings ORDER BY name");
        let rows = link.rows(statement).await?;
        rows.iter().map(|row| Ok((row.text(0)?, json(&row.text(1)?, "a setting")?))).collect()
    }

    /// When these keys were used last (Unix time, seconds); keys that were not are left out.
    ///
    /// # Errors
    /// As the database.
    pub async fn last_used(&self, key_ids: &[String]) -> Result<HashMap<String, i64>, Error> {
        let mut link = self.pool.read().await?;
        let mut found = HashMap::with_capacity(key_ids.len());
        for chunk in key_ids.chunks(CHUNK) {
            let mut statement = link.sql("SELECT key_id, used_at FROM key_use WHERE key_id IN ");
            statement.list(chunk.iter().map(String::as_str));
            for row in link.rows(statement).await? {
                found.insert(row.text(0)?, row.int(1)?);
            }
        }
        Ok(found)
    }
}

impl Tx {
    /// Keeps a setting. It is no document: the revision stays.
    ///
    /// # Errors
    /// As the database.
    pub async fn put_setting(&mut self, name: &str, value: &Json) -> Result<(), Error> {
        let text = value.to_string();
        let values = [("name", name.into()), ("value", (&text).into())];
        self.link.upsert("settings", &["name"], &values).await.map(drop)
    }

    /// The answer that this actor has had to a request with this key.
    ///
    /// # Errors
    /// As the database.
    pub async fn idempotent(&mut self, actor: &str, key: &str) -> Result<Option<Idempotent>, Error> {
        let mut statement =
            self.link.sql("SELECT fingerprint, status, body, created_at FROM idempotency WHERE actor = ");
        statement.bind(actor).push(" AND request_key = ").bind(key);
        let Some(row) = self.link.row(statement).await? else { return Ok(None) };
        let status = u16::try_from(row.int(1)?).map_err(|_| Error::Damaged("a status".into()))?;
        Ok(Some(Idempotent {
            actor: actor.to_owned(),
            key: key.to_owned(),
            fingerprint: row.digest(0)?,
            status,
            body: row.text(2)?,
            created_at: row.int(3)?,
        }))
    }

    /// Keeps an answer, in place of one with the same actor and key.
    ///
    /// # Errors
    /// As the database.
    pub async fn put_idempotent(&mut self, answer: &Idempotent) -> Result<(), Error> {
        let values = [
            ("actor", (&answer.actor).into()),
            ("request_key", (&answer.key).into()),
            ("fingerprint", (&answer.fingerprint).into()),
            ("status", i64::from(answer.status).into()),
            ("body", (&answer.body).into()),
            ("created_at", answer.created_at.into()),
        ];
        self.link.upsert("idempotency", &["actor", "request_key"], &values).await.map(drop)
    }

    /// Forgets answers from before this moment (Unix time, seconds); how many.
    ///
    /// # Errors
    /// As the database.
    pub async fn expire_idempotent(&mut self, before: i64) -> Result<u64, Error> {
        let mut statement = self.link.sql("DELETE FROM idempotency WHERE created_at < ");
        statement.bind(before);
        self.link.execute(statement).await
    }

    /// Notes when keys were used (id, Unix time in seconds). An older moment changes nothing; the revision
    /// stays.
    ///
    /// # Errors
    /// As the database.
    pub async fn touch_keys(&mut self, used: &[(String, i64)]) -> Result<(), Error> {
        let mut latest: HashMap<&str, i64> = HashMap::with_capacity(used.len());
        for (key, at) in used {
            latest.entry(key).and_modify(|known| *known = (*known).max(*at)).or_insert(*at);
        }
        let latest: Vec<_> = latest.into_iter().collect();
        for chunk in latest.chunks(CHUNK) {
            let mut statement = self.link.sql("SELECT key_id, used_at FROM key_use WHERE key_id IN ");
            statement.list(chunk.iter().map(|(key, _)| *key));
            let mut known = HashMap::new();
            for row in self.link.rows(statement).await? {
                known.insert(row.text(0)?, row.int(1)?);
            }
            let mut statement = self.link.sql("DELETE FROM key_use WHERE key_id IN ");
            statement.list(chunk.iter().map(|(key, _)| *key));
            self.link.execute(statement).await?;
            let mut statement = self.link.sql("INSERT INTO key_use (key_id, used_at) VALUES ");
            for (index, (key, at)) in chunk.iter().enumerate() {
                let at = known.get(*key).map_or(*at, |known| (*at).max(*known));
                statement.push(if index == 0 { "(" } else { ", (" });
                statement.bind(*key).push(", ").bind(at).push(")");
            }
            statement.once();
            self.link.execute(statement).await?;
        }
        Ok(())
    }
}
