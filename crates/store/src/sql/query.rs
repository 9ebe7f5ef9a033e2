//! Questions to the database: which records, in which order, which part of them.

use aiproxy_core::{EntityKind, Record};

use super::types::AuditRecord;

/// The most records that one page holds, whatever was asked for.
pub const PAGE_LIMIT: u32 = 10_000;

/// Which records of a kind to list. All of the conditions must hold.
#[derive(Debug, Clone)]
pub struct Query {
    /// Of which kind.
    pub kind: EntityKind,
    /// A text that id, name or what else people look for contains; ASCII letters match in any case,
    /// and no character has a special meaning.
    pub search: Option<String>,
    /// Fields and what they equal. ASCII letters match in any case where people wrote the text (name,
    /// department, mail, telephone, employee number); elsewhere not. No status means `active`.
    pub filters: Vec<(Field, String)>,
    /// In which order.
    pub sort: Sort,
    /// At most so many; more than [`PAGE_LIMIT`] are never given.
    pub limit: u32,
    /// So many are passed over.
    pub offset: u64,
}

/// An order; equal ones stand in the order in which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    /// By which field.
    pub field: Field,
    /// The greatest first.
    pub descending: bool,
}

/// What records can be filtered and sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// Every kind's id.
    Id,
    /// Name for people.
    Name,
    /// Department of a user.
    Department,
    /// Mail address of a user.
    Email,
    /// Telephone number of a user.
    Phone,
    /// Employee number of a user.
    EmployeeNumber,
    /// Status of a user, channel or key.
    Status,
    /// Platform of a channel, where the channel says it.
    Platform,
    /// Address of a channel.
    BaseUrl,
    /// Users in this group. Filter only.
    Group,
    /// Users and groups that are mapped to this channel. Filter only.
    Channel,
    /// User of a key.
    User,
    /// Visible beginning of a key.
    Prefix,
    /// When made (Unix time, seconds).
    CreatedAt,
    /// When changed last (Unix time, seconds).
    UpdatedAt,
    /// Until when a user, group or key may be used, as it was written.
    ExpiresAt,
}

impl Field {
    /// Every field.
    pub const ALL: [Self; 16] = [
        Self::Id,
        Self::Name,
        Self::Department,
        Self::Email,
        Self::Phone,
        Self::EmployeeNumber,
        Self::Status,
        Self::Platform,
        Self::BaseUrl,
        Self::Group,
        Self::Channel,
        Self::User,
        Self::Prefix,
        Self::CreatedAt,
        Self::UpdatedAt,
        Self::ExpiresAt,
    ];

    /// The field's name in documents and queries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Name => "name",
            Self::Department => "department",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::EmployeeNumber => "employee_number",
            Self::Status => "status",
            Self::Platform => "platform",
            Self::BaseUrl => "base_url",
            Self::Group => "group",
            Self::Channel => "channel",
            Self::User => "user",
            Self::Prefix => "prefix",
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "updated_at",
            Self::ExpiresAt => "expires_at",
        }
    }

    /// The field with this name, where records of the kind have it.
    #[must_use]
    pub fn parse(kind: EntityKind, name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.as_str() == name && field.belongs_to(kind))
    }

    /// Whether records can be sorted by it.
    #[must_use]
    pub const fn sorts(self) -> bool {
        !matches!(self, Self::Group | Self::Channel)
    }

    /// Whether records of the kind have it.
    #[must_use]
    pub const fn belongs_to(self, kind: EntityKind) -> bool {
        use EntityKind::{Channel, Group, Key, User};
        match self {
            Self::Id | Self::Name | Self::CreatedAt | Self::UpdatedAt => true,
            Self::Department | Self::Email | Self::Phone | Self::EmployeeNumber | Self::Group => {
                matches!(kind, User)
            }
            Self::Status => matches!(kind, User | Channel | Key),
            Self::Platform | Self::BaseUrl => matches!(kind, Channel),
            Self::Channel => matches!(kind, User | Group),
            Self::User | Self::Prefix => matches!(kind, Key),
            Self::ExpiresAt => matches!(kind, User | Group | Key),
        }
    }
}

/// A part of what was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The records of this part, in order.
    pub records: Vec<Record>,
    /// How many there are in all parts.
    pub total: u64,
}

/// Which audit records to read, newest first. All of the conditions must hold.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Id or name of who did it.
    pub actor: Option<String>,
    /// The action; with a full stop at the end, every action that begins so.
    pub action: Option<String>,
    /// Kind of the object.
    pub object_kind: Option<String>,
    /// Id of the object.
    pub object_id: Option<String>,
    /// Outcome.
    pub outcome: Option<String>,
    /// Not before this moment (Unix time, milliseconds).
    pub from_ms: Option<i64>,
    /// Before this moment (Unix time, milliseconds).
    pub until_ms: Option<i64>,
    /// A text that actor, action, object, address or request id contains.
    pub search: Option<String>,
    /// Only records with lower ids: the lowest of the page before.
    pub before_id: Option<i64>,
    /// At most so many; more than [`PAGE_LIMIT`] are never given.
    pub limit: u32,
}

/// A part of the audit.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditPage {
    /// The records, newest first.
    pub records: Vec<AuditRecord>,
    /// Whether older ones follow.
    pub more: bool,
}
