//! What outlives the process.
//!
//! Owns: the database of the control plane and its schema; the file of owned objects in the data
//! folder, read at start and appended to by a thread of its own; the file of used client secrets, a line
//! for each.
//! Never does: deciding who owns what or what is used up (`registry`, `routing`), whether a document
//! makes sense (`config`) or who may change it (`admin`); blocking a request for longer than one short
//! write takes, failing one because a disk is full.
//!
//! - [`sql`]: the database: documents, denials, the audit, who may sign in
//! - [`object_file`]: the file and its writer thread
//! - [`used_file`]: client secrets for one session that have begun one
//! - `load`: reading it back, whatever a crash left in it
//! - `line`: one change as one JSON line

mod line;
mod load;
pub mod object_file;
pub mod sql;
pub mod used_file;

pub use load::Loaded;
pub use object_file::{FILE_NAME, ObjectFile};
pub use sql::{
    Actor, Administrator, AuditEntry, AuditPage, AuditQuery, AuditRecord, Changes, Denial, DenialSubject,
    Error, Field, Idempotent, Lockout, Migration, OpenError, PAGE_LIMIT, Page, Put, Query, Session, Sort,
    Store, Token, Tx,
};
pub use used_file::{USED_FILE_NAME, UsedFile};
