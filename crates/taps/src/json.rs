//! A JSON scanner that keeps only where it is.
//!
//! It takes bytes split anywhere and tells a [`Sink`] what it meets, by path. It is no validator:
//! it follows well-formed text exactly, and malformed text somehow, without panic and without
//! growing. Texts may follow each other.

use std::ops::Range;

use crate::escape::unescape;
use crate::estimate::Meter;
use crate::key::Key;

/// Paths are followed this deep; what lies deeper is skipped.
const DEPTH: usize = 12;
/// The longest name or value that is looked at, in bytes as written. Longer ones are unknown.
const SCRATCH: usize = 256;

/// What to do with a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Skip,
    /// Deliver its value, if it is short.
    Keep,
    /// Weigh it as text.
    Count,
}

/// Hears what a scanner meets. A path holds the names that lead to a value from the outermost
/// one, whose path is empty; `at` and spans are offsets as the feeder counts them.
pub(crate) trait Sink {
    fn want(&mut self, path: &[Key]) -> Want;
    /// The value of a string that was wanted, escapes resolved.
    fn string(&mut self, _path: &[Key], _value: &[u8]) {}
    /// A string that was wanted is too long to be delivered.
    fn unknown(&mut self, _path: &[Key]) {}
    /// Text of a string that was to be counted; may come in pieces.
    fn text(&mut self, _path: &[Key], _piece: Meter) {}
    /// A number, `true`, `false` or `null` as written; empty if unreasonably long.
    fn literal(&mut self, _path: &[Key], _raw: &[u8], _span: Range<u64>) {}
    fn open(&mut self, _path: &[Key], _array: bool, _at: u64) {}
    fn close(&mut self, _path: &[Key], _at: u64) {}
    /// A member's name begins at `at`, in the object at `path`.
    fn name(&mut self, _path: &[Key], _at: u64) {}
    /// The same name is known.
    fn named(&mut self, _path: &[Key], _key: Key) {}
    /// A comma in the container at `path`.
    fn comma(&mut self, _path: &[Key], _at: u64) {}
    /// An outermost value has ended, or was given up.
    fn document(&mut self) {}
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a value.
    #[default]
    Value,
    /// Before a member's name.
    Name,
    InName,
    Colon,
    InString(Taking),
    InLiteral,
    /// Behind a value, inside a container.
    After,
    /// Inside containers that are too deep to be followed.
    Deep,
}

/// What becomes of the string under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taking {
    Nothing,
    Value,
    Text,
    /// Nothing, and on in [`State::Deep`].
    Deep,
}

/// Where in one text the scanner is.
#[derive(Debug)]
pub(crate) struct Scanner {
    state: State,
    /// `keys[..depth]` leads to the current value.
    keys: [Key; DEPTH],
    depth: usize,
    /// Bit n: the container that `keys[n]` lies in is an array.
    arrays: u16,
    /// Open containers below [`DEPTH`].
    deep: u64,
    scratch: Vec<u8>,
    overflow: bool,
    escaped: bool,
    /// Hex digits of a `\u` escape yet to come, and those that came.
    hex_left: u8,
    hex: u16,
    /// Where the literal under way began.
    began: u64,
    /// Nothing was met that JSON forbids. Not everything is looked for.
    sound: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            state: State::Value,
            keys: [Key::Other; DEPTH],
            depth: 0,
            arrays: 0,
            deep: 0,
            scratch: Vec::new(),
            overflow: false,
            escaped: false,
            hex_left: 0,
            hex: 0,
            began: 0,
            sound: true,
        }
    }
}

impl Scanner {
    /// Looks at the next bytes, the first of which is at offset `base`.
    pub(crate) fn feed<S: Sink>(&mut self, bytes: &[u8], base: u64, sink: &mut S) {
        let mut at = 0;
        while at < bytes.len() {
            at = match self.state {
                State::InName => self.string(bytes, at, Taking::Value, sink),
                State::InString(taking) => self.string(bytes, at, taking, sink),
                State::InLiteral => self.in_literal(bytes, at, base, sink),
                State::Deep => self.in_deep(bytes[at], at),
                _ => {
                    self.structure(bytes[at], base + at as u64, sink);
                    at + 1
                }
            };
        }
    }

    /// Forgets the text under way, which ends at offset `at`. A literal that reached the end
    /// counts only if the text is known to be `whole`.
    pub(crate) fn end<S: Sink>(&mut self, whole: bool, at: u64, sink: &mut S) {
        if whole && self.state == State::InLiteral {
            self.literal_ended(at, sink);
        }
        if self.depth > 0 || self.state != State::Value {
            sink.document();
        }
        let scratch = std::mem::take(&mut self.scratch);
        *self = Self { scratch, sound: self.sound, ..Self::default() };
        self.scratch.clear();
    }

    /// Whether nothing forbidden was met so far, and no text is under way.
    pub(crate) fn is_sound(&self) -> bool {
        self.sound && self.depth == 0 && self.state == State::Value
    }

    /// What comes next is judged by itself.
    pub(crate) fn forgive(&mut self) {
        self.sound = true;
    }

    fn path(&self) -> &[Key] {
        &self.keys[..self.depth]
    }

    /// The path of the innermost container.
    fn container(&self) -> &[Key] {
        &self.keys[..self.depth.saturating_sub(1)]
    }

    fn in_array(&self) -> bool {
        self.depth > 0 && self.arrays & (1 << (self.depth - 1)) != 0
    }

    /// Consumes bytes of a string; returns where to go on.
    fn string<S: Sink>(&mut self, bytes: &[u8], mut at: usize, taking: Taking, sink: &mut S) -> usize {
        let mut meter = Meter::default();
        let text = taking == Taking::Text;
        while at < bytes.len() {
            let byte = bytes[at];
            if self.hex_left > 0 {
                if let Some(digit) = char::from(byte).to_digit(16) {
                    self.hex = self.hex << 4 | digit as u16;
                    self.hex_left -= 1;
                    if self.hex_left == 0 {
                        meter.utf16(self.hex);
                    }
                    at += 1;
                    continue;
                }
                self.hex_left = 0;
            }
            if self.escaped {
                self.escaped = false;
                match taking {
                    Taking::Value => self.keep(&[byte]),
                    Taking::Text if byte == b'u' => (self.hex_left, self.hex) = (4, 0),
                    Taking::Text => meter.utf16(1),
                    Taking::Nothing | Taking::Deep => {}
                }
                at += 1;
                continue;
            }
            let rest = &bytes[at..];
            let stop = stop_of(rest);
            let plain = &rest[..stop.unwrap_or(rest.len())];
            if let (Taking::Value, Some(stop), true) = (taking, stop, self.scratch.is_empty())
                && rest[stop] == b'"'
            {
                // All of it at once, as it is: nothing to be kept.
                self.value_ended_as(plain, sink);
                return at + stop + 1;
            }
            match taking {
                Taking::Value => self.keep(plain),
                Taking::Text => meter.bytes(plain),
                Taking::Nothing | Taking::Deep => {}
            }
            let Some(stop) = stop else {
                at = bytes.len();
                break;
            };
            at += stop + 1;
            if rest[stop] == b'\\' {
                self.escaped = true;
                if taking == Taking::Value {
                    self.keep(b"\\");
                }
                continue;
            }
            if text && !meter.is_empty() {
                sink.text(self.path(), meter);
            }
            self.string_ended(taking, sink);
            return at;
        }
        if text && !meter.is_empty() {
            sink.text(self.path(), meter);
        }
        at
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = SCRATCH.saturating_sub(self.scratch.len());
        self.overflow |= bytes.len() > room;
        self.scratch.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// A name or value that is wanted has ended, and stands in the text as it is.
    fn value_ended_as<S: Sink>(&mut self, plain: &[u8], sink: &mut S) {
        let fits = plain.len() <= SCRATCH;
        if self.state == State::InName {
            self.name_ended(if fits { Key::of(plain) } else { Key::Other }, sink);
            return;
        }
        if fits {
            sink.string(self.path(), plain);
        } else {
            sink.unknown(self.path());
        }
        self.value_ended(sink);
    }

    fn name_ended<S: Sink>(&mut self, key: Key, sink: &mut S) {
        if let Some(slot) = self.depth.checked_sub(1) {
            self.keys[slot] = key;
        }
        sink.named(self.container(), key);
        self.state = State::Colon;
    }

    fn string_ended<S: Sink>(&mut self, taking: Taking, sink: &mut S) {
        if self.state == State::InName {
            let key = if self.overflow { Key::Other } else { Key::of(&unescape(&self.scratch)) };
            self.name_ended(key, sink);
        } else {
            match taking {
                Taking::Value if self.overflow => sink.unknown(self.path()),
                Taking::Value => sink.string(self.path(), &unescape(&self.scratch)),
                Taking::Nothing | Taking::Text | Taking::Deep => {}
            }
            match taking {
                Taking::Deep => self.state = State::Deep,
                _ => self.value_ended(sink),
            }
        }
        self.scratch.clear();
        self.overflow = false;
    }

    fn in_literal<S: Sink>(&mut self, bytes: &[u8], at: usize, base: u64, sink: &mut S) -> usize {
        let rest = &bytes[at..];
        let stop = rest.iter().position(|byte| !is_literal(*byte));
        self.keep(&rest[..stop.unwrap_or(rest.len())]);
        let Some(stop) = stop else { return bytes.len() };
        self.literal_ended(base + (at + stop) as u64, sink);
        at + stop
    }

    fn literal_ended<S: Sink>(&mut self, at: u64, sink: &mut S) {
        let raw: &[u8] = if self.overflow { b"" } else { &self.scratch };
        sink.literal(&self.keys[..self.depth], raw, self.began..at);
        self.scratch.clear();
        self.overflow = false;
        self.value_ended(sink);
    }

    fn in_deep(&mut self, byte: u8, at: usize) -> usize {
        match byte {
            b'"' => self.state = State::InString(Taking::Deep),
            b'{' | b'[' => self.deep = self.deep.saturating_add(1),
            b'}' | b']' => {
                self.deep -= 1;
                if self.deep == 0 {
                    self.state = State::After;
                }
            }
            _ => {}
        }
        at + 1
    }

    fn structure<S: Sink>(&mut self, byte: u8, at: u64, sink: &mut S) {
        match (self.state, byte) {
            (_, b' ' | b'\t' | b'\n' | b'\r') => {}
            (State::Value, b'"') => {
                self.state = State::InString(match sink.want(self.path()) {
                    Want::Skip => Taking::Nothing,
                    Want::Keep => Taking::Value,
                    Want::Count => Taking::Text,
                });
            }
            (State::Value, b'{' | b'[') => self.open(byte == b'[', at, sink),
            (State::Value, _) if is_literal(byte) => {
                self.began = at;
                self.keep(&[byte]);
                self.state = State::InLiteral;
            }
            (State::Name, b'"') => {
                sink.name(self.container(), at);
                self.state = State::InName;
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::After, b',') => {
                sink.comma(self.container(), at);
                self.state = if self.in_array() { State::Value } else { State::Name };
            }
            (State::After | State::Name | State::Value | State::Colon, b'}' | b']') => {
                self.sound &= self.in_array() == (byte == b']') && self.state != State::Colon;
                self.close(at, sink);
            }
            _ => self.sound = false,
        }
    }

    fn open<S: Sink>(&mut self, array: bool, at: u64, sink: &mut S) {
        sink.open(self.path(), array, at);
        if self.depth == DEPTH {
            self.deep = 1;
            self.state = State::Deep;
            return;
        }
        let bit = 1 << self.depth;
        (self.keys[self.depth], self.arrays, self.state) = if array {
            (Key::Item, self.arrays | bit, State::Value)
        } else {
            (Key::Other, self.arrays & !bit, State::Name)
        };
        self.depth += 1;
    }

    fn close<S: Sink>(&mut self, at: u64, sink: &mut S) {
        if self.depth == 0 {
            self.sound = false;
            return;
        }
        self.depth -= 1;
        sink.close(self.path(), at);
        self.value_ended(sink);
    }

    fn value_ended<S: Sink>(&mut self, sink: &mut S) {
        if self.depth == 0 {
            sink.document();
            self.state = State::Value;
        } else {
            self.state = State::After;
        }
    }
}

/// Where the next quote or backslash is. Most strings are shorter than the call of a search is worth.
fn stop_of(rest: &[u8]) -> Option<usize> {
    let near = rest.len().min(16);
    match rest[..near].iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        Some(stop) => Some(stop),
        None => memchr::memchr2(b'"', b'\\', &rest[near..]).map(|stop| near + stop),
    }
}

/// Bytes that numbers, `true`, `false`, `null` and `[DONE]` are made of.
fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}
