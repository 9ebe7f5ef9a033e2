//! The crate as its callers see it.

use std::path::Path;

use super::*;

mod diff;
mod docs;
mod examples;
mod fuzz;
mod mistakes;
mod secrecy;
mod shapes;
mod snapshot;

/// Environment of the tests: every variable holds a key of its own.
pub(crate) fn env(name: &str) -> Option<String> {
    (!name.starts_with("UNSET")).then(|| format!("value-of-{name}"))
}

pub(crate) fn source() -> Source {
    Source { name: "config.yaml".to_owned(), base: Path::new("/etc/aiproxy").to_owned() }
}

/// Loads a text that has no errors.
pub(crate) fn load(text: &str) -> Loaded {
    load_str(text, &source(), &env).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Loads a text that has some.
pub(crate) fn problems(text: &str) -> Problems {
    load_str(text, &source(), &env).err().unwrap_or_else(|| panic!("no problem in\n{text}"))
}
