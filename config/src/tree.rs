//! The located tree: YAML values that know where they stand in the file.

use std::fmt;
use std::sync::Arc;

/// A place in the file: line and column from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pos {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Pos {
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

/// From a place up to and without another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: Pos,
    pub(crate) end: Pos,
}

impl Span {
    /// One character.
    pub(crate) const fn at(start: Pos) -> Self {
        Self { start, end: Pos { line: start.line, column: start.column + 1 } }
    }
}

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) span: Span,
}

/// A value by YAML 1.2's core schema.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(Arc<str>),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A number as written and as understood.
#[derive(Debug, Clone)]
pub(crate) struct Number {
    pub(crate) text: Arc<str>,
    /// The value, if it is whole and fits.
    pub(crate) whole: Option<i64>,
    pub(crate) float: f64,
}

/// A key of a map and what stands under it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Arc<str>,
    pub(crate) key_span: Span,
    pub(crate) node: Node,
    /// Where the map has the key already: the line of the first.
    pub(crate) duplicate: Option<usize>,
}

impl Node {
    /// The entry of a map under this key.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| &*entry.key == key),
            _ => None,
        }
    }

    /// The type's name in JSON Schema.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.whole.is_some() => "integer",
            Value::Number(_) => "number",
            Value::Text(_) => "string",
            Value::List(_) => "array",
            Value::Map(_) => "object",
        }
    }
}

/// A step from a value to one inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(Arc<str>),
    Index(usize),
}

/// The way from the root to a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trail(Vec<Step>);

impl Trail {
    /// The way through these keys.
    pub(crate) fn of(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Step::Key(Arc::from(*key))).collect())
    }

    /// One step further, to a map's entry.
    pub(crate) fn key(&self, key: &str) -> Self {
        self.step(Step::Key(Arc::from(key)))
    }

    /// One step further, to a list's item.
    pub(crate) fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    fn step(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// The first two keys, and the way from there.
    pub(crate) fn within(&self) -> (String, String, Self) {
        let key = |step: Option<&Step>| match step {
            Some(Step::Key(key)) => key.to_string(),
            Some(Step::Index(index)) => index.to_string(),
            None => String::new(),
        };
        (key(self.0.first()), key(self.0.get(1)), Self(self.0.get(2..).unwrap_or_default().to_vec()))
    }

    /// Where the value at the end stands; where the file ends before, the last key on the way.
    pub(crate) fn locate(&self, root: &Node) -> Span {
        let mut span = Span::at(Pos::START);
        let mut node = root;
        for step in &self.0 {
            let next = match (step, &node.value) {
                (Step::Key(key), _) => node.entry(key).map(|entry| (&entry.node, entry.key_span)),
                (Step::Index(index), Value::List(items)) => items.get(*index).map(|item| (item, item.span)),
                _ => None,
            };
            let Some((inner, at)) = next else { return span };
            node = inner;
            span = at;
        }
        match &node.value {
            // A section's own place is where its contents begin: its key says more.
            Value::List(_) | Value::Map(_) | Value::Null => span,
            _ => node.span,
        }
    }

    /// The value at the end.
    pub(crate) fn find<'a>(&self, root: &'a Node) -> Option<&'a Node> {
        self.0.iter().try_fold(root, |node, step| match (step, &node.value) {
            (Step::Key(key), _) => node.entry(key).map(|entry| &entry.node),
            (Step::Index(index), Value::List(items)) => items.get(*index),
            _ => None,
        })
    }
}

impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    if at > 0 {
                        f.write_str(".")?;
                    }
                    let plain =
                        !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
                    if plain { f.write_str(key)? } else { write!(f, "{key:?}")? }
                }
            }
        }
        Ok(())
    }
}
