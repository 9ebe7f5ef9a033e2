//! What administrators manage, as documents: users, groups, channels and keys.
//!
//! A document has the fields of the configuration file (`config/schema.json`), so that a file, the
//! database and the admin API speak of the same things in the same words.

use std::fmt;

use serde_json::{Map, Value};

/// What a document describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntityKind {
    /// One upstream account.
    Channel,
    /// Users who share channels and limits.
    Group,
    /// A person or a product line.
    User,
    /// A Proxy-Key of a user, by the digest.
    Key,
}

impl EntityKind {
    /// Every kind; each refers to those before it alone.
    pub const ALL: [Self; 4] = [Self::Channel, Self::Group, Self::User, Self::Key];

    /// The kind's name in the database, in audit records and in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Group => "group",
            Self::User => "user",
            Self::Key => "key",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for EntityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The fields of a document by name. They may hold keys of platforms: `Debug` shows the names alone,
/// and there is no `Serialize`.
#[derive(Clone, PartialEq, Default)]
pub struct Fields(pub Map<String, Value>);

impl Fields {
    /// The text of a field; none where it is absent or no text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A document with what the database knows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What it describes.
    pub kind: EntityKind,
    /// Its id, unique within the kind.
    pub id: String,
    /// What it says.
    pub fields: Fields,
    /// When it was made (Unix time, seconds).
    pub created_at: i64,
    /// When it was changed last (Unix time, seconds).
    pub updated_at: i64,
    /// The revision of the whole database with which it was changed last: its entity tag.
    pub revision: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_value() {
        let mut fields = Fields::default();
        fields.0.insert("api_key".into(), Value::from("sk-very-secret"));
        assert_eq!(format!("{fields:?}"), "{\"api_key\"}");
        assert_eq!(fields.text("api_key"), Some("sk-very-secret"));
    }

    #[test]
    fn kinds_have_names() {
        for kind in EntityKind::ALL {
            assert_eq!(EntityKind::parse(kind.as_str()), Some(kind));
        }
    }
}
