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

/// A value as messages show it: short, in backticks.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = text.chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}
