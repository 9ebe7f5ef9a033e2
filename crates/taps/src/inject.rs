//! `stream_options.include_usage`, for a streaming caller who did not ask for it.
//!
//! OpenAI's chat completions report the usage of a stream only where the request says so. The
//! request is edited in place: a few bytes are put in or replaced, everything else stays as the
//! caller wrote it. [`crate::StripUsage`] takes the report out of the answer.

use std::ops::Range;

use aiproxy_platform::UsageShape;

use crate::estimate::Meter;
use crate::json::{Scanner, Sink, Want};
use crate::key::Key::{self, *};

/// Whether a request to this path may be edited: only these know `stream_options`.
#[must_use]
pub fn injectable(shape: UsageShape, path: &str) -> bool {
    shape == UsageShape::OpenAi && path.ends_with("/completions")
}

/// An edit of a body: the bytes of `range` give way to `with`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyEdit {
    /// Offsets in the body as the caller sent it; empty where nothing goes.
    pub range: Range<u64>,
    /// What comes in.
    pub with: &'static [u8],
}

impl BodyEdit {
    /// The length of a body of this length after the edit: the new `Content-Length`.
    #[must_use]
    pub fn length(&self, body: u64) -> u64 {
        body - (self.range.end - self.range.start) + self.with.len() as u64
    }

    /// What a piece of the body that begins at `offset` becomes: up to three pieces, some empty.
    /// Every piece of the body has to come by once.
    #[must_use]
    pub fn splice<'a>(&self, offset: u64, piece: &'a [u8]) -> [&'a [u8]; 3] {
        let end = offset + piece.len() as u64;
        let local = |at: u64| (at.clamp(offset, end) - offset) as usize;
        let with = if (offset..end).contains(&self.range.start) { self.with } else { b"" };
        [&piece[..local(self.range.start)], with, &piece[local(self.range.end)..]]
    }
}

/// Reads a request's JSON as it comes.
#[derive(Debug, Default)]
pub struct RequestScan {
    scanner: Scanner,
    found: Found,
    fed: u64,
}

impl RequestScan {
    /// Looks at the next bytes of the request's body, which has to be uncompressed JSON.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.scanner.feed(bytes, self.fed, &mut self.found);
        self.fed += bytes.len() as u64;
    }

    /// Whether the request asks for a stream, as far as it has come.
    #[must_use]
    pub fn streams(&self) -> bool {
        self.found.stream == Some(true)
    }

    /// Whether the request may turn out to be one that has to be edited, as far as it has come.
    #[must_use]
    pub fn may_need_edit(&self) -> bool {
        let asked = matches!(self.found.options, Options::Object { include: Some((true, _)), .. });
        !self.found.odd && !asked && self.found.stream != Some(false)
    }

    /// Tokens of the prompt's texts by [`crate::estimate`], for answers that never report any.
    #[must_use]
    pub fn input_estimate(&self) -> u64 {
        self.found.prompt.tokens()
    }

    /// Characters of the text to be spoken, which speech is billed by.
    #[must_use]
    pub fn characters(&self) -> u64 {
        self.found.spoken.characters()
    }

    /// The edit, once the whole body was fed. `None` where none is needed (no stream, or usage
    /// was asked for) or none is safe: a body that is no JSON object, names a member in question
    /// twice, or gives it a type of its own; the platform will say what it thinks of it.
    #[must_use]
    pub fn edit(&self) -> Option<BodyEdit> {
        let found = &self.found;
        let at = |at: u64, with: &'static [u8]| BodyEdit { range: at..at, with };
        if !self.scanner.is_sound() || found.documents != 1 || found.odd || !self.streams() {
            return None;
        }
        match &found.options {
            Options::Absent => Some(at(found.root? + 1, br#""stream_options":{"include_usage":true},"#)),
            Options::Null(span) => Some(BodyEdit { range: span.clone(), with: br#"{"include_usage":true}"# }),
            Options::Object { open, empty: true, .. } => Some(at(open + 1, br#""include_usage":true"#)),
            Options::Object { open, include: None, .. } => Some(at(open + 1, br#""include_usage":true,"#)),
            Options::Object { include: Some((false, span)), .. } => {
                Some(BodyEdit { range: span.clone(), with: b"true" })
            }
            Options::Object { include: Some((true, _)), .. } => None,
        }
    }
}

/// What is known of a request.
#[derive(Debug, Default)]
struct Found {
    /// Where the object opens.
    root: Option<u64>,
    documents: u32,
    stream: Option<bool>,
    options: Options,
    /// Named so far: `stream`, `stream_options`, `include_usage`.
    named: [bool; 3],
    /// Something that the edit would not be safe with.
    odd: bool,
    prompt: Meter,
    /// Of it, what is to be spoken.
    spoken: Meter,
}

#[derive(Debug, Default)]
enum Options {
    #[default]
    Absent,
    Null(Range<u64>),
    Object {
        open: u64,
        empty: bool,
        /// Whether usage is asked for, and where that is said; `null` counts as no.
        include: Option<(bool, Range<u64>)>,
    },
}

impl Found {
    /// A value that is no literal stands here.
    fn not_literal(&mut self, path: &[Key]) {
        self.odd |= matches!(path, [Stream | StreamOptions] | [StreamOptions, IncludeUsage]);
    }
}

impl Sink for Found {
    fn want(&mut self, path: &[Key]) -> Want {
        self.not_literal(path);
        match path {
            // OpenAI and Anthropic, OpenAI's responses, DashScope, Gemini.
            [Prompt | Input | Instructions | System]
            | [Messages, Item, Content]
            | [Messages | System | Input, .., Text]
            | [Input, Item, Content]
            | [Input, Messages, Item, Content]
            | [Input, Prompt]
            | [Contents, Item, Parts, Item, Text]
            | [Input | Prompt, Item] => Want::Count,
            _ => Want::Skip,
        }
    }

    fn text(&mut self, path: &[Key], piece: Meter) {
        self.prompt.add(piece);
        if path == [Input] {
            self.spoken.add(piece);
        }
    }

    fn literal(&mut self, path: &[Key], raw: &[u8], span: Range<u64>) {
        match (path, raw) {
            ([Stream], b"true") => self.stream = Some(true),
            ([Stream], b"false" | b"null") => self.stream = Some(false),
            ([StreamOptions], b"null") => self.options = Options::Null(span),
            ([StreamOptions, IncludeUsage], b"true" | b"false" | b"null") => {
                if let Options::Object { include, .. } = &mut self.options {
                    *include = Some((raw == b"true", span));
                }
            }
            _ => self.not_literal(path),
        }
    }

    fn open(&mut self, path: &[Key], array: bool, at: u64) {
        match path {
            [] if array => self.odd = true,
            [] => self.root = Some(at),
            [StreamOptions] if !array => {
                self.options = Options::Object { open: at, empty: true, include: None };
            }
            _ => self.not_literal(path),
        }
    }

    fn named(&mut self, path: &[Key], key: Key) {
        let slot = match (path, key) {
            ([], Stream) => 0,
            ([], StreamOptions) => 1,
            ([StreamOptions], IncludeUsage) => 2,
            _ => 3,
        };
        if path == [StreamOptions]
            && let Options::Object { empty, .. } = &mut self.options
        {
            *empty = false;
        }
        if let Some(named) = self.named.get_mut(slot) {
            self.odd |= std::mem::replace(named, true);
        }
    }

    fn document(&mut self) {
        self.documents = self.documents.saturating_add(1);
    }
}
