//! Where the fields of each kind of document are kept.

use aiproxy_core::EntityKind;

/// The columns of `permissions` that hold lists of texts.
pub(super) const LISTS: [&str; 4] = ["channels", "models", "endpoints", "allow_ips"];
/// All columns of `permissions`, the lists first.
pub(super) const PERMISSIONS: [&str; 6] =
    ["channels", "models", "endpoints", "allow_ips", "valid_from", "expires_at"];

/// The tables and columns of a kind.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) kind: EntityKind,
    pub(super) table: &'static str,
    /// Fields that are texts, in columns of their own.
    pub(super) fields: &'static [&'static str],
    /// Names of these columns.
    pub(super) columns: &'static [&'static str],
    /// Fields that are kept in `permissions`.
    pub(super) permissions: &'static [&'static str],
    /// `groups` are memberships.
    pub(super) members: bool,
    /// `channels` are the mapping.
    pub(super) mapped: bool,
    /// Columns that a search looks into.
    pub(super) searched: &'static [&'static str],
}

const CHANNEL: Shape = Shape {
    kind: EntityKind::Channel,
    table: "channels",
    fields: &["name", "platform", "base_url", "api_key", "status"],
    columns: &["name", "platform", "base_url", "api_key", "status"],
    permissions: &[],
    members: false,
    mapped: false,
    searched: &["id", "name", "platform", "base_url"],
};

const GROUP: Shape = Shape {
    kind: EntityKind::Group,
    table: "user_groups",
    fields: &["name", "notes"],
    columns: &["name", "notes"],
    permissions: &["models", "endpoints", "allow_ips", "valid_from", "expires_at"],
    members: false,
    mapped: true,
    searched: &["id", "name", "notes"],
};

const USER: Shape = Shape {
    kind: EntityKind::User,
    table: "users",
    fields: &["name", "department", "email", "phone", "employee_number", "notes", "status"],
    columns: &["name", "department", "email", "phone", "employee_number", "notes", "status"],
    permissions: &["models", "endpoints", "allow_ips", "valid_from", "expires_at"],
    members: true,
    mapped: true,
    searched: &["id", "name", "department", "email", "phone", "employee_number", "notes"],
};

const KEY: Shape = Shape {
    kind: EntityKind::Key,
    table: "proxy_keys",
    fields: &["user", "name", "sha256", "prefix", "status", "retires_at"],
    columns: &["user_id", "name", "sha256", "prefix", "status", "retires_at"],
    permissions: &PERMISSIONS,
    members: false,
    mapped: false,
    searched: &["id", "name", "user_id", "prefix"],
};

impl Shape {
    pub(super) const fn of(kind: EntityKind) -> &'static Self {
        match kind {
            EntityKind::Channel => &CHANNEL,
            EntityKind::Group => &GROUP,
            EntityKind::User => &USER,
            EntityKind::Key => &KEY,
        }
    }

    /// The place of a field among the columns.
    pub(super) fn column(&self, field: &str) -> Option<usize> {
        self.fields.iter().position(|name| *name == field)
    }

    /// The place of a field in `permissions`.
    pub(super) fn permission(&self, field: &str) -> Option<usize> {
        if !self.permissions.contains(&field) {
            return None;
        }
        PERMISSIONS.iter().position(|name| *name == field)
    }
}
