//! One change as one JSON line.
//!
//! ```json
//! {"id":"file-abc","kind":"file","owner":"user1","channel":"openai","at":1790000000}
//! {"gone":"file-abc"}
//! ```

use std::borrow::Cow;

use aiproxy_core::ports::ObjectChange;
use serde::{Deserialize, Serialize};

/// A line that is longer is no line of ours.
pub(crate) const LONGEST: usize = 4096;

#[derive(Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) id: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) kind: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) owner: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) channel: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<u64>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(crate) gone: Cow<'a, str>,
}

/// Appends the change. `false`, and nothing appended, where it would be too long to be read back.
pub(crate) fn append(out: &mut Vec<u8>, change: &ObjectChange) -> bool {
    let line = match change {
        ObjectChange::Made(record) => Line {
            id: Cow::Borrowed(&record.id),
            kind: Cow::Borrowed(&record.kind),
            owner: Cow::Borrowed(&record.owner),
            channel: Cow::Borrowed(&record.channel),
            at: Some(record.created),
            gone: Cow::Borrowed(""),
        },
        ObjectChange::Gone(id) => Line { gone: Cow::Borrowed(id), ..Line::default() },
    };
    let before = out.len();
    let written = serde_json::to_writer(&mut *out, &line).is_ok() && out.len() - before < LONGEST;
    if written {
        out.push(b'\n');
    } else {
        out.truncate(before);
    }
    written
}

/// The line without its end, or nothing where it is none of ours.
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let made = !(line.id.is_empty() || line.owner.is_empty() || line.channel.is_empty());
    // Exactly one of the two.
    (made == line.gone.is_empty()).then_some(line)
}
