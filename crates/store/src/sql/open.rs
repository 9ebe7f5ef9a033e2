//! Opening the file: who may read it, whose it is, which schema it has.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, Migration as Step, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection, SqlitePool};

use super::error::{Error, OpenError};
use super::link::{Pool, pool_options};
use super::types::Migration;

/// Steps of the schema, first to last. What was released is never changed.
pub(super) static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");
/// What every SQLite file that holds anything begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// How long one waits for a connection, or for another process that writes.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that read.
const READERS: u32 = 4;
/// To this the log is cut after a large change, bytes.
const LOG_KEPT: &str = "67108864";

/// Opens or makes the file and brings its schema up to date. Who waits for a connection or for another
/// process that writes gives up when `patience` is over.
pub(super) async fn open(path: &Path, patience: Duration) -> Result<Pool, OpenError> {
    let path = std::path::absolute(path)?;
    make(&path)?;
    check_magic(&path)?;
    let applied = refuse_others(&path).await?;
    let options = options(&path).busy_timeout(patience);
    let writer = options
        .clone()
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", LOG_KEPT)
        // What is deleted may be a key.
        .pragma("secure_delete", "ON");
    let write = pool_options(1, patience).connect_with(writer).await?;
    if let Err(error) = migrate(&write, &applied).await {
        write.close().await;
        return Err(error);
    }
    let read = pool_options(READERS, patience).connect_with(options.read_only(true)).await?;
    Ok(Pool::Sqlite { write, read })
}

/// The steps of the schema, and which of them the file has. A file that is not there has none.
pub(super) async fn migrations(path: &Path) -> Result<Vec<Migration>, OpenError> {
    let path = std::path::absolute(path)?;
    let applied = match fs::metadata(&path) {
        Ok(_) => {
            check_magic(&path)?;
            refuse_others(&path).await?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let step = |step: &Step| Migration {
        version: step.version,
        description: step.description.clone().into_owned(),
        applied: applied.iter().any(|applied| applied.version == step.version),
    };
    Ok(MIGRATOR.iter().map(step).collect())
}

/// What all connections have in common.
fn options(path: &PathBuf) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .pragma("trusted_schema", "OFF")
        // What is sorted may be a key: it is not to lie in other files.
        .pragma("temp_store", "MEMORY")
        // Rows that are read ahead: every wait for the driver's thread costs.
        .row_buffer_size(1000)
        // Statements stand in no log.
        .disable_statement_logging()
}

/// Makes the file and the folders above it where they are missing: for this user alone. SQLite gives its
/// other files the same mode.
fn make(path: &Path) -> Result<(), OpenError> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others could read the database, which holds keys: its mode is 0600 now");
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Refuses a file that is none of SQLite's. An empty one is: it was just made.
fn check_magic(path: &Path) -> Result<(), OpenError> {
    let mut begin = Vec::with_capacity(MAGIC.len());
    File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut begin)?;
    if begin.is_empty() || begin == MAGIC { Ok(()) } else { Err(OpenError::NotADatabase) }
}

/// Refuses databases of others and of newer programs, before anything is written; the steps that the file has.
async fn refuse_others(path: &PathBuf) -> Result<Vec<AppliedMigration>, OpenError> {
    if fs::metadata(path)?.len() == 0 {
        return Ok(Vec::new());
    }
    // Without a log nobody has the file open, and reading it is to leave no log behind.
    let alone = !path.with_file_name(log_name(path)).exists();
    let options = options(path).read_only(true).immutable(alone).busy_timeout(PATIENCE);
    let mut connection = options.connect().await?;
    let applied = applied(&mut connection).await;
    connection.close().await?;
    let applied = applied?;
    let known = MIGRATOR.iter().map(|step| step.version).max().unwrap_or_default();
    let found = applied.iter().map(|step| step.version).max().unwrap_or_default();
    if found > known { Err(OpenError::Newer { found, known }) } else { Ok(applied) }
}

/// SQLite's name for the write-ahead log of this file.
fn log_name(path: &Path) -> OsString {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push("-wal");
    name
}

async fn applied(connection: &mut SqliteConnection) -> Result<Vec<AppliedMigration>, OpenError> {
    let tables: Vec<(String,)> = sqlx::query_as(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'",
    )
    .fetch_all(&mut *connection)
    .await?;
    let has = |name: &str| tables.iter().any(|(table,)| table == name);
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    if !has(&MIGRATOR.table_name) || !has("meta") {
        return Err(OpenError::Foreign);
    }
    connection.list_applied_migrations(&MIGRATOR.table_name).await.map_err(stopped)
}

/// All missing steps in one transaction, so that two programs that start at once do not both take them, and
/// a step that fails leaves nothing of those before it.
///
/// Where none is missing nothing is locked: another program may be writing.
async fn migrate(write: &SqlitePool, applied: &[AppliedMigration]) -> Result<(), OpenError> {
    let has = |step: &Step| applied.iter().any(|a| a.version == step.version && a.checksum == step.checksum);
    if MIGRATOR.iter().all(has) {
        return Ok(());
    }
    let mut link = write.begin_with("BEGIN IMMEDIATE").await?;
    MIGRATOR.run_direct(None, &mut *link, false).await.map_err(stopped)?;
    link.commit().await?;
    Ok(())
}

fn stopped(error: MigrateError) -> OpenError {
    match error {
        MigrateError::Execute(error) => error.into(),
        MigrateError::ExecuteMigration(error, version) => match Error::from(error) {
            Error::Unavailable(what) => OpenError::Migration(format!("step {version}: {what}")),
            error => error.into(),
        },
        // A step that is not known appeared since it was looked: another program is newer.
        MigrateError::VersionMissing(found) => {
            let known = MIGRATOR.iter().map(|step| step.version).max().unwrap_or_default();
            OpenError::Newer { found, known }
        }
        MigrateError::VersionMismatch(version) => {
            OpenError::Migration(format!("step {version} was another one when it was taken"))
        }
        other => OpenError::Migration(other.to_string()),
    }
}
