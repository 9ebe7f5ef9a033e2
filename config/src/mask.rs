//! What may be shown of a file that holds keys.
//!
//! Two views are laid over each other. The tree knows exactly where the values of secret fields
//! stand. The text is looked at line by line as well ([`lexical`]): it knows less, but it also
//! works where the YAML is broken, in comments, and where a secret stands in the wrong place.
//! Showing too little costs a look at the file; showing too much costs a key.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use crate::schema::{self, Schema};
use crate::source::Lines;
use crate::tree::{Node, Span, Value};
use crate::yaml::Parsed;

pub(crate) mod lexical;
pub(crate) mod names;

/// Shortest secret that is looked for in lines, and in messages.
const IN_LINES: usize = 4;
const IN_MESSAGES: usize = 8;

/// Knows what to hide.
pub(crate) struct Masker<'a> {
    lines: &'a Lines<'a>,
    /// Whether the file could not be read as YAML, so that only the text speaks.
    blind: bool,
    /// Character ranges by line, from the tree.
    known: HashMap<usize, Vec<Range<usize>>>,
    /// Lines that continue a secret value, where the text alone speaks.
    hidden: HashSet<usize>,
    /// Secrets by their first bytes, so that a text is searched for ten thousand at once.
    secrets: HashMap<[u8; IN_LINES], HashSet<Arc<str>>>,
}

impl<'a> Masker<'a> {
    pub(crate) fn new(lines: &'a Lines<'a>, parsed: &Parsed) -> Self {
        let blind = parsed.root.is_none();
        let hidden = if blind { lexical::continuations(lines) } else { HashSet::new() };
        let mut masker = Self { lines, blind, known: HashMap::new(), hidden, secrets: HashMap::new() };
        if let Some(root) = &parsed.root {
            masker.walk(root, Some(schema::root()));
        }
        for node in &parsed.dropped {
            masker.hide(node, false);
        }
        for span in &parsed.torn {
            masker.cover(*span);
        }
        masker
    }

    /// The character ranges of a line that may not be shown.
    pub(crate) fn line(&self, number: usize) -> Vec<Range<usize>> {
        let chars: Vec<char> = self.lines.get(number).chars().collect();
        if self.hidden.contains(&number) {
            let indent = chars.iter().take_while(|c| c.is_whitespace()).count();
            return std::iter::once(indent..chars.len()).collect();
        }
        let mut ranges = lexical::names(&chars);
        if self.blind {
            ranges.extend(lexical::strangers(&chars));
        }
        ranges.extend(lexical::tokens(&chars));
        ranges.extend(self.known.get(&number).into_iter().flatten().cloned());
        ranges.extend(self.occurrences(&chars, IN_LINES));
        ranges
    }

    /// A message or a path without anything that is or looks like a key.
    pub(crate) fn message(&self, text: &str) -> String {
        let chars: Vec<char> = text.chars().collect();
        let mut ranges = lexical::tokens(&chars);
        ranges.extend(self.occurrences(&chars, IN_MESSAGES));
        cut(&chars, &ranges)
    }

    fn occurrences(&self, chars: &[char], least: usize) -> Vec<Range<usize>> {
        let text: String = chars.iter().collect();
        let mut ranges = Vec::new();
        for (index, (at, _)) in text.char_indices().enumerate() {
            let rest = &text[at..];
            let candidates = rest.as_bytes().first_chunk().and_then(|first| self.secrets.get(first));
            for secret in candidates.into_iter().flatten() {
                if secret.len() >= least && rest.starts_with(&**secret) {
                    ranges.push(index..index + secret.chars().count());
                }
            }
        }
        ranges
    }

    fn walk(&mut self, node: &Node, schema: Option<&'static Schema>) {
        let Some(schema) = schema else { return self.hide(node, false) };
        if schema.is_secret() {
            return self.hide(node, true);
        }
        let planned = schema.planned.is_some();
        let schema = schema.resolve();
        let Some(shape) = schema.shapes().into_iter().find(|shape| shape.takes(node.kind())) else {
            // A section where a word belongs, or the reverse: what it holds is anyone's guess. But
            // in place of a list of words, one word is one of these.
            let word = !matches!(node.value, Value::List(_) | Value::Map(_));
            if !word || !(planned || schema.shows_words()) {
                self.hide(node, false);
            }
            return;
        };
        match &node.value {
            Value::List(items) => items.iter().for_each(|item| self.walk(item, shape.items())),
            Value::Map(entries) => {
                for entry in entries {
                    let field = shape.properties.get(&entry.key).or_else(|| shape.values());
                    let field = field.or_else(|| names::typo(&entry.key, shape));
                    self.walk(&entry.node, field);
                }
            }
            // A private key where its file's path belongs.
            Value::Text(text) if text.contains("-----BEGIN") => self.hide(node, true),
            // Key and address are easily swapped.
            Value::Text(text) if shape.kind() == Some("url") && !looks_like_url(text) => {
                self.cover(node.span);
            }
            _ => {}
        }
    }

    /// Hides every scalar of a value: where it stands, and if it is a secret for sure, wherever
    /// it appears.
    fn hide(&mut self, node: &Node, everywhere: bool) {
        match &node.value {
            Value::List(items) => items.iter().for_each(|item| self.hide(item, everywhere)),
            Value::Map(entries) => entries.iter().for_each(|entry| self.hide(&entry.node, everywhere)),
            Value::Null => {}
            Value::Text(text) => {
                self.cover(node.span);
                if let Some(first) = text.as_bytes().first_chunk().filter(|_| everywhere) {
                    self.secrets.entry(*first).or_default().insert(Arc::clone(text));
                }
            }
            Value::Bool(_) | Value::Number(_) => self.cover(node.span),
        }
    }

    fn cover(&mut self, span: Span) {
        for line in span.start.line..=span.end.line.min(self.lines.count()) {
            let from = if line == span.start.line { span.start.column - 1 } else { 0 };
            let until = if line == span.end.line {
                span.end.column - 1
            } else {
                self.lines.get(line).chars().count()
            };
            if from < until {
                self.known.entry(line).or_default().push(from..until);
            }
        }
    }
}

fn looks_like_url(text: &str) -> bool {
    !text.contains(char::is_whitespace)
        && (text.contains("://") || text.contains('.') || text.starts_with("localhost"))
}

/// The text with these ranges replaced by `***`.
fn cut(chars: &[char], ranges: &[Range<usize>]) -> String {
    let mut out = String::with_capacity(chars.len());
    let mut hidden = false;
    for (at, c) in chars.iter().enumerate() {
        let hide = ranges.iter().any(|range| range.contains(&at));
        if !hide {
            out.push(*c);
        } else if !hidden {
            out.push_str("***");
        }
        hidden = hide;
    }
    out
}

#[cfg(test)]
mod tests;
