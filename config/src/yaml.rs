//! YAML text → located tree, through the events of saphyr's parser.
//!
//! Bounded in every direction: a file may not make the tree deeper, or by aliases larger, than a
//! configuration can be.

use std::collections::{HashMap, hash_map};
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as Marked, Tag};

use crate::scalar;
use crate::source::Lines;
use crate::tree::{Entry, Node, Pos, Span, Value};

mod advice;

/// Deepest nesting.
const DEPTH: usize = 64;
/// Most values, aliases counted as often as they are used, long texts by their length.
const NODES: usize = 1_000_000;

/// Something wrong with the YAML itself.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) suggestion: Option<&'static str>,
}

/// What a text says, as far as it could be read.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    /// The document; `None` where the text has none or reading broke off.
    pub(crate) root: Option<Node>,
    pub(crate) faults: Vec<Fault>,
    /// Values that are in the file but not in the tree.
    pub(crate) dropped: Vec<Node>,
    /// Places of keys without a value, which may be torn off something secret.
    pub(crate) torn: Vec<Span>,
}

/// Reads one document. The text has no byte order mark.
pub(crate) fn parse(text: &str, lines: &Lines<'_>) -> Parsed {
    let mut builder =
        Builder { lines, out: Parsed::default(), stack: Vec::new(), anchors: HashMap::new(), nodes: 0 };
    let broken = match control(lines) {
        Some(fault) => Err(fault),
        None => builder.run(text),
    };
    let mut out = builder.out;
    if let Err(fault) = broken {
        out.root = None;
        out.faults.push(fault);
    }
    out
}

/// The parser takes NUL for the end and lets other control characters through; YAML has neither.
fn control(lines: &Lines<'_>) -> Option<Fault> {
    lines.iter().enumerate().find_map(|(index, line)| {
        let (column, c) =
            line.chars().enumerate().find(|(_, c)| c.is_control() && *c != '\t' && *c != '\u{85}')?;
        let message = format!("the control character U+{:04X} is not allowed", u32::from(c));
        Some(Fault {
            span: Span::at(Pos { line: index + 1, column: column + 1 }),
            message,
            suggestion: Some(
                "remove it; in a double-quoted value it can be written as an escape such as `\\x00`",
            ),
        })
    })
}

struct Builder<'a> {
    lines: &'a Lines<'a>,
    out: Parsed,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Option<Node>>,
    nodes: usize,
}

struct Frame {
    span: Span,
    anchor: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: HashMap<Arc<str>, usize>, merges: Vec<Node>, key: Option<Key> },
}

struct Key {
    text: Arc<str>,
    span: Span,
    merge: bool,
}

impl Builder<'_> {
    fn run(&mut self, text: &str) -> Result<(), Fault> {
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, marked) =
                event.map_err(|error| advice::syntax(error.info(), self.place(*error.marker())))?;
            let span = self.span(marked);
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(fault(
                            span,
                            "a second document begins here",
                            "keep one document: remove this `---` and what follows",
                        ));
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.scalar(&text, style, anchor, tag.as_deref(), span)?;
                }
                Event::Alias(anchor) => self.alias(anchor, span)?,
                Event::SequenceStart(anchor, tag) => {
                    self.open(anchor, tag.as_deref(), span, Kind::List(Vec::new()))?;
                }
                Event::MappingStart(anchor, tag) => {
                    let kind = Kind::Map {
                        entries: Vec::new(),
                        seen: HashMap::new(),
                        merges: Vec::new(),
                        key: None,
                    };
                    self.open(anchor, tag.as_deref(), span, kind)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close()?,
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        Ok(())
    }

    fn place(&self, marker: saphyr_parser::Marker) -> Pos {
        let pos = Pos { line: marker.line().max(1), column: marker.col() + 1 };
        // The end of the text may count as a line of its own.
        if pos.line <= self.lines.count() {
            return pos;
        }
        let line = self.lines.count();
        Pos { line, column: self.lines.get(line).chars().count() + 1 }
    }

    fn span(&self, marked: Marked) -> Span {
        Span { start: self.place(marked.start), end: self.place(marked.end) }
    }

    fn open(&mut self, anchor: usize, tag: Option<&Tag>, span: Span, kind: Kind) -> Result<(), Fault> {
        if self.wants_key() {
            return Err(fault(span, "a key must be a single word or text", "write `key: value`"));
        }
        if self.stack.len() >= DEPTH {
            return Err(fault(span, "the file nests too deeply", "a configuration needs only a few levels"));
        }
        self.check_tag(tag, span);
        self.spend(1, span)?;
        // Until it is closed, an alias to it would contain itself.
        if anchor > 0 {
            self.anchors.insert(anchor, None);
        }
        self.stack.push(Frame { span, anchor, kind });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        let Some(Frame { span, anchor, kind }) = self.stack.pop() else { return Ok(()) };
        let value = match kind {
            Kind::List(items) => Value::List(items),
            Kind::Map { entries, seen, merges, .. } => Value::Map(self.merge(entries, seen, merges)?),
        };
        self.put(Node { value, span }, anchor)
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<(), Fault> {
        self.spend(1 + text.len() / 64, span)?;
        self.check_tag(tag, span);
        if self.wants_key() {
            let merge = style == ScalarStyle::Plain && text == "<<";
            return self.key(Arc::from(text), span, merge);
        }
        let forced = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
        let value = match forced {
            Some("str") => Value::Text(Arc::from(text)),
            Some(_) => scalar::resolve(text),
            None if style == ScalarStyle::Plain => scalar::resolve(text),
            None => Value::Text(Arc::from(text)),
        };
        self.put(Node { value, span }, anchor)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Fault> {
        let Some(Some(node)) = self.anchors.get(&anchor) else {
            return Err(fault(
                span,
                "an alias may not stand inside what it stands for",
                "write the values out",
            ));
        };
        let node = node.clone();
        if self.wants_key() {
            return match &node.value {
                Value::Text(text) => self.key(Arc::clone(text), span, false),
                _ => Err(fault(span, "a key must be a single word or text", "write `key: value`")),
            };
        }
        self.spend(weight(&node), span)?;
        self.put(node, 0)
    }

    fn wants_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame { kind: Kind::Map { key: None, .. }, .. }))
    }

    fn key(&mut self, text: Arc<str>, span: Span, merge: bool) -> Result<(), Fault> {
        if text.is_empty() {
            return Err(fault(span, "a key is missing before the colon", "write `key: value`"));
        }
        if let Some(Frame { kind: Kind::Map { key, .. }, .. }) = self.stack.last_mut() {
            *key = Some(Key { text, span, merge });
        }
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        if anchor > 0 {
            self.spend(weight(&node), node.span)?;
            self.anchors.insert(anchor, Some(node.clone()));
        }
        let lines = self.lines;
        let out = &mut self.out;
        match self.stack.last_mut().map(|frame| &mut frame.kind) {
            None => out.root = Some(node),
            Some(Kind::List(items)) => items.push(node),
            Some(Kind::Map { entries, seen, merges, key }) => {
                let Some(Key { text, span, merge }) = key.take() else { return Ok(()) };
                if merge {
                    merges.push(node);
                    return Ok(());
                }
                if matches!(node.value, Value::Null) && is_torn(lines, span) {
                    out.torn.push(span);
                    out.faults.push(fault(
                        span,
                        "this is neither `key: value` nor part of the value before it",
                        "put a value that holds a comma in quotes",
                    ));
                    return Ok(());
                }
                let duplicate = match seen.entry(Arc::clone(&text)) {
                    hash_map::Entry::Occupied(first) => Some(*first.get()),
                    hash_map::Entry::Vacant(slot) => {
                        slot.insert(span.start.line);
                        None
                    }
                };
                entries.push(Entry { key: text, key_span: span, node, duplicate });
            }
        }
        Ok(())
    }

    /// Adds what `<<` brings: keys that are not there yet, the first source first.
    fn merge(
        &mut self,
        mut entries: Vec<Entry>,
        mut seen: HashMap<Arc<str>, usize>,
        merges: Vec<Node>,
    ) -> Result<Vec<Entry>, Fault> {
        let sources = merges.into_iter().flat_map(|node| match node.value {
            Value::List(items) => items,
            _ => vec![node],
        });
        for source in sources {
            let Value::Map(inner) = source.value else {
                return Err(fault(
                    source.span,
                    "`<<` takes a mapping or a list of mappings",
                    "write `<<: *anchor`",
                ));
            };
            for entry in inner {
                if seen.contains_key(&entry.key) {
                    self.out.dropped.push(entry.node);
                } else {
                    seen.insert(Arc::clone(&entry.key), entry.key_span.start.line);
                    entries.push(entry);
                }
            }
        }
        Ok(entries)
    }

    fn check_tag(&mut self, tag: Option<&Tag>, span: Span) {
        let known = ["str", "int", "float", "bool", "null", "seq", "map"];
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && known.contains(&tag.suffix.as_str()))
        {
            self.out.faults.push(fault(
                span,
                "YAML tags are not supported here",
                "remove the `!…` before the value",
            ));
        }
    }

    fn spend(&mut self, weight: usize, span: Span) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_add(weight);
        if self.nodes > NODES {
            return Err(fault(
                span,
                "the file holds too many values",
                "check the aliases (`*name`): each one counts in full",
            ));
        }
        Ok(())
    }
}

/// Whether a key of a flow mapping stands alone: `{proxy_key: ab,cd}` has the key `cd`.
fn is_torn(lines: &Lines<'_>, key: Span) -> bool {
    let line = lines.get(key.end.line);
    let after = line.chars().skip(key.end.column - 1).find(|c| *c != ' ' && *c != '\t');
    after != Some(':') && !line.chars().take(key.end.column - 1).collect::<String>().trim_end().ends_with(':')
}

fn weight(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(weight).sum(),
        Value::Map(entries) => entries.iter().map(|entry| 1 + weight(&entry.node)).sum(),
        Value::Text(text) => text.len() / 64,
        _ => 0,
    }
}

fn fault(span: Span, message: &str, suggestion: &'static str) -> Fault {
    Fault { span, message: message.to_owned(), suggestion: Some(suggestion) }
}
