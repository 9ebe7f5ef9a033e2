//! The schema as a page of documentation.

use std::fmt::Write as _;

use crate::schema::{self, Schema};

const HEAD: &str = "# Configuration reference

<!-- Made from config/schema.json: edit that, then run `UPDATE_DOCS=1 cargo nextest run -p aiproxy-config`. -->

One YAML file holds users, channels and settings. `aiproxy check FILE` names every mistake in it, with line and column; `aiproxy schema` prints the JSON Schema for editors. Files to start from are in [`examples/`](../examples).

- Durations are `250ms`, `30s`, `5m`, `1h`, `1d` or plain seconds; sizes are `64KiB`, `1MiB`, `10MB` or plain bytes.
- `${NAME}` takes a value from the environment and `file:PATH` one from a file, in fields marked *secret* only. `$${` stands for the characters `${`.
- Relative paths start from the folder of the file.
- Unknown fields are refused, as are fields of later releases, which the last section lists.
";

/// The reference page in Markdown: every field with what it is, its default and examples.
#[must_use]
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    let mut planned = Vec::new();
    for (name, field) in &schema::root().properties.0 {
        if let Some(why) = &field.planned {
            planned.push((name.clone(), why.as_str()));
            continue;
        }
        let inner = field.resolve();
        let (title, body) = match inner.values() {
            Some(values) => (format!("{name}.ID"), values),
            None => (name.clone(), inner),
        };
        let _ = write!(page, "\n## `{name}`\n\n{}\n", field.description.as_deref().unwrap_or_default());
        if let Some(description) = body.description.as_deref().filter(|_| inner.values().is_some()) {
            let _ = write!(page, "\nEach `{title}`: {description}\n");
        }
        page.push_str("\n| field | type | default | what it is |\n|---|---|---|---|\n");
        rows(&mut page, &mut planned, "", &title, body);
    }
    page.push_str("\n## Not available in this version\n\n| field | why |\n|---|---|\n");
    for (path, why) in planned {
        let _ = writeln!(page, "| `{path}` | {why} |");
    }
    page
}

/// The rows of a section's fields, sections inside it included.
fn rows(
    page: &mut String,
    planned: &mut Vec<(String, &'static str)>,
    prefix: &str,
    path: &str,
    section: &'static Schema,
) {
    for (name, field) in &section.properties.0 {
        let path = format!("{path}.{name}");
        if let Some(why) = &field.planned {
            planned.push((path, why));
            continue;
        }
        let required = section.required.contains(name);
        let name = format!("{prefix}{name}");
        row(page, &name, field, required);
        rows(page, planned, &format!("{name}."), &path, field.resolve());
        for item in field.resolve().items().into_iter().flat_map(Schema::shapes) {
            rows(page, planned, &format!("{name}[]."), &path, item.resolve());
        }
        if let Some(values) = field.resolve().values() {
            rows(page, planned, &format!("{name}.NAME."), &format!("{path}.NAME"), values);
        }
        // Of several shapes, the mapping's fields are told once.
        let shape = field
            .resolve()
            .shapes()
            .into_iter()
            .find(|shape| !std::ptr::eq(*shape, field.resolve()) && !shape.properties.0.is_empty());
        if let Some(shape) = shape {
            rows(page, planned, &format!("{name}."), &path, shape);
        }
    }
}

fn row(page: &mut String, name: &str, field: &'static Schema, required: bool) {
    let default = match (&field.default, required) {
        (Some(value), _) => code(value),
        (None, true) => "*required*".to_owned(),
        (None, false) => String::new(),
    };
    let examples: Vec<String> = field.examples.iter().map(code).collect();
    let mut what = field.description.clone().unwrap_or_default();
    if !examples.is_empty() {
        let _ = write!(what, " Example: {}.", examples.join(", "));
    }
    let _ = writeln!(page, "| `{name}` | {} | {default} | {} |", kind(field), what.replace('|', "\\|"));
}

/// What a value is, for people.
fn kind(field: &'static Schema) -> String {
    let schema = field.resolve();
    if !schema.choices.is_empty() {
        return schema.choices.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", ");
    }
    let word = |schema: &'static Schema| match (schema.kind(), schema.types().first().copied()) {
        (Some("secret"), _) => "*secret*",
        (Some("duration"), _) => "duration",
        (Some("size"), _) => "size",
        (Some("cidr"), _) => "address or network",
        (Some("url"), _) => "URL",
        (Some("moment"), _) => "date or time",
        (Some("path" | "request-path" | "pem-file"), _) => "path",
        (Some("listen"), _) => "address:port",
        (Some("listen-or-off"), _) => "address:port or `off`",
        (_, Some("array")) => "list",
        (_, Some("object")) => "mapping",
        (_, Some("integer")) => "whole number",
        (_, Some("number")) => "number",
        (_, Some("boolean")) => "`true`, `false`",
        _ => "text",
    };
    match (schema.items(), schema.values()) {
        (Some(items), _) => format!("list: {}", word(items)),
        (_, Some(values)) => format!("mapping: {}", word(values)),
        _ => {
            let mut words: Vec<&str> = schema.shapes().into_iter().map(word).collect();
            words.dedup();
            words.join(" or ")
        }
    }
}

/// A value as it stands in YAML, in flow style.
fn code(value: &serde_json::Value) -> String {
    fn flow(value: &serde_json::Value) -> String {
        match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Array(items) => {
                format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
            }
            serde_json::Value::Object(map) => {
                let fields: Vec<String> =
                    map.iter().map(|(key, value)| format!("{key}: {}", flow(value))).collect();
                format!("{{{}}}", fields.join(", "))
            }
            other => other.to_string(),
        }
    }
    match flow(value) {
        text if text.is_empty() => "empty".to_owned(),
        text => format!("`{text}`"),
    }
}
