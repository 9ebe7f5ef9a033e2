//! Answers as people read them.

use std::fmt::Write as _;

use serde_json::Value;

pub(super) use crate::table::plain;

/// A column: its heading, and where its text comes from.
pub(super) type Column = (&'static str, &'static str);

/// A list as aligned columns. A path such as `actor.name` leads into objects.
pub(super) fn table(items: &Value, columns: &[Column]) -> String {
    let head: Vec<String> = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    let rows = items
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| columns.iter().map(|(_, path)| cell(at(item, path))).collect::<Vec<_>>());
    crate::table::aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// An object, a field on a line.
pub(super) fn fields(object: &Value) -> String {
    let Some(map) = object.as_object() else { return cell(object) };
    let rows =
        map.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| vec![plain(name), cell(value)]);
    crate::table::aligned(&rows.collect::<Vec<_>>())
}

/// What was under way and has been cut.
pub(super) fn cut(answer: &Value) -> String {
    match answer["cut"].as_array().map(Vec::as_slice) {
        None | Some([]) => "nothing was under way".to_owned(),
        Some(cut) => {
            let columns = [
                ("CUT", "id"),
                ("KIND", "kind"),
                ("CHANNEL", "channel"),
                ("MODEL", "model"),
                ("STARTED", "started_at"),
            ];
            format!("{} cut\n{}", cut.len(), table(&answer["cut"], &columns))
        }
    }
}

fn at<'a>(item: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(item, |value, name| &value[name])
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => plain(text),
        Value::Array(list) if list.iter().all(|item| !item.is_object()) => {
            list.iter().map(cell).collect::<Vec<_>>().join(",")
        }
        Value::Array(list) => {
            let mut out = String::new();
            for item in list {
                let separator = if out.is_empty() { "" } else { "," };
                let name = ["id", "channel"].iter().map(|field| &item[*field]).find(|it| it.is_string());
                let _ = write!(out, "{separator}{}", name.map_or_else(|| plain(&item.to_string()), cell));
            }
            out
        }
        other => plain(&other.to_string()),
    }
}
