//! Walks the tree along the schema, names every problem, and takes out what is bad so that later
//! checks go on over the rest: unknown keys go, bad values become null in their place.

use std::collections::HashSet;
use std::sync::Arc;

use crate::complaint::{Complaint, shown};
use crate::formats;
use crate::mask::names::{Class, class};
use crate::report::Report;
use crate::schema::Schema;
use crate::secrets::{self, Env};
use crate::source::Source;
use crate::suggest::{nearest, quoted};
use crate::tree::{Entry, Node, Number, Span, Trail, Value};

/// Most names that a message lists.
const LISTED: usize = 16;

/// Checks a tree against a part of the schema. Without a place to expand from, values stand for
/// themselves: `${HOME}` is a dollar, a brace, and so on.
pub(crate) fn validate_part(
    part: &mut Node,
    schema: &'static Schema,
    expand: Option<(&Source, Env<'_>)>,
    report: &mut Report,
) {
    validate_at(part, schema, &Trail::default(), expand, report);
}

/// Checks a tree that is said to stand at the end of a way.
pub(crate) fn validate_at(
    part: &mut Node,
    schema: &'static Schema,
    trail: &Trail,
    expand: Option<(&Source, Env<'_>)>,
    report: &mut Report,
) {
    let start = Span::at(part.span.start);
    Validator { expand, report }.node(part, schema, trail, start);
}

struct Validator<'a> {
    expand: Option<(&'a Source, Env<'a>)>,
    report: &'a mut Report,
}

impl Validator<'_> {
    /// `at` is where a section is said to be: its key.
    fn node(&mut self, node: &mut Node, schema: &'static Schema, trail: &Trail, at: Span) {
        let schema = schema.resolve();
        let shapes = schema.shapes();
        // A section with all of its lines commented out is an empty one. A list is not: "no
        // addresses" must not silently become "every address".
        if matches!(node.value, Value::Null) && shapes.iter().all(|shape| shape.types() == ["object"]) {
            node.value = Value::Map(Vec::new());
        }
        let Some(shape) = shapes.iter().find(|shape| shape.takes(node.kind())) else {
            let span = if is_section(&node.value) { at } else { node.span };
            self.report.error(trail, span, wrong_type(node, schema));
            node.value = Value::Null;
            return;
        };
        let fine = match &mut node.value {
            Value::Map(entries) => {
                self.map(entries, shape, trail, at);
                true
            }
            Value::List(items) => self.list(items, shape, trail, at),
            value => match self.scalar(value, shape) {
                Ok(()) => true,
                Err(complaint) => {
                    self.report.error(trail, node.span, complaint);
                    false
                }
            },
        };
        if !fine {
            node.value = Value::Null;
        }
    }

    fn list(&mut self, items: &mut [Node], shape: &'static Schema, trail: &Trail, at: Span) -> bool {
        if items.len() < shape.min_items.unwrap_or(0) {
            let message = "the list is empty";
            self.report.error(
                trail,
                at,
                Complaint::new(message, "remove the field, or write what belongs into it"),
            );
            return false;
        }
        if let Some(schema) = shape.items() {
            for (index, item) in items.iter_mut().enumerate() {
                let span = item.span;
                self.node(item, schema, &trail.index(index), span);
            }
        }
        true
    }

    fn map(&mut self, entries: &mut Vec<Entry>, shape: &'static Schema, trail: &Trail, at: Span) {
        let mut present: HashSet<Arc<str>> = entries.iter().map(|entry| Arc::clone(&entry.key)).collect();
        entries.retain_mut(|entry| self.entry(entry, shape, trail, &mut present));
        for name in &shape.required {
            if !entries.iter().any(|entry| &*entry.key == name) {
                let example = shape.properties.get(name).and_then(|field| field.examples.first());
                let complaint = match example {
                    Some(example) => Complaint::new(
                        format!("`{name}` is missing"),
                        format!("add a line such as `{name}: {}`", plain(example)),
                    ),
                    None => Complaint::bare(format!("`{name}` is missing")),
                };
                self.report.error(&trail.key(name), at, complaint);
            }
        }
    }

    /// Whether the entry stays.
    fn entry(
        &mut self,
        entry: &mut Entry,
        shape: &'static Schema,
        trail: &Trail,
        present: &mut HashSet<Arc<str>>,
    ) -> bool {
        let key = name_of(&entry.key);
        let inner = trail.key(&key);
        let span = entry.key_span;
        if let Some(line) = entry.duplicate {
            let message = format!("{} is given twice: first on line {line}", shown(&key));
            self.report.error(&inner, span, Complaint::new(message, "keep one of the two"));
            return false;
        }
        let field = shape.properties.get(&entry.key);
        if let Some(planned) = field.and_then(|field| field.planned.as_deref()) {
            let message = format!("`{key}` is not available in this version: {planned}");
            self.report.error(&inner, span, Complaint::new(message, "remove it"));
            return false;
        }
        if let Some(schema) = field {
            self.node(&mut entry.node, schema, &inner, span);
            return true;
        }
        if let Some(schema) = shape.values() {
            let kind = shape.property_names.as_deref().and_then(Schema::kind);
            if let Some(Err(complaint)) =
                kind.map(|kind| formats::check(kind, &Value::Text(key.as_str().into())))
            {
                self.report.error(&inner, span, complaint);
            }
            self.node(&mut entry.node, schema, &inner, span);
            return true;
        }
        if shape.is_closed() {
            self.report.error(&inner, span, unknown(&key, shape));
        }
        // A slip is read as what it means, so that it is one problem and not a dozen.
        let Some((name, schema)) =
            available(shape).find(|(name, _)| nearest(&key, known(shape)) == Some(name))
        else {
            return false;
        };
        let kept = present.insert(Arc::from(name));
        if kept {
            entry.key = Arc::from(name);
            self.node(&mut entry.node, schema, &trail.key(name), span);
        }
        kept
    }

    fn scalar(&self, value: &mut Value, shape: &'static Schema) -> Result<(), Complaint> {
        if let Value::Text(text) = value {
            match self.expand {
                Some((source, env)) if shape.is_secret() => {
                    *text = secrets::expand(text, source, env)?.into();
                    return Ok(());
                }
                None if shape.is_secret() => return Ok(()),
                Some(_) => secrets::refuse(text)?,
                None => {}
            }
            if !shape.choices.is_empty() && !shape.choices.iter().any(|choice| **choice == **text) {
                return Err(not_a_choice(text, &shape.choices));
            }
        }
        if let Some(kind) = shape.kind() {
            formats::check(kind, value)?;
        }
        if let Value::Number(number) = value {
            bounds(number, shape)?;
        }
        Ok(())
    }
}

/// Whether a number is within the bounds of the schema. One that is no number is in none.
fn bounds(number: &Number, shape: &Schema) -> Result<(), Complaint> {
    let written = number.whole.map_or_else(|| shown(&number.text), |whole| whole.to_string());
    let wrong = |what: &str, how: String| Err(Complaint::new(format!("{written} is {what}"), how));
    let at_least = |bound: i64| number.float >= bound as f64;
    match (shape.minimum, shape.exclusive_minimum, shape.maximum) {
        (Some(minimum), ..) if !at_least(minimum) => wrong("too small", format!("write at least {minimum}")),
        (_, Some(bound), _) if !at_least(bound) || number.float == bound as f64 => {
            wrong("too small", format!("write more than {bound}"))
        }
        (.., Some(maximum)) if number.float > maximum as f64 => {
            wrong("too large", format!("write at most {maximum}"))
        }
        _ => Ok(()),
    }
}

fn is_section(value: &Value) -> bool {
    matches!(value, Value::List(_) | Value::Map(_) | Value::Null)
}

/// A key as messages and paths show it. Where a space is missing after the colon, a key holds a
/// value as well (`proxy_key:pk_1`): that part is left out.
fn name_of(key: &str) -> String {
    match key.split_once([':', '=', '：']) {
        Some((name, rest)) if !rest.is_empty() && class(name) == Class::Secret => format!("{name}:…"),
        _ => key.to_owned(),
    }
}

fn unknown(key: &str, shape: &'static Schema) -> Complaint {
    let message = format!("unknown key {}", shown(key));
    if let Some(name) = key.strip_suffix(":…") {
        return Complaint::new(message, format!("write a space after the colon: `{name}: …`"));
    }
    match nearest(key, known(shape)) {
        Some(name) => Complaint::new(message, format!("did you mean `{name}`?")),
        None if known(shape).count() <= LISTED => {
            Complaint::new(message, format!("known here: {}", quoted(known(shape))))
        }
        None => Complaint::bare(message),
    }
}

/// The fields of a section that this version has.
fn available(shape: &'static Schema) -> impl Iterator<Item = (&'static str, &'static Schema)> {
    shape
        .properties
        .0
        .iter()
        .filter(|(_, field)| field.planned.is_none())
        .map(|(name, field)| (name.as_str(), field))
}

fn known(shape: &'static Schema) -> impl Iterator<Item = &'static str> {
    available(shape).map(|(name, _)| name)
}

fn not_a_choice(text: &str, choices: &[String]) -> Complaint {
    let all = quoted(choices.iter().map(String::as_str));
    match nearest(text, choices.iter().map(String::as_str)) {
        Some(choice) => Complaint::new(
            format!("{} is not one of {all}", shown(text)),
            format!("did you mean `{choice}`?"),
        ),
        None if choices.len() == 1 => {
            Complaint::new(format!("{} is not known here", shown(text)), format!("write {all}"))
        }
        None => Complaint::new(format!("{} is not known here", shown(text)), format!("write one of {all}")),
    }
}

fn wrong_type(node: &Node, schema: &'static Schema) -> Complaint {
    let secret = !schema.shows_words();
    let mut wanted: Vec<&str> = schema.shapes().iter().flat_map(|shape| shape.types()).collect();
    wanted.dedup();
    let names: Vec<&str> = wanted.iter().map(|kind| name_of_kind(kind)).collect();
    let expected = names.join(" or ");
    let takes_text = wanted.contains(&"string");
    let found = match &node.value {
        Value::Null => {
            return Complaint::new(
                format!("there is no value: expected {expected}"),
                "write a value, or remove the line",
            );
        }
        Value::Bool(flag) if !secret => format!("`{flag}`"),
        Value::Number(number) if !secret => format!("the number {}", shown(&number.text)),
        Value::Text(text) if !secret => format!("the text {}", shown(text)),
        Value::Bool(_) => "true or false".to_owned(),
        Value::Number(_) => "a number".to_owned(),
        Value::Text(_) => "a text".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a mapping".to_owned(),
    };
    let message = format!("expected {expected}, found {found}");
    match &node.value {
        Value::Number(number) if takes_text && !secret => {
            Complaint::new(message, format!("put it in quotes: `\"{}\"`", number.text))
        }
        Value::Bool(flag) if takes_text && !secret => {
            Complaint::new(message, format!("put it in quotes: `\"{flag}\"`"))
        }
        Value::Number(_) | Value::Bool(_) if takes_text => Complaint::new(message, "put it in quotes"),
        Value::Text(text) if wanted == ["array"] && !secret && !text.is_empty() && text.len() <= 64 => {
            Complaint::new(message, format!("write a list: `[{text}]`"))
        }
        Value::Text(text)
            if wanted == ["boolean"] && ["yes", "on", "1"].contains(&text.to_lowercase().as_str()) =>
        {
            Complaint::new(message, "write `true`")
        }
        Value::Text(text)
            if wanted == ["boolean"] && ["no", "off", "0"].contains(&text.to_lowercase().as_str()) =>
        {
            Complaint::new(message, "write `false`")
        }
        Value::Text(text) if wanted == ["integer"] && text.parse::<i64>().is_ok() => {
            Complaint::new(message, "remove the quotes")
        }
        _ => Complaint::bare(message),
    }
}

fn name_of_kind(kind: &str) -> &str {
    match kind {
        "string" => "a text",
        "array" => "a list",
        "object" => "a mapping",
        "boolean" => "`true` or `false`",
        "integer" => "a whole number",
        "number" => "a number",
        other => other,
    }
}

/// An example value as it stands in YAML.
fn plain(example: &serde_json::Value) -> String {
    example.as_str().map_or_else(|| example.to_string(), str::to_owned)
}
