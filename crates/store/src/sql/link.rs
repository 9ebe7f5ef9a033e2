//! Statements, connections and rows, whichever database they belong to.

use sqlx::pool::PoolOptions;
use sqlx::query_builder::QueryBuilder;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection as _, Row as _, Sqlite, SqliteConnection, SqlitePool, Transaction};

use super::dialect::Dialect;
use super::error::Error;

/// The connections to a database: one that writes, some that read.
#[derive(Debug, Clone)]
pub(super) enum Pool {
    Sqlite { write: SqlitePool, read: SqlitePool },
}

impl Pool {
    /// A transaction that reads: everything in it is of one moment. It waits for no writer.
    pub(super) async fn read(&self) -> Result<Link, Error> {
        match self {
            Self::Sqlite { read, .. } => Ok(Link::new(Inner::Sqlite(read.begin().await?))),
        }
    }

    /// A transaction that writes. It waits for the one before, for as long as the pool allows.
    pub(super) async fn write(&self) -> Result<Link, Error> {
        match self {
            Self::Sqlite { write, .. } => {
                let begin = Dialect::Sqlite.begin_write();
                Ok(Link::new(Inner::Sqlite(write.begin_with(begin).await?)))
            }
        }
    }

    /// Waits until nobody uses a connection, and closes all.
    pub(super) async fn close(&self) {
        match self {
            // The writer is the last: it moves what the log holds into the file.
            Self::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
        }
    }
}

/// What the two pools have in common.
pub(super) fn pool_options(connections: u32, patience: std::time::Duration) -> PoolOptions<Sqlite> {
    PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(patience)
        .acquire_slow_threshold(patience)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // Where the disk is full SQLite rolls back by itself, and the driver's own rollback fails: it would
        // take the connection for one within a transaction for ever.
        .after_release(|connection: &mut SqliteConnection, _| {
            Box::pin(async move {
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
}

/// A transaction; dropped, it is rolled back. When a call has failed, or was given up half way, all later
/// ones fail: the database may have rolled back by itself, and what followed would count alone.
#[derive(Debug)]
pub(super) struct Link {
    inner: Inner,
    sound: bool,
}

#[derive(Debug)]
enum Inner {
    Sqlite(Transaction<'static, Sqlite>),
}

impl Link {
    const fn new(inner: Inner) -> Self {
        Self { inner, sound: true }
    }

    pub(super) const fn dialect(&self) -> Dialect {
        match self.inner {
            Inner::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// A statement that begins with this text.
    pub(super) fn sql(&self, text: &'static str) -> Statement {
        match self.inner {
            Inner::Sqlite(_) => Statement { builder: Builder::Sqlite(QueryBuilder::new(text)), kept: true },
        }
    }

    /// Until the call that begins here has ended well, the transaction is not sound.
    fn begin_call(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.sound) {
            return Err(Error::Unavailable("an earlier step of the same change failed".into()));
        }
        Ok(())
    }

    /// Carries out a statement; how many rows it concerned.
    pub(super) async fn execute(&mut self, statement: Statement) -> Result<u64, Error> {
        self.begin_call()?;
        let concerned = match (&mut self.inner, statement.builder) {
            (Inner::Sqlite(link), Builder::Sqlite(mut builder)) => {
                builder.build().persistent(statement.kept).execute(&mut **link).await?.rows_affected()
            }
        };
        self.sound = true;
        Ok(concerned)
    }

    /// All rows of an answer.
    pub(super) async fn rows(&mut self, statement: Statement) -> Result<Vec<Row>, Error> {
        self.begin_call()?;
        let rows = match (&mut self.inner, statement.builder) {
            (Inner::Sqlite(link), Builder::Sqlite(mut builder)) => {
                builder.build().persistent(statement.kept).fetch_all(&mut **link).await?
            }
        };
        self.sound = true;
        Ok(rows.into_iter().map(Row::Sqlite).collect())
    }

    /// The first row of an answer, where there is one.
    pub(super) async fn row(&mut self, statement: Statement) -> Result<Option<Row>, Error> {
        self.begin_call()?;
        let row = match (&mut self.inner, statement.builder) {
            (Inner::Sqlite(link), Builder::Sqlite(mut builder)) => {
                builder.build().persistent(statement.kept).fetch_optional(&mut **link).await?
            }
        };
        self.sound = true;
        Ok(row.map(Row::Sqlite))
    }

    /// Adds a row.
    pub(super) async fn insert(&mut self, table: &'static str, values: &[Named<'_>]) -> Result<u64, Error> {
        let statement = self.inserting(table, values);
        self.execute(statement).await
    }

    /// Adds a row, or changes the one with the same `keys`.
    pub(super) async fn upsert(
        &mut self,
        table: &'static str,
        keys: &[&'static str],
        values: &[Named<'_>],
    ) -> Result<u64, Error> {
        let mut statement = self.inserting(table, values);
        let columns: Vec<_> =
            values.iter().map(|(name, _)| *name).filter(|name| !keys.contains(name)).collect();
        self.dialect().or_update(&mut statement, keys, &columns);
        self.execute(statement).await
    }

    fn inserting(&self, table: &'static str, values: &[Named<'_>]) -> Statement {
        let mut statement = self.sql("INSERT INTO ");
        statement.push(table).push(" (");
        for (index, (name, _)) in values.iter().enumerate() {
            statement.push(if index == 0 { "" } else { ", " }).push(name);
        }
        statement.push(") VALUES (");
        for (index, (_, value)) in values.iter().enumerate() {
            statement.push(if index == 0 { "" } else { ", " }).bind(*value);
        }
        statement.push(")");
        statement
    }

    /// The beginning of a statement that changes rows; its condition is to follow.
    pub(super) fn updating(&self, table: &'static str, values: &[Named<'_>]) -> Statement {
        let mut statement = self.sql("UPDATE ");
        statement.push(table).push(" SET ");
        for (index, (name, value)) in values.iter().enumerate() {
            statement.push(if index == 0 { "" } else { ", " }).push(name).push(" = ").bind(*value);
        }
        statement
    }

    pub(super) async fn commit(mut self) -> Result<(), Error> {
        self.begin_call()?;
        match self.inner {
            Inner::Sqlite(link) => Ok(link.commit().await?),
        }
    }
}

/// A column and what it is to hold.
pub(super) type Named<'a> = (&'static str, Value<'a>);

/// What is bound to a statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Int(Option<i64>),
    Text(Option<&'a str>),
    Bytes(&'a [u8]),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(Some(value))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(Some(value))
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(value: Option<&'a str>) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a [u8; 32]> for Value<'a> {
    fn from(value: &'a [u8; 32]) -> Self {
        Self::Bytes(value)
    }
}

/// A statement in the making. Its text comes from this program alone (`&'static str`); everything else is
/// bound.
pub(super) struct Statement {
    builder: Builder,
    kept: bool,
}

enum Builder {
    Sqlite(QueryBuilder<Sqlite>),
}

impl Statement {
    pub(super) fn push(&mut self, text: &'static str) -> &mut Self {
        match &mut self.builder {
            Builder::Sqlite(builder) => {
                builder.push(text);
            }
        }
        self
    }

    pub(super) fn bind<'a>(&mut self, value: impl Into<Value<'a>>) -> &mut Self {
        match &mut self.builder {
            Builder::Sqlite(builder) => match value.into() {
                Value::Int(value) => builder.push_bind(value),
                Value::Text(value) => builder.push_bind(value),
                Value::Bytes(value) => builder.push_bind(value),
            },
        };
        self
    }

    /// Names, separated.
    pub(super) fn names(&mut self, names: &[&'static str]) -> &mut Self {
        for (index, name) in names.iter().enumerate() {
            self.push(if index == 0 { "" } else { ", " }).push(name);
        }
        self
    }

    /// `(?, ?, …)`: its length varies, so the statement is not kept prepared.
    pub(super) fn list<'a>(&mut self, values: impl IntoIterator<Item = &'a str>) -> &mut Self {
        self.kept = false;
        self.push("(");
        for (index, value) in values.into_iter().enumerate() {
            self.push(if index == 0 { "" } else { ", " }).bind(value);
        }
        self.push(")")
    }

    /// The text varies too much to be kept prepared.
    pub(super) fn once(&mut self) -> &mut Self {
        self.kept = false;
        self
    }
}

/// A row of an answer, by the columns' places.
pub(super) enum Row {
    Sqlite(SqliteRow),
}

impl Row {
    pub(super) fn text(&self, at: usize) -> Result<String, Error> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(at)?),
        }
    }

    pub(super) fn maybe_text(&self, at: usize) -> Result<Option<String>, Error> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(at)?),
        }
    }

    pub(super) fn int(&self, at: usize) -> Result<i64, Error> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(at)?),
        }
    }

    pub(super) fn maybe_int(&self, at: usize) -> Result<Option<i64>, Error> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(at)?),
        }
    }

    pub(super) fn digest(&self, at: usize) -> Result<[u8; 32], Error> {
        let bytes: &[u8] = match self {
            Self::Sqlite(row) => row.try_get(at)?,
        };
        bytes.try_into().map_err(|_| Error::Damaged("a digest of another length".into()))
    }
}
