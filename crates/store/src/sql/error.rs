//! What can go wrong, in words for whoever runs the program. No text holds a value of a row.

use std::{error, fmt, io};

/// Why a statement was not carried out. Nothing of its transaction is kept.
#[derive(Debug)]
pub enum Error {
    /// Somebody else wrote for longer than one may wait. Trying again is safe.
    Busy,
    /// It would break what must hold; the text says what.
    Constraint(String),
    /// A query names a field that its kind cannot be filtered or sorted by.
    Query(&'static str),
    /// The disk is full.
    Full,
    /// The file or its folder cannot be written.
    ReadOnly,
    /// The file is damaged, or was changed by hand; the text says where it showed.
    Damaged(String),
    /// The database does not answer; the driver's words.
    Unavailable(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("the database is busy with another change: try again"),
            Self::Constraint(what) => f.write_str(what),
            Self::Query(what) => write!(f, "the query cannot be answered: {what}"),
            Self::Full => f.write_str("the disk of the database is full: make room and try again"),
            Self::ReadOnly => f.write_str(
                "the database cannot be written: give the program's user the right to write the file and its folder",
            ),
            Self::Damaged(what) => {
                write!(f, "the database is damaged ({what}): put a backup in its place (docs/database.md)")
            }
            Self::Unavailable(what) => {
                write!(f, "the database does not answer ({what}): look at its file and folder, then try again")
            }
        }
    }
}

impl error::Error for Error {}

/// SQLite's primary result codes.
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READ_ONLY: i32 = 8;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const NOT_A_DATABASE: i32 = 26;
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::PoolClosed => Self::Unavailable("it was closed".into()),
            sqlx::Error::Database(error) => of_database(&*error),
            // What a column holds may stand in the driver's text: its name is enough.
            sqlx::Error::ColumnDecode { index, .. } => Self::Damaged(format!("column {index}")),
            sqlx::Error::Decode(_) => Self::Damaged("a column".into()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

fn of_database(error: &dyn sqlx::error::DatabaseError) -> Error {
    if error.is_unique_violation() {
        return Error::Constraint(taken(error.message()).into());
    }
    if error.is_foreign_key_violation() {
        return Error::Constraint(
            "it refers to something that does not exist, or is still referred to".into(),
        );
    }
    let extended = error.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or_default();
    match extended & 0xff {
        code::BUSY | code::LOCKED => Error::Busy,
        code::FULL => Error::Full,
        code::READ_ONLY => Error::ReadOnly,
        code::CORRUPT | code::NOT_A_DATABASE => Error::Damaged(error.message().into()),
        _ => Error::Unavailable(error.message().into()),
    }
}

/// SQLite names the index or the columns, never what they hold.
fn taken(message: &str) -> &'static str {
    const NAMES: [(&str, &str); 3] = [
        ("proxy_keys_sha256", "another Proxy-Key has the same SHA-256"),
        ("administrators.name_key", "another administrator has this name"),
        ("admin_tokens.sha256", "another token has the same SHA-256"),
    ];
    NAMES.iter().find(|(name, _)| message.contains(name)).map_or("it is already there", |(_, text)| text)
}

/// Why a database was not opened. It is as it was.
#[derive(Debug)]
pub enum OpenError {
    /// A newer program has written it.
    Newer {
        /// The newest schema in the file.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// The file is something else.
    NotADatabase,
    /// It is an SQLite database of another program.
    Foreign,
    /// The schema cannot be brought up; the text says where it stopped.
    Migration(String),
    /// The file or its folder cannot be made, opened or read.
    Io(io::Error),
    /// The database said no.
    Database(Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer { found, known } => write!(
                f,
                "a newer AIProxy has written this database (schema {found}, this program knows {known}): \
                 run that version, or restore a backup made before"
            ),
            Self::NotADatabase => {
                f.write_str("the file is not an SQLite database: name another, or move it away")
            }
            Self::Foreign => {
                f.write_str("the file is a database of another program: name another, or move it away")
            }
            Self::Migration(what) => write!(
                f,
                "the database's schema cannot be brought up to date ({what}): nothing was changed; \
                 restore a backup, or run the version that wrote it"
            ),
            Self::Io(error) => write!(f, "the database's file cannot be used: {error}"),
            Self::Database(error) => error.fmt(f),
        }
    }
}

impl error::Error for OpenError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Database(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<sqlx::Error> for OpenError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}
