//! The JSON Schema of the configuration, typed as far as it is used.
//!
//! `schema.json` is the only description of the fields: editors read it, the validator walks it
//! and the reference page is made from it.

use std::fmt;
use std::sync::LazyLock;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

/// The text of `schema.json`.
pub(crate) const TEXT: &str = include_str!("../schema.json");

static ROOT: LazyLock<Schema> = LazyLock::new(load);

#[expect(clippy::expect_used, reason = "the schema is a constant and tests read it")]
fn load() -> Schema {
    serde_json::from_str(TEXT).expect("schema.json is a schema of the shape below")
}

/// The schema of a whole file.
pub(crate) fn root() -> &'static Schema {
    &ROOT
}

/// A schema, or a part of one.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Schema {
    #[serde(rename = "$schema")]
    _dialect: Option<String>,
    #[serde(rename = "$id")]
    _id: Option<String>,
    #[serde(rename = "$ref")]
    reference: Option<String>,
    #[serde(rename = "$defs")]
    pub(crate) defs: Fields,
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
    #[serde(rename = "type")]
    kinds: Kinds,
    pub(crate) properties: Fields,
    additional_properties: Option<Additional>,
    pub(crate) property_names: Option<Box<Schema>>,
    pub(crate) required: Vec<String>,
    #[serde(rename = "enum")]
    pub(crate) choices: Vec<String>,
    items: Option<Box<Schema>>,
    any_of: Vec<Schema>,
    pub(crate) minimum: Option<i64>,
    pub(crate) exclusive_minimum: Option<i64>,
    pub(crate) maximum: Option<i64>,
    pub(crate) min_items: Option<usize>,
    pub(crate) pattern: Option<String>,
    pub(crate) default: Option<serde_json::Value>,
    pub(crate) examples: Vec<serde_json::Value>,
    /// What a text means beyond its type; see [`crate::formats`].
    #[serde(rename = "x-kind")]
    kind: Option<String>,
    /// Why the field is refused in this version.
    #[serde(rename = "x-planned")]
    pub(crate) planned: Option<String>,
}

/// Schemas by name, in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Fields(pub(crate) Vec<(String, Schema)>);

impl Fields {
    pub(crate) fn get(&self, name: &str) -> Option<&Schema> {
        self.0.iter().find(|(have, _)| have == name).map(|(_, schema)| schema)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("schemas by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Additional {
    Allowed(bool),
    Schema(Box<Schema>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Kinds {
    #[default]
    Any,
    One(String),
    Several(Vec<String>),
}

impl Schema {
    /// The schema that `$ref` points to, else itself.
    pub(crate) fn resolve(&'static self) -> &'static Self {
        self.reference
            .as_deref()
            .and_then(|reference| reference.strip_prefix("#/$defs/"))
            .and_then(|name| root().defs.get(name))
            .unwrap_or(self)
    }

    /// What the values of a map hold, where any name is a key.
    pub(crate) fn values(&'static self) -> Option<&'static Self> {
        match &self.additional_properties {
            Some(Additional::Schema(schema)) => Some(schema.resolve()),
            _ => None,
        }
    }

    /// Whether keys that are not properties are refused.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.additional_properties, Some(Additional::Allowed(false)))
    }

    /// What a list holds.
    pub(crate) fn items(&'static self) -> Option<&'static Self> {
        self.items.as_deref().map(Self::resolve)
    }

    /// The types that a value may have; empty is any.
    pub(crate) fn types(&self) -> Vec<&str> {
        match &self.kinds {
            Kinds::Any => Vec::new(),
            Kinds::One(kind) => vec![kind],
            Kinds::Several(kinds) => kinds.iter().map(String::as_str).collect(),
        }
    }

    /// Whether a value of this type (in JSON Schema's words) may stand here.
    pub(crate) fn takes(&self, kind: &str) -> bool {
        let types = self.types();
        types.is_empty() || types.contains(&kind) || (kind == "integer" && types.contains(&"number"))
    }

    /// The shapes to choose from: those of `anyOf`, else itself alone.
    pub(crate) fn shapes(&'static self) -> Vec<&'static Self> {
        match self.any_of.as_slice() {
            [] => vec![self],
            shapes => shapes.iter().flat_map(|shape| shape.resolve().shapes()).collect(),
        }
    }

    /// Whether a word that stands here by mistake may be shown: where words, numbers or lists
    /// belong and nothing is secret. In place of a whole section, such as a channel, people write
    /// a key.
    pub(crate) fn shows_words(&'static self) -> bool {
        let sections = |shape: &'static Self| {
            shape.items().is_some_and(|items| items.shapes().iter().all(|item| item.takes("object")))
        };
        let mut shapes = self.shapes().into_iter();
        !self.is_secret()
            && shapes.all(|shape| !shape.types().is_empty() && !shape.takes("object") && !sections(shape))
    }

    /// What a text means beyond its type.
    pub(crate) fn kind(&'static self) -> Option<&'static str> {
        self.kind.as_deref().or_else(|| {
            let target = self.resolve();
            if std::ptr::eq(target, self) { None } else { target.kind() }
        })
    }

    /// Whether what stands here may hold a key or password.
    pub(crate) fn is_secret(&'static self) -> bool {
        self.kind() == Some("secret")
    }

    /// Whether any name is a key here whose value is secret, as in `headers.set`.
    pub(crate) fn holds_secrets(&'static self) -> bool {
        self.values().is_some_and(Self::is_secret)
    }
}

/// Calls `visit` with the name and schema of every field, at any depth.
pub(crate) fn each_field(visit: &mut dyn FnMut(&'static str, &'static Schema)) {
    fn walk(schema: &'static Schema, visit: &mut dyn FnMut(&'static str, &'static Schema)) {
        for (name, field) in &schema.properties.0 {
            visit(name, field);
            walk(field, visit);
        }
        for shape in &schema.any_of {
            walk(shape, visit);
        }
        if let Some(Additional::Schema(values)) = &schema.additional_properties {
            walk(values, visit);
        }
        if let Some(items) = &schema.items {
            walk(items, visit);
        }
    }
    walk(root(), visit);
    for (_, schema) in &root().defs.0 {
        walk(schema, visit);
    }
}
