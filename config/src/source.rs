//! The text of a configuration file by lines, and where it came from.

use std::path::{Path, PathBuf};

/// Name and place of a configuration, for messages and relative paths.
#[derive(Debug, Clone)]
pub struct Source {
    /// The name shown in messages.
    pub name: String,
    /// The folder that relative paths start from.
    pub base: PathBuf,
}

impl Source {
    /// The source of a file: its path as given, and its folder.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        let base = path.parent().map(Path::to_path_buf).unwrap_or_default();
        Self { name: path.display().to_string(), base }
    }

    /// An absolute path as it is, another one from the folder of the file.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }
}

/// A text cut into lines as YAML does: at `\n`, `\r\n` or `\r`.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    lines: Vec<&'a str>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let mut lines = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['\n', '\r']) {
            lines.push(&rest[..at]);
            let length = if rest[at..].starts_with("\r\n") { 2 } else { 1 };
            rest = &rest[at + length..];
        }
        lines.push(rest);
        Self { lines }
    }

    /// The line with this number, from 1; past the end it is empty.
    pub(crate) fn get(&self, number: usize) -> &'a str {
        number.checked_sub(1).and_then(|index| self.lines.get(index)).copied().unwrap_or("")
    }

    /// All lines in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.lines.iter().copied()
    }

    /// Number of lines, at least one.
    pub(crate) fn count(&self) -> usize {
        self.lines.len()
    }
}
