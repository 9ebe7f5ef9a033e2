//! Ids in the strings of a body, found while it passes.

use std::collections::BTreeMap;
use std::mem;
use std::sync::LazyLock;

use aiproxy_platform::objects::{self, ID_BYTES};
use memchr::memmem;

use super::Reference;

/// References that may wait to be taken. A body with more is refused: nobody refers to as many
/// objects, and each costs memory.
const WAITING: usize = 1024;
/// The longest string that is kept to be looked at: an id, or a URL that ends in one.
const STRING_BYTES: usize = 512;
/// DashScope's way to refer to files from within a text.
const FILE_ID: &[u8] = b"fileid://";
static FIND_FILE_ID: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(FILE_ID));

/// Is told of a body's names and strings by the scanner that follows its structure.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    found: BTreeMap<Box<str>, bool>,
    overflow: bool,
    /// The last string's beginning, without escapes.
    text: Vec<u8>,
    long: bool,
    /// A string has ended; what follows decides whether it was a name.
    pending: bool,
    escape: Escape,
    /// The value under way belongs to a member that holds ids.
    member: bool,
    /// The value under way belongs to a top-level member that continues an object: as a string,
    /// or as an object with the member `id`.
    continues: bool,
    /// Whether the last name within that member's value is `id`; nothing before the first.
    nested_id: Option<bool>,
    /// The value under way is that of the top-level `store`.
    store_next: bool,
    stored: Option<bool>,
    inner: Inner,
}

#[derive(Debug, Default, Clone, Copy)]
enum Escape {
    #[default]
    None,
    /// Hexadecimal digits to come, and the value so far.
    Hex(u8, u32),
}

/// Looks for [`FILE_ID`] within a string.
#[derive(Debug, Default)]
struct Inner {
    /// How much of it the last bytes were.
    matched: usize,
    /// The id behind it, as far as it has come.
    id: Option<Vec<u8>>,
}

impl Watch {
    /// The name of a top-level member; nothing where it cannot be read.
    pub(crate) fn top_level(&mut self, name: Option<&str>) {
        self.member = name.is_some_and(objects::is_member);
        self.continues = name.is_some_and(objects::continues);
        self.nested_id = None;
        self.store_next = name == Some("store");
    }

    /// A string begins.
    pub(crate) fn begin(&mut self) {
        self.text.clear();
        self.long = false;
        self.pending = false;
        self.escape = Escape::None;
        self.inner.matched = 0;
        self.inner.id = None;
    }

    /// Bytes of a string, as they stand in the body.
    pub(crate) fn plain(&mut self, mut bytes: &[u8]) {
        while let Escape::Hex(left, value) = self.escape {
            let Some((digit, rest)) = bytes.split_first() else { return };
            bytes = rest;
            let digit = char::from(*digit).to_digit(16).unwrap_or(0xffff);
            let value = (value << 4) | digit;
            self.escape = if left > 1 { Escape::Hex(left - 1, value) } else { Escape::None };
            if left == 1 {
                // What is no ASCII is in no id, whichever it is.
                self.push(&[u8::try_from(value).ok().filter(u8::is_ascii).unwrap_or(b' ')]);
            }
        }
        if !bytes.is_empty() {
            self.push(bytes);
        }
    }

    /// The byte behind a backslash.
    pub(crate) fn escaped(&mut self, byte: u8) {
        match byte {
            b'u' => self.escape = Escape::Hex(4, 0),
            b'"' | b'\\' | b'/' => self.push(&[byte]),
            _ => self.push(b" "),
        }
    }

    /// The string has ended.
    pub(crate) fn end(&mut self) {
        self.pending = true;
        if let Some(id) = self.inner.id.take() {
            self.report_bytes(&id, false);
        }
    }

    /// A colon follows: the string was a name.
    pub(crate) fn colon(&mut self) {
        if mem::take(&mut self.pending) {
            let name = std::str::from_utf8(&self.text).ok().filter(|_| !self.long);
            self.member = name.is_some_and(objects::is_member);
            self.nested_id = Some(name.is_some_and(|name| name.eq_ignore_ascii_case("id")));
        }
    }

    /// Something else follows: the string was a value.
    pub(crate) fn settle(&mut self) {
        if !mem::take(&mut self.pending) || self.long {
            return;
        }
        let text = mem::take(&mut self.text);
        if let Ok(text) = std::str::from_utf8(&text) {
            self.examine(text);
        }
        self.text = text;
    }

    /// The first byte of a literal at the top level.
    pub(crate) fn literal(&mut self, byte: u8) {
        if mem::take(&mut self.store_next) {
            // Whoever says both may be understood either way: then it is stored.
            self.stored = Some(self.stored == Some(true) || byte == b't');
        }
    }

    /// The top-level `store`, where the body has said.
    pub(crate) fn stored(&self) -> Option<bool> {
        self.stored
    }

    /// What was found since the last call; nothing where it was too much.
    pub(crate) fn take(&mut self) -> Option<Vec<Reference>> {
        let found = mem::take(&mut self.found);
        (!self.overflow)
            .then(|| found.into_iter().map(|(id, known)| Reference { id, must_be_known: known }).collect())
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.long || self.text.len() + bytes.len() > STRING_BYTES {
            self.long = true;
        } else {
            self.text.extend_from_slice(bytes);
        }
        self.look_within(bytes);
    }

    fn examine(&mut self, text: &str) {
        let plain = || (1..=ID_BYTES).contains(&text.len()) && text.bytes().all(objects::is_id_byte);
        if self.continues && self.nested_id != Some(false) && plain() {
            self.report(text, true);
        } else if objects::begins_like_id(text) {
            if plain() {
                self.report(text, false);
            }
            // Google's names may be given in their long form, with what is below.
            if let Some((at, _)) = text.match_indices('/').nth(1) {
                self.report(&text[..at], false);
            }
        } else if text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("http")) {
            if let Some(name) = objects::in_resource_name(text, "files/") {
                self.report(&name, false);
            }
        } else if self.member && plain() {
            self.report(text, false);
        }
    }

    fn report_bytes(&mut self, id: &[u8], must_be_known: bool) {
        if let Ok(id) = std::str::from_utf8(id)
            && !id.is_empty()
        {
            self.report(id, must_be_known);
        }
    }

    fn report(&mut self, id: &str, must_be_known: bool) {
        if let Some(known) = self.found.get_mut(id) {
            *known |= must_be_known;
        } else if self.found.len() < WAITING {
            self.found.insert(id.into(), must_be_known);
        } else {
            self.overflow = true;
        }
    }

    /// Follows `fileid://` and the id behind it through the bytes of a string.
    fn look_within(&mut self, mut bytes: &[u8]) {
        loop {
            if let Some(id) = &mut self.inner.id {
                let end = bytes.iter().position(|byte| !is_file_id_byte(*byte)).unwrap_or(bytes.len());
                let room = (ID_BYTES + 1).saturating_sub(id.len());
                id.extend_from_slice(&bytes[..end.min(room)]);
                if end == bytes.len() {
                    return;
                }
                bytes = &bytes[end..];
                if let Some(id) = self.inner.id.take() {
                    self.report_bytes(&id, false);
                }
            }
            let Some(rest) = self.inner.find(bytes) else { return };
            self.inner.id = Some(Vec::new());
            bytes = rest;
        }
    }
}

impl Inner {
    /// What is behind the next [`FILE_ID`], which may have begun in an earlier piece.
    fn find<'b>(&mut self, mut bytes: &'b [u8]) -> Option<&'b [u8]> {
        while self.matched > 0 {
            let (byte, rest) = bytes.split_first()?;
            bytes = rest;
            // Its first letter stands nowhere else in it.
            self.matched = match *byte {
                byte if byte == FILE_ID[self.matched] => self.matched + 1,
                byte if byte == FILE_ID[0] => 1,
                _ => 0,
            };
            if self.matched == FILE_ID.len() {
                self.matched = 0;
                return Some(bytes);
            }
        }
        // Most pieces of text have no colon, and then not this either.
        if memchr::memchr(b':', bytes).is_some()
            && let Some(at) = FIND_FILE_ID.find(bytes)
        {
            return Some(&bytes[at + FILE_ID.len()..]);
        }
        if bytes.last().is_some_and(|last| FILE_ID.contains(last)) {
            let edges = (1..FILE_ID.len()).rev();
            self.matched = edges.into_iter().find(|edge| bytes.ends_with(&FILE_ID[..*edge])).unwrap_or(0);
        }
        None
    }
}

const fn is_file_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}
