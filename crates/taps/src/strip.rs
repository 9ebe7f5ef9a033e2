//! The answer to a request that was edited, as the caller expects it.
//!
//! Where `include_usage` is set, OpenAI sends one more event before `[DONE]`, whose `choices` are
//! empty and whose `usage` is an object, and every other event gets a member `"usage":null`. Both
//! are taken out; nothing else is touched:
//!
//! - An event goes only if it has an empty array `choices`, an object `usage`, and neither an
//!   error nor Azure's `prompt_filter_results`. Usage in an event with choices, which some
//!   platforms send unasked, stays.
//! - Of an event that stays, an outermost `usage` goes only if it is the literal `null`, with one
//!   comma beside it. Some platforms send it unasked; to take it away is safe even then, since
//!   without `include_usage` OpenAI itself leaves it out and every client lives with that.
//!
//! What may have to go is held back: an event until its `choices` show an element, which is
//! before its first byte of content, and a few bytes from a comma on. An event that arrives whole
//! leaves whole, in the same call.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::json::{Scanner, Sink, Want};
use crate::key::Key::{self, *};
use crate::sse::{Listener, Splitter};

/// More is never held back: what is longer passes as it is.
const MOST_HELD: u64 = 64 << 10;

/// Filters the body of one answer, which has to be an uncompressed `text/event-stream`. The
/// answer's `Content-Length`, if any, is no longer true.
#[derive(Debug, Default)]
pub struct StripUsage {
    events: Splitter,
    scanner: Scanner,
    judge: Judge,
    held: BytesMut,
}

impl StripUsage {
    /// Takes the next bytes and gives what may pass; often the very same bytes.
    pub fn feed(&mut self, bytes: &Bytes) -> Bytes {
        let held_from = self.events.offset() - self.held.len() as u64;
        let mut parts = Parts { scanner: &mut self.scanner, judge: &mut self.judge };
        self.events.feed(bytes, &mut parts);
        let end = self.events.offset();
        let mut keep_from = self.judge.held_from().unwrap_or(end).max(held_from);
        if end - keep_from > MOST_HELD {
            self.judge.give_up();
            keep_from = end;
        }
        let passes = (keep_from - held_from) as usize;
        if passes == 0 {
            self.held.extend_from_slice(bytes);
            return Bytes::new();
        }
        let out = if self.held.is_empty() {
            self.held.extend_from_slice(&bytes[passes..]);
            bytes.slice(..passes)
        } else {
            self.held.extend_from_slice(bytes);
            self.held.split_to(passes).freeze()
        };
        self.judge.cut(held_from, out)
    }

    /// The end of the body: gives what was held back, unless it is the event that has to go and
    /// only lacks its empty line.
    pub fn finish(mut self) -> Bytes {
        if self.events.in_event() && self.judge.removable() {
            return Bytes::new();
        }
        let held_from = self.events.offset() - self.held.len() as u64;
        self.judge.give_up();
        self.judge.cut(held_from, self.held.freeze())
    }
}

/// Decides what goes.
#[derive(Debug, Default)]
struct Judge {
    /// Where the event under way began.
    event: u64,
    verdict: Verdict,
    /// `choices` is an array, and has ended empty.
    choices: bool,
    no_choices: bool,
    usage: bool,
    /// The event has something that the caller would see without the edit.
    stays: bool,
    /// Where the outermost member under way began, with the comma before it.
    member: Option<u64>,
    /// That member is the first of its object: the comma behind goes instead of the one before.
    first: bool,
    /// A first member `"usage":null`, waiting for its comma.
    null: Option<Range<u64>>,
    /// What goes, in order, of bytes that have not passed yet.
    cuts: Vec<Range<u64>>,
    /// Behind the last event that went.
    gone: Option<u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Between events.
    #[default]
    None,
    Open,
    Passes,
}

impl Judge {
    fn held_from(&self) -> Option<u64> {
        match self.verdict {
            Verdict::None => None,
            Verdict::Open => Some(self.event),
            Verdict::Passes => self.member.or(self.null.as_ref().map(|null| null.start)),
        }
    }

    fn removable(&self) -> bool {
        self.verdict == Verdict::Open && self.no_choices && self.usage && !self.stays
    }

    fn give_up(&mut self) {
        self.verdict = Verdict::Passes;
        (self.member, self.null) = (None, None);
    }

    /// `bytes`, which begin at offset `base`, without what goes.
    fn cut(&mut self, base: u64, bytes: Bytes) -> Bytes {
        let end = base + bytes.len() as u64;
        let due = self.cuts.iter().take_while(|cut| cut.start < end).count();
        if due == 0 {
            return bytes;
        }
        let local = |at: u64| (at.clamp(base, end) - base) as usize;
        let mut from = 0;
        let mut pieces = Vec::with_capacity(due + 1);
        for cut in self.cuts.drain(..due) {
            pieces.push(from..local(cut.start).max(from));
            from = local(cut.end).max(from);
        }
        pieces.push(from..bytes.len());
        pieces.retain(|piece| !piece.is_empty());
        match &*pieces {
            [] => Bytes::new(),
            [one] => bytes.slice(one.clone()),
            several => {
                let mut out = BytesMut::with_capacity(bytes.len());
                several.iter().for_each(|piece| out.extend_from_slice(&bytes[piece.clone()]));
                out.freeze()
            }
        }
    }

    fn element(&mut self, path: &[Key]) {
        match path {
            [Choices, Item] => self.verdict = Verdict::Passes,
            [Error | PromptFilterResults] => self.stays = true,
            _ => {}
        }
        if path.len() == 1 {
            self.member = None;
        }
    }
}

impl Sink for Judge {
    fn want(&mut self, path: &[Key]) -> Want {
        self.element(path);
        Want::Skip
    }

    fn literal(&mut self, path: &[Key], raw: &[u8], span: Range<u64>) {
        if let ([Usage], b"null", Some(start)) = (path, raw, self.member) {
            let cut = start..span.end;
            if self.first {
                self.null = Some(cut);
            } else {
                self.cuts.push(cut);
            }
            self.member = None;
        }
        // An error that is null says nothing.
        if raw != b"null" || path == [Choices, Item] {
            self.element(path);
        }
    }

    fn open(&mut self, path: &[Key], array: bool, _: u64) {
        self.element(path);
        match (path, array) {
            ([], true) => self.verdict = Verdict::Passes,
            ([Choices], true) => (self.choices, self.no_choices) = (true, false),
            ([Usage], false) => self.usage = true,
            _ => {}
        }
    }

    fn close(&mut self, path: &[Key], _: u64) {
        match path {
            [] => {
                self.member = None;
                self.cuts.extend(self.null.take());
            }
            [Choices] => self.no_choices = self.choices,
            _ => {}
        }
    }

    fn name(&mut self, path: &[Key], at: u64) {
        if path.is_empty() && self.member.is_none() {
            (self.member, self.first) = (Some(at), true);
        }
    }

    fn named(&mut self, path: &[Key], key: Key) {
        if path.is_empty() && key != Usage {
            self.member = None;
        }
    }

    fn comma(&mut self, path: &[Key], at: u64) {
        if !path.is_empty() {
            return;
        }
        match self.null.take() {
            // What follows is the first member now.
            Some(null) => self.cuts.push(null.start..at + 1),
            None => (self.member, self.first) = (Some(at), false),
        }
    }
}

/// Hands the data of events to the scanner, and their ends to the judge.
struct Parts<'a> {
    scanner: &'a mut Scanner,
    judge: &'a mut Judge,
}

impl Listener for Parts<'_> {
    fn begin(&mut self, at: u64) {
        let cuts = std::mem::take(&mut self.judge.cuts);
        *self.judge = Judge { event: at, verdict: Verdict::Open, cuts, ..Judge::default() };
    }

    fn data(&mut self, bytes: &[u8], at: u64) {
        self.scanner.feed(bytes, at, self.judge);
    }

    fn next_line(&mut self, at: u64) {
        self.scanner.feed(b"\n", at, self.judge);
    }

    fn end(&mut self, at: u64) {
        let judge = &mut self.judge;
        if judge.removable() {
            let event = judge.event;
            judge.cuts.retain(|cut| cut.start < event);
            judge.cuts.push(event..at);
            judge.gone = Some(at);
        }
        (judge.member, judge.null) = (None, None);
        self.scanner.end(false, at, *judge);
        judge.verdict = Verdict::None;
    }

    fn late_line_feed(&mut self, at: u64) {
        if self.judge.gone == Some(at) {
            self.judge.cuts.push(at..at + 1);
        }
    }
}
