//! A document taken apart into what the tables hold, and put together again: exactly as it was.
//!
//! `layout` names the fields in their order. Each of them is in a column, in a side table, or, where its
//! value is not what the tables expect, in `more` as it came. So a list that is empty and one that is not
//! there stay two things.

use aiproxy_core::Fields;
use serde_json::{Map, Value};

use super::error::Error;
use super::shape::{LISTS, PERMISSIONS, Shape};

/// A document for the tables.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// By the places of the shape's columns.
    pub(super) columns: Vec<Option<&'a str>>,
    /// By the places in [`PERMISSIONS`].
    pub(super) permissions: [Option<String>; PERMISSIONS.len()],
    /// Ids of groups.
    pub(super) members: Vec<&'a str>,
    pub(super) mapped: Vec<Mapped>,
    pub(super) layout: String,
    pub(super) more: Option<String>,
}

/// One entry of the mapping.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) channel: String,
    pub(super) priority: Option<i64>,
    pub(super) weight: Option<i64>,
    /// The entry as JSON, where the columns do not say all of it.
    pub(super) item: Option<String>,
}

/// What side tables hold of a document.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) permissions: [Option<String>; PERMISSIONS.len()],
    pub(super) members: Vec<String>,
    pub(super) mapped: Vec<Mapped>,
}

impl<'a> Parts<'a> {
    pub(super) fn of(shape: &Shape, fields: &'a Fields) -> Self {
        let mut parts = Self {
            columns: vec![None; shape.columns.len()],
            permissions: Default::default(),
            members: Vec::new(),
            mapped: Vec::new(),
            layout: String::new(),
            more: None,
        };
        let mut more = Map::new();
        for (name, value) in &fields.0 {
            if !parts.take(shape, name, value) {
                more.insert(name.clone(), value.clone());
            }
        }
        parts.layout = Value::from_iter(fields.0.keys().map(String::as_str)).to_string();
        parts.more = (!more.is_empty()).then(|| Value::Object(more).to_string());
        parts
    }

    /// Whether the tables have a place for this value.
    fn take(&mut self, shape: &Shape, name: &str, value: &'a Value) -> bool {
        if let Some(at) = shape.column(name) {
            self.columns[at] = value.as_str();
            return self.columns[at].is_some();
        }
        if let Some(at) = shape.permission(name) {
            self.permissions[at] = if at < LISTS.len() {
                texts(value).map(|_| value.to_string())
            } else {
                value.as_str().map(str::to_owned)
            };
            return self.permissions[at].is_some();
        }
        match name {
            "groups" if shape.members => texts(value).map(|ids| self.members = ids).is_some(),
            "channels" if shape.mapped => mapping(value).map(|list| self.mapped = list).is_some(),
            _ => false,
        }
    }
}

/// Puts a document together.
///
/// # Errors
/// `Damaged` where a column that this program wrote as JSON is none.
pub(super) fn join(
    shape: &Shape,
    mut columns: Vec<Option<String>>,
    mut side: Side,
    layout: &str,
    more: Option<&str>,
) -> Result<Fields, Error> {
    let damaged = || Error::Damaged(format!("the fields of a {}", shape.kind));
    let names: Vec<String> = serde_json::from_str(layout).map_err(|_| damaged())?;
    let mut more: Map<String, Value> = match more {
        Some(text) => serde_json::from_str(text).map_err(|_| damaged())?,
        None => Map::new(),
    };
    let mut fields = Map::new();
    for name in names {
        let value = if let Some(value) = more.remove(&name) {
            Some(value)
        } else if let Some(at) = shape.column(&name) {
            columns.get_mut(at).and_then(Option::take).map(Value::String)
        } else if let Some(at) = shape.permission(&name) {
            match side.permissions[at].take() {
                Some(text) if at < LISTS.len() => Some(serde_json::from_str(&text).map_err(|_| damaged())?),
                text => text.map(Value::String),
            }
        } else if name == "groups" && shape.members {
            Some(Value::from(std::mem::take(&mut side.members)))
        } else if name == "channels" && shape.mapped {
            let list = std::mem::take(&mut side.mapped);
            Some(list.into_iter().map(Mapped::value).collect::<Option<_>>().ok_or_else(damaged)?)
        } else {
            None
        };
        if let Some(value) = value {
            fields.insert(name, value);
        }
    }
    Ok(Fields(fields))
}

impl Mapped {
    fn of(value: &Value) -> Option<Self> {
        let channel = match value {
            Value::String(id) => id.as_str(),
            Value::Object(entry) => entry.get("id")?.as_str()?,
            _ => return None,
        };
        let number = |name| value.get(name).and_then(Value::as_i64);
        let mut mapped = Self {
            channel: channel.to_owned(),
            priority: number("order"),
            weight: number("weight"),
            item: None,
        };
        // Compared as texts: the order of an entry's fields counts too.
        let said = mapped.value_of_columns().to_string();
        let whole = value.to_string();
        if said != whole {
            mapped.item = Some(whole);
        }
        Some(mapped)
    }

    fn value_of_columns(&self) -> Value {
        if self.priority.is_none() && self.weight.is_none() {
            return Value::String(self.channel.clone());
        }
        let mut entry = Map::new();
        entry.insert("id".into(), Value::String(self.channel.clone()));
        for (name, number) in [("order", self.priority), ("weight", self.weight)] {
            if let Some(number) = number {
                entry.insert(name.into(), number.into());
            }
        }
        Value::Object(entry)
    }

    /// The entry as it was; `None` where what is kept is no JSON.
    fn value(self) -> Option<Value> {
        match &self.item {
            Some(text) => serde_json::from_str(text).ok(),
            None => Some(self.value_of_columns()),
        }
    }
}

/// The list's texts, where it is a list of texts.
fn texts(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

fn mapping(value: &Value) -> Option<Vec<Mapped>> {
    value.as_array()?.iter().map(Mapped::of).collect()
}
