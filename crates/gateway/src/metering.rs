//! What a request uses: its body read for the prompt and edited so that a stream reports usage, and
//! the answer's bytes read for the report as they pass.
//!
//! The answer is never held back but for the report that the edit has caused: it is taken out again,
//! so that callers see what they asked for.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use aiproxy_config::model::StreamUsage;
use aiproxy_core::{Tokens, Usage};
use aiproxy_platform::{UsageShape, routes};
use aiproxy_routing::{Candidate, Plan, Target};
use aiproxy_taps::inject::injectable;
use aiproxy_taps::tap::{reads, speaks};
use aiproxy_taps::{RequestScan, StripUsage, Tap};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Frame;

/// Headers that describe a body byte for byte. A request's is left as it is then; those of an answer
/// that is changed are taken out.
const DIGESTS: &[&str] = &["content-md5", "digest", "content-digest", "repr-digest", "signature", "etag"];

/// What is known of the body on its way up; shared with whoever reads it.
pub(crate) type Prompt = Rc<RefCell<RequestScan>>;

/// The request's side.
pub(crate) struct Asked {
    shape: UsageShape,
    /// The normal path.
    path: Box<str>,
    /// The answer is read, so it has to come uncompressed.
    pub(crate) readable: bool,
    /// Usage may be asked for on the caller's behalf, if the body turns out to need it.
    inject: bool,
    /// The body, where it is JSON.
    pub(crate) prompt: Option<Prompt>,
    edited: bool,
}

impl Asked {
    /// What a request to `target` asks for, by its head.
    pub(crate) fn of(method: &Method, headers: &HeaderMap, target: &Target<'_>) -> Self {
        let shape = target.route.usage;
        let readable = method == Method::POST && reads(shape, &target.normal);
        let prompt = (readable && is_json(headers)).then(Prompt::default);
        let inject = prompt.is_some() && injectable(shape, &target.normal);
        Self { shape, path: target.normal.as_ref().into(), readable, inject, prompt, edited: false }
    }

    /// Leaves the body as it is where no channel of the plan wants it edited.
    pub(crate) fn narrow(&mut self, plan: &Plan) {
        self.inject &= plan.candidates.iter().any(injects);
    }

    /// Whether the body's end is wanted before it is sent. A request whose beginning says that it is
    /// no stream is not waited for.
    pub(crate) fn wants_whole(&self) -> bool {
        self.inject && self.prompt.as_ref().is_some_and(|prompt| prompt.borrow().may_need_edit())
    }

    /// Edits a body that was read ahead whole, and its announced length, if every channel that may be
    /// asked wants that: it is edited once, for all attempts. Gives the bytes that were added.
    pub(crate) fn edit(
        &mut self,
        plan: &Plan,
        ahead: &mut VecDeque<Frame<Bytes>>,
        headers: &mut HeaderMap,
    ) -> u64 {
        let wanted = self.inject && plan.candidates.iter().all(injects);
        let prompt = self.prompt.as_ref().filter(|_| wanted);
        let Some(edit) = prompt.and_then(|prompt| prompt.borrow().edit()) else { return 0 };
        if DIGESTS.iter().any(|name| headers.contains_key(*name)) {
            return 0;
        }
        let mut length = 0;
        let mut frames = VecDeque::with_capacity(ahead.len() + 2);
        for frame in ahead.drain(..) {
            match frame.into_data() {
                Ok(data) => {
                    let pieces = edit.splice(length, &data);
                    length += data.len() as u64;
                    let pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
                    frames.extend(pieces.map(|piece| Frame::data(part_of(&data, piece))));
                }
                Err(other) => frames.push_back(other),
            }
        }
        *ahead = frames;
        if headers.contains_key(CONTENT_LENGTH) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(edit.length(length)));
        }
        self.edited = true;
        edit.length(length).saturating_sub(length)
    }

    /// The answer's side. `headers` are the platform's own; a length that will not be true is taken
    /// out.
    pub(crate) fn answered(self, status: StatusCode, headers: &mut HeaderMap) -> Metering {
        let text = |name| {
            let mut values = headers.get_all(name).iter();
            let first = values.next().map_or(Ok(""), HeaderValue::to_str).unwrap_or("?");
            if values.next().is_some() { "?" } else { first }
        };
        let (kind, encoding) = (text(CONTENT_TYPE), text(CONTENT_ENCODING));
        let counts = self.readable && status.is_success();
        let essence = essence(kind);
        let json = says_json(&essence);
        // The answer to a request that was edited is a stream, whatever it is called.
        let stream = essence == "text/event-stream" || self.edited && !json;
        let kind = if stream { "text/event-stream" } else { kind };
        let tap = counts.then(|| Tap::new(self.shape, &self.path, kind, encoding)).flatten();
        let strip = (self.edited && stream && tap.is_some()).then(StripUsage::default);
        let speech = counts && tap.is_none() && speaks(self.shape, &self.path);
        let runs = counts && routes::runs_a_model(&self.path);
        // Compressed in spite of what was asked for: it would have said what it used.
        let unread = runs && tap.is_none() && (stream || json);
        if strip.is_some() {
            headers.remove(CONTENT_LENGTH);
            for name in DIGESTS {
                headers.remove(*name);
            }
        }
        Metering { tap, strip, speech, unread, runs, prompt: self.prompt }
    }
}

fn injects(candidate: &Candidate) -> bool {
    candidate.channel.stream_usage == StreamUsage::Inject
}

/// The part of `data` that `piece` is, uncopied; a copy of what is none.
fn part_of(data: &Bytes, piece: &[u8]) -> Bytes {
    let within = data.as_ptr_range().contains(&piece.as_ptr());
    if within { data.slice_ref(piece) } else { Bytes::copy_from_slice(piece) }
}

fn is_json(headers: &HeaderMap) -> bool {
    let plain = |value: &HeaderValue| value.is_empty() || value.as_bytes().eq_ignore_ascii_case(b"identity");
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    headers.get_all(CONTENT_ENCODING).iter().all(plain) && says_json(&essence(kind))
}

/// A media type without its parameters, in lower case.
fn essence(kind: &str) -> String {
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn says_json(essence: &str) -> bool {
    essence == "application/json" || essence.ends_with("+json")
}

/// The answer's side.
#[derive(Default)]
pub(crate) struct Metering {
    tap: Option<Tap>,
    strip: Option<StripUsage>,
    /// The answer is sound, billed by the characters of the prompt.
    speech: bool,
    /// The answer says what it used, and cannot be read.
    unread: bool,
    /// A model has worked for it.
    runs: bool,
    prompt: Option<Prompt>,
}

impl Metering {
    /// Looks at the next bytes of the answer's body and gives what may pass now.
    pub(crate) fn pass(&mut self, bytes: Bytes) -> Bytes {
        if let Some(tap) = &mut self.tap {
            tap.feed(&bytes);
        }
        match &mut self.strip {
            Some(strip) => strip.feed(&bytes),
            None => bytes,
        }
    }

    /// The end of the body: what was held back. Nothing is held back afterwards.
    pub(crate) fn flush(&mut self) -> Bytes {
        self.strip.take().map(StripUsage::finish).unwrap_or_default()
    }

    /// Whether something may be held back.
    pub(crate) fn holds(&self) -> bool {
        self.strip.is_some()
    }

    /// What was used; once. `complete`: the body came to its regular end.
    pub(crate) fn settle(&mut self, complete: bool) -> Option<Usage> {
        let prompt = self.prompt.take();
        if std::mem::take(&mut self.speech) {
            let characters = prompt?.borrow().characters();
            return Some(Usage { characters, estimated: !complete, ..Usage::default() });
        }
        if std::mem::take(&mut self.unread) {
            let tokens = Tokens { input: prompt?.borrow().input_estimate(), ..Tokens::default() };
            return Some(Usage { tokens, estimated: true, ..Usage::default() });
        }
        let mut usage = self.tap.take()?.finish(complete);
        // Nobody has said how much was read: what was sent is weighed.
        let unsaid = usage.tokens.input == 0 && usage.seconds.is_none() && usage.images == 0;
        if usage.estimated
            && unsaid
            && self.runs
            && let Some(prompt) = prompt
        {
            usage.tokens.input = prompt.borrow().input_estimate();
        }
        (usage != Usage::default()).then_some(usage)
    }
}
