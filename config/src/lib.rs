//! The configuration: a YAML file → an immutable [`model::Snapshot`], or every problem at once.
//!
//! Owns: the schema of the file (`schema.json`, which editors, the validator and the reference
//! page share), reading it with places kept, checking it, putting secrets from the environment
//! and from files in place, and telling people what is wrong without ever showing a key.
//! Never does: watching for changes, applying them, opening sockets, deciding about a request.
//! It reads the file, what `file:` and `ca` name, and the environment; nothing else.
//!
//! A file passes through these stages, each of which reports all it finds:
//!
//! - `source`: text, lines, and the folder that relative paths start from
//! - `yaml`, `scalar`, `tree`: YAML → located tree, bounded
//! - `schema`, `validate`, `formats`: the tree against the schema; bad parts are taken out
//! - `secrets`: `${NAME}` and `file:PATH`
//! - `raw`, `de`: the tree as typed structs
//! - `build`: what only the whole shows: references, duplicates, risks → [`model`]
//! - [`catalog`]: documents, from the database, to the same models, a few at a time
//! - [`entity`]: documents one by one: what may be shown of them, and how they change
//! - [`mod@diff`]: what differs between two of those
//! - `report`, `mask`, `excerpt`, [`problem`]: what people see of a problem, keys hidden
//! - `suggest`, `complaint`, `units`, `net`, `paths`, `headers`, `moment`, `base_url`: formats
//! - `egress`, `reach`: the way to a platform
//! - `reference`: the schema as a page of documentation

use std::path::Path;

pub mod catalog;
pub mod diff;
pub mod entity;
pub mod model;
pub mod problem;

mod base_url;
mod build;
mod complaint;
mod de;
mod egress;
mod excerpt;
mod formats;
mod headers;
mod mask;
mod moment;
mod net;
mod paths;
mod raw;
mod reach;
mod reference;
mod report;
mod scalar;
mod schema;
mod secrets;
mod source;
mod suggest;
mod tree;
mod units;
mod validate;
mod yaml;

pub use catalog::Catalog;
pub use diff::diff;
pub use problem::{Problem, Problems, Severity};
pub use reference::reference;
pub use source::Source;

use aiproxy_core::EntityKind;

use complaint::Complaint;
use mask::Masker;
use report::Report;
use source::Lines;
use tree::{Node, Pos, Span, Trail};

/// Longest file.
const LONGEST: u64 = 16 * 1024 * 1024;

/// A configuration that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub snapshot: model::Snapshot,
    /// Users, those without a key among them.
    pub users: usize,
    /// Whether the file manages users and channels: it has one of their sections.
    pub manages: bool,
    /// What the sections hold, as documents.
    pub documents: Vec<entity::Document>,
    /// What is probably not as meant, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Reads a configuration file, with secrets from the environment and from files.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_file(path: &Path) -> Result<Loaded, Problems> {
    let source = Source::file(path);
    match secrets::bounded(path, LONGEST) {
        Ok(bytes) => load_bytes(&bytes, &source, &|name| std::env::var(name).ok()),
        Err(complaint) => Err(unreadable(&source, Pos::START, Complaint { suggestion: None, ..complaint })),
    }
}

/// Reads a configuration from the bytes of a file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_bytes(
    bytes: &[u8],
    source: &Source,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Problems> {
    match std::str::from_utf8(bytes) {
        Ok(text) => load_str(text, source, env),
        Err(error) => {
            let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let lines = Lines::new(&valid);
            let line = lines.count();
            let place = Pos { line, column: lines.get(line).chars().count() + 1 };
            let complaint = Complaint::new(
                "the file is not in UTF-8",
                "save it in UTF-8; editors call this the encoding",
            );
            Err(unreadable(source, place, complaint))
        }
    }
}

/// Reads a configuration from a text; `env` gives the values of environment variables.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_str(
    text: &str,
    source: &Source,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Problems> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() as u64 > LONGEST {
        return Err(unreadable(source, Pos::START, Complaint::bare("the file is larger than 16 MiB")));
    }
    let lines = Lines::new(text);
    let mut parsed = yaml::parse(text, &lines);
    let masker = Masker::new(&lines, &parsed);
    let mut report = Report::default();
    for fault in std::mem::take(&mut parsed.faults) {
        let complaint = Complaint { message: fault.message, suggestion: fault.suggestion.map(str::to_owned) };
        report.error(&Trail::default(), fault.span, complaint);
    }
    let read = parsed.root.and_then(|root| read(root, source, env, &mut report));
    if read.is_none() && !report.has_errors() {
        report.error(
            &Trail::default(),
            Span::at(Pos::START),
            Complaint::new("the file is empty", "start from an example"),
        );
    }
    let failed = report.has_errors();
    let (problems, more) = report.finish(source, &lines, &masker);
    match read {
        Some(Read { snapshot, manages, documents }) if !failed => {
            let users = documents.iter().filter(|it| it.kind == EntityKind::User).count();
            Ok(Loaded { snapshot, users, manages, documents, warnings: problems })
        }
        _ => Err(Problems::new(problems, more)),
    }
}

/// What a file says.
struct Read {
    snapshot: model::Snapshot,
    manages: bool,
    documents: Vec<entity::Document>,
}

/// The stages after YAML.
fn read(
    mut root: Node,
    source: &Source,
    env: &dyn Fn(&str) -> Option<String>,
    report: &mut Report,
) -> Option<Read> {
    if matches!(root.value, tree::Value::Null) {
        return None;
    }
    let literal =
        root.entry("literal").is_some_and(|entry| matches!(entry.node.value, tree::Value::Bool(true)));
    let sections = [EntityKind::User, EntityKind::Group, EntityKind::Channel].map(entity::section);
    let manages = sections.into_iter().any(|name| root.entry(name).is_some());
    let expand = (!literal).then_some((source, env));
    validate::validate_part(&mut root, schema::root(), expand, report);
    match serde::Deserialize::deserialize(&root) {
        Ok(raw) => {
            let snapshot = build::build(raw, &root, source, literal, report)?;
            Some(Read { snapshot, manages, documents: entity::of_file(&root, source) })
        }
        Err(_) => {
            // The error may quote a value. A test makes sure that this cannot happen.
            let complaint =
                Complaint::bare("the configuration does not have the shape that its schema promises");
            if !report.has_errors() {
                report.error(&Trail::default(), Span::at(Pos::START), complaint);
            }
            None
        }
    }
}

/// The text of a file without its users, groups and channels; comments and settings stay as they are. Where
/// that cannot be had (the sections stand in braces, or settings refer into them), the settings are written
/// anew. `None` where the text is no mapping.
#[must_use]
pub fn without_documents(text: &str) -> Option<String> {
    let lines = Lines::new(text);
    let root = yaml::parse(text, &lines).root?;
    let tree::Value::Map(entries) = &root.value else { return None };
    let goes = |name: &str| ["users", "groups", "channels"].contains(&name);
    let rest: serde_json::Map<String, serde_json::Value> = entries
        .iter()
        .filter(|entry| !goes(&entry.key))
        .map(|entry| (entry.key.to_string(), entity::value(&entry.node)))
        .collect();
    let cut = cut_lines(&lines, entries, goes);
    let says = |text: &str| {
        let lines = Lines::new(text);
        yaml::parse(text, &lines).root.map(|root| entity::value(&root))
    };
    let wanted = serde_json::Value::Object(rest);
    if says(&cut).as_ref() == Some(&wanted) {
        return Some(cut);
    }
    if wanted.as_object().is_none_or(serde_json::Map::is_empty) {
        return Some("system: {}\n".to_owned());
    }
    serde_yaml::to_string(&wanted).ok()
}

/// The lines of a block mapping without those of some of its entries.
fn cut_lines(lines: &Lines<'_>, entries: &[tree::Entry], goes: impl Fn(&str) -> bool) -> String {
    let mut starts: Vec<(usize, bool)> =
        entries.iter().map(|entry| (entry.key_span.start.line, goes(&entry.key))).collect();
    starts.sort_unstable();
    let mut kept = String::new();
    for (index, line) in lines.iter().enumerate() {
        let within = starts.iter().rev().find(|(start, _)| *start <= index + 1);
        let is_comment = line.starts_with('#');
        if within.is_none_or(|(_, goes)| !goes) || is_comment {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

fn unreadable(source: &Source, place: Pos, complaint: Complaint) -> Problems {
    let problem = Problem {
        severity: Severity::Error,
        file: source.name.clone(),
        path: String::new(),
        line: place.line,
        column: place.column,
        message: complaint.message,
        suggestion: complaint.suggestion,
        excerpt: None,
    };
    Problems::new(vec![problem], 0)
}

/// The JSON Schema of the file (draft 2020-12), for editors.
#[must_use]
pub fn schema() -> &'static str {
    schema::TEXT
}

#[cfg(test)]
mod tests;
