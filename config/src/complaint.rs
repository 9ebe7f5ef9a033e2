//! Why one value is not acceptable, before it is known where it stands.

/// What is wrong with a value and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
}

impl Complaint {
    pub(crate) fn new(message: impl Into<String>, suggestion: impl Into<String>) -> Self {
        Self { message: message.into(), suggestion: Some(suggestion.into()) }
    }

    pub(crate) fn bare(message: impl Into<String>) -> Self {
        Self { message: message.into(), suggestion: None }
    }
}

/// A value as messages show it: short, in backticks, and its first word only, since what follows
/// may have slipped in from the next field.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    let word = text.split_whitespace().next().unwrap_or(text);
    let mut shown: String =
        word.chars().take(LONGEST).map(|c| if c.is_control() { '?' } else { c }).collect();
    if shown.len() < text.trim().len() {
        shown.push('…');
    }
    format!("`{shown}`")
}
