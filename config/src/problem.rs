//! What is wrong with a configuration, and how people see it.

use std::fmt;

use crate::excerpt::Excerpt;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but something is probably not as meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing that is wrong, where, and what to do about it. No field of it ever holds a key:
/// values of secret fields are masked before a problem is made.
///
/// `Display` shows it over several lines, with the line of the file and a mark under the place.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Name of the file.
    pub file: String,
    /// The field, such as `users.user1.status`; empty for the file as a whole.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    pub suggestion: Option<String>,
    pub(crate) excerpt: Option<Excerpt>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, file, path, line, column, message, suggestion, excerpt } = self;
        writeln!(f, "{severity}: {message}")?;
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        write!(f, "{gutter}--> {file}:{line}:{column}")?;
        if !path.is_empty() {
            write!(f, " ({path})")?;
        }
        if let Some(excerpt) = excerpt {
            write!(f, "\n{gutter} |\n{number} | {}\n{gutter} | {}", excerpt.text(), excerpt.marks())?;
        }
        if let Some(suggestion) = suggestion {
            write!(f, "\n{gutter} = {suggestion}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration that cannot be used: at least one error, and the
/// warnings, in the order of the file.
#[derive(Debug, Clone)]
pub struct Problems {
    list: Vec<Problem>,
    /// Problems beyond the bound, counted only.
    more: usize,
}

impl Problems {
    pub(crate) fn new(list: Vec<Problem>, more: usize) -> Self {
        Self { list, more }
    }

    /// The problems in the order of the file.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.list
    }

    /// Number of problems of this severity among those listed.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|problem| problem.severity == severity).count()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.list {
            writeln!(f, "{problem}\n")?;
        }
        if self.more > 0 {
            writeln!(f, "… and {} more", self.more)?;
        }
        let plural = |count: usize, word: &str| match count {
            1 => format!("1 {word}"),
            _ => format!("{count} {word}s"),
        };
        write!(f, "{}", plural(self.count(Severity::Error), "error"))?;
        match self.count(Severity::Warning) {
            0 => Ok(()),
            warnings => write!(f, ", {}", plural(warnings, "warning")),
        }
    }
}

impl std::error::Error for Problems {}
