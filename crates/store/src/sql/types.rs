//! What goes in and comes out, apart from documents and queries.

use std::fmt;

use aiproxy_core::{EntityKind, KeyDigest, Record, Secret};
use serde_json::Value;

/// One step of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its number; they count up.
    pub version: i64,
    /// What it is about.
    pub description: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// What has changed since a revision, read in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// The revision of which this speaks. Below the one that was asked about, another database has
    /// taken the place of the old one: read all of it.
    pub revision: i64,
    /// Records that were made or changed, as they are now.
    pub changed: Vec<Record>,
    /// What was deleted and is not there again.
    pub deleted: Vec<(EntityKind, String)>,
    /// All denials that stand now.
    pub denials: Vec<Denial>,
}

/// Somebody or some key is refused, whatever the documents say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Who or what is refused.
    pub subject: DenialSubject,
    /// Why, in the words of whoever denied.
    pub reason: String,
    /// Who denied.
    pub by: String,
    /// When (Unix time, seconds).
    pub at: i64,
}

/// Who or what a denial refuses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DenialSubject {
    /// A user by id: every key of theirs.
    User(String),
    /// One Proxy-Key.
    Key(KeyDigest),
}

impl DenialSubject {
    /// The kind's name and what names the subject within it.
    pub(super) fn parts(&self) -> (&'static str, String) {
        match self {
            Self::User(id) => ("user", id.clone()),
            Self::Key(digest) => ("key", digest.hex()),
        }
    }

    pub(super) fn of_parts(kind: &str, subject: String) -> Option<Self> {
        match kind {
            "user" => Some(Self::User(subject)),
            "key" => KeyDigest::from_hex(&subject).map(Self::Key),
            _ => None,
        }
    }
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actor {
    /// `administrator`, `token`, `cli`, `system` or `anonymous`.
    pub kind: String,
    /// Id within the kind; empty where there is none.
    pub id: String,
    /// Name for people.
    pub name: String,
}

/// What was done or tried. The writer masks secrets in `before`, `after` and `detail`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AuditEntry {
    /// When (Unix time, milliseconds).
    pub at: i64,
    /// Who.
    pub actor: Actor,
    /// From which address; empty where there is none.
    pub from: String,
    /// Id of the request; empty where there was none.
    pub request_id: String,
    /// What: object and verb, like `user.create`.
    pub action: String,
    /// The kind of what it was done to; empty where it was done to nothing.
    pub object_kind: String,
    /// Its id.
    pub object_id: String,
    /// `ok`, or the code of the error.
    pub outcome: String,
    /// The object before.
    pub before: Option<Value>,
    /// The object after.
    pub after: Option<Value>,
    /// What else there is to say.
    pub detail: Option<Value>,
}

/// An entry as it was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRecord {
    /// Counts up; never given twice.
    pub id: i64,
    /// What was done.
    pub entry: AuditEntry,
}

/// Somebody who may sign in to the control plane.
#[derive(Debug, Clone)]
pub struct Administrator {
    /// Id; it never changes.
    pub id: String,
    /// Name to sign in with; unique, compared without case.
    pub name: String,
    /// Name for people.
    pub display_name: String,
    /// `administrator` or `auditor`.
    pub role: String,
    /// The password's hash in PHC form.
    pub password_hash: Secret,
    /// `active` or `disabled`.
    pub status: String,
    /// The password must be changed before anything else.
    pub must_change: bool,
    /// When made (Unix time, seconds). Only the first put counts.
    pub created_at: i64,
    /// When changed last (Unix time, seconds).
    pub updated_at: i64,
    /// Last successful login (Unix time, seconds).
    pub last_login_at: Option<i64>,
    /// Counts up with each put: the entity tag. What a put brings is not looked at.
    pub revision: i64,
}

/// A key to the admin API, known by its digest alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Id; it never changes.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
    /// Its visible beginning.
    pub prefix: String,
    /// `administrator` or `auditor`.
    pub role: String,
    /// What it may do, like `users:read`.
    pub scopes: Vec<String>,
    /// Who made it.
    pub created_by: String,
    /// When made (Unix time, seconds).
    pub created_at: i64,
    /// From when it is refused (Unix time, seconds).
    pub expires_at: Option<i64>,
    /// Last use (Unix time, seconds).
    pub last_used_at: Option<i64>,
    /// When it was revoked (Unix time, seconds).
    pub revoked_at: Option<i64>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// A login of an administrator.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// SHA-256 of what the cookie holds.
    pub sha256: [u8; 32],
    /// Id of the administrator. The session goes when the administrator goes.
    pub administrator: String,
    /// SHA-256 of the token against forged requests.
    pub csrf: [u8; 32],
    /// When made (Unix time, seconds).
    pub created_at: i64,
    /// Last request (Unix time, seconds).
    pub seen_at: i64,
    /// From when it is refused (Unix time, seconds).
    pub expires_at: i64,
    /// From which address it was made.
    pub address: String,
    /// The browser's name for itself.
    pub agent: String,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("administrator", &self.administrator).finish_non_exhaustive()
    }
}

/// Failed logins of a name or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lockout {
    /// Whose; the caller chooses the words.
    pub subject: String,
    /// How many in a row.
    pub failures: i64,
    /// Until when the next try is refused (Unix time, seconds).
    pub until: i64,
    /// The last failure (Unix time, seconds).
    pub at: i64,
}

/// The answer to a request that may come again. The body is kept as it is: where it holds a secret, the
/// caller seals it.
#[derive(Clone, PartialEq, Eq)]
pub struct Idempotent {
    /// Who asked.
    pub actor: String,
    /// The key that the request had.
    pub key: String,
    /// SHA-256 of what was asked.
    pub fingerprint: [u8; 32],
    /// Status of the answer.
    pub status: u16,
    /// Body of the answer.
    pub body: String,
    /// When (Unix time, seconds).
    pub created_at: i64,
}

impl fmt::Debug for Idempotent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotent").field("status", &self.status).finish_non_exhaustive()
    }
}
