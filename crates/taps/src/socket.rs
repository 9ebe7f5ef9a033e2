//! Reads the messages of WebSockets while their bytes pass by: usage out of a platform's, models out
//! of a caller's.
//!
//! Each message is a JSON text, split anywhere; what does not begin like one is not looked at.
//!
//! | message | usage | counted |
//! |---|---|---|
//! | `response.done` (Realtime), `response.completed`, `.incomplete`, `.failed` (Responses) | `response.usage` | added |
//! | `conversation.item.input_audio_transcription.completed` | `usage`, in tokens or seconds | added |
//! | `session.usage.updated` (Live) | `usage.seconds`, cumulative | the last one stands |
//! | `Metadata` (Deepgram), at the end of a stream of sound | `duration`, in seconds | the last one stands |
//! | DashScope: `result-generated`, cumulative in a task, and `task-finished` | `payload.usage` | the last one of each task, added |

use std::ops::Range;

use aiproxy_platform::UsageShape;

use crate::estimate::Meter;
use crate::json::{Scanner, Sink, Want};
use crate::key::Key::{self, *};

use crate::report::{self, Counts, Finish};

/// No count is larger: what is, is nonsense.
const MOST: f64 = (1u64 << 40) as f64;
/// Models of one message that are told apart.
const MODELS: usize = 8;
/// Stands for a name that is too long to be read, and for all names beyond that many: no pattern that
/// limits anything admits it.
pub const UNREADABLE: &str = "\u{fffd}";

/// Where in a message the scanner is.
#[derive(Debug, Default)]
struct Text {
    scanner: Scanner,
    fed: u64,
    state: State,
    /// It begins as an object does.
    object: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space so far.
    #[default]
    Before,
    Json,
    Other,
}

impl Text {
    fn feed<S: Sink>(&mut self, bytes: &[u8], sink: &mut S) {
        if self.state == State::Before {
            let Some(first) = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) else { return };
            self.object = *first == b'{';
            // The last begins a byte order mark.
            self.state = if matches!(first, b'{' | b'[' | 0xef) { State::Json } else { State::Other };
        }
        if self.state == State::Json {
            self.scanner.feed(bytes, self.fed, sink);
            self.fed += bytes.len() as u64;
        }
    }

    fn end<S: Sink>(&mut self, sink: &mut S) {
        if self.state == State::Json {
            self.scanner.end(true, self.fed, sink);
        }
        self.scanner.forgive();
        (self.fed, self.state) = (0, State::Before);
    }
}

/// Reads what a platform sends.
#[derive(Debug, Default)]
pub struct Platform {
    text: Text,
    sums: Sums,
}

impl Platform {
    /// Looks at the next bytes of a message.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.text.feed(bytes, &mut self.sums);
    }

    /// The message has ended.
    pub fn end(&mut self) {
        self.text.end(&mut self.sums);
        self.sums.message_ended();
    }

    /// What was used until now, while more may come.
    #[must_use]
    pub fn so_far(&self) -> Option<report::Usage> {
        self.sums.clone().settle(true)
    }

    /// What was used; none where nothing was reported. `complete`: nothing was broken off.
    #[must_use]
    pub fn settle(self, complete: bool) -> Option<report::Usage> {
        self.sums.settle(complete)
    }
}

impl Sums {
    fn settle(mut self, complete: bool) -> Option<report::Usage> {
        self.task_ended();
        let Self { mut usage, live_seconds, reported, responding, .. } = self;
        if let Some(seconds) = live_seconds {
            usage.seconds = Some(usage.seconds.unwrap_or_default() + seconds);
        }
        usage.reported = reported;
        // A response that was under way is not in any report.
        usage.estimated = reported && !complete && responding;
        reported.then_some(usage)
    }
}

/// What kind of message it is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[default]
    Other,
    /// A response begins.
    Begins,
    /// A response has ended.
    Response,
    Transcription,
    LiveUsage,
    Metadata,
    TaskResult,
    TaskEnd,
}

#[derive(Debug, Default, Clone)]
struct Sums {
    usage: report::Usage,
    reported: bool,
    /// Live's cumulative seconds, Deepgram's seconds of the whole stream.
    live_seconds: Option<f64>,
    /// The last report of a task under way.
    task: Option<Counts>,
    responding: bool,
    /// Of the message under way.
    kind: Kind,
    counts: Counts,
    /// What is outside of any `usage`.
    duration: Option<f64>,
    model: Option<String>,
    finish: Option<Finish>,
}

impl Sums {
    fn message_ended(&mut self) {
        let counts = std::mem::take(&mut self.counts);
        let (model, finish) = (self.model.take(), self.finish.take());
        let duration = self.duration.take();
        let kind = std::mem::take(&mut self.kind);
        if model.is_some() {
            self.usage.model = model;
        }
        match kind {
            Kind::Begins => self.responding = true,
            Kind::Response => {
                self.responding = false;
                self.usage.finish = finish.or(self.usage.finish);
            }
            Kind::Metadata if duration.is_some() => {
                self.reported = true;
                self.live_seconds = duration;
            }
            _ => {}
        }
        if !counts.any() {
            if kind == Kind::TaskEnd {
                self.task_ended();
            }
            return;
        }
        match kind {
            Kind::Response | Kind::Transcription => self.add(&counts),
            Kind::LiveUsage => {
                self.reported = true;
                self.live_seconds = counts.seconds.or(self.live_seconds);
            }
            Kind::TaskResult => self.task = Some(counts),
            Kind::TaskEnd => {
                self.task = Some(counts);
                self.task_ended();
            }
            Kind::Other | Kind::Begins | Kind::Metadata => {}
        }
    }

    fn task_ended(&mut self) {
        if let Some(counts) = self.task.take() {
            self.add(&counts);
        }
    }

    fn add(&mut self, counts: &Counts) {
        self.reported = true;
        let more = counts.settle(
            UsageShape::OpenAiResponses,
            Meter::default(),
            self.model.as_deref().or(self.usage.model.as_deref()),
        );
        self.usage.tokens = self.usage.tokens.plus(&more);
        if let Some(seconds) = counts.seconds {
            self.usage.seconds = Some(self.usage.seconds.unwrap_or_default() + seconds);
        }
        self.usage.characters = self.usage.characters.saturating_add(counts.characters.unwrap_or(0));
        self.usage.images = self.usage.images.saturating_add(counts.images.unwrap_or(0));
    }
}

impl Sink for Sums {
    fn want(&mut self, path: &[Key]) -> Want {
        match path {
            [Type] | [Header, Event] | [Session | Response, Model] | [Response, Status] => Want::Keep,
            _ => Want::Skip,
        }
    }

    fn string(&mut self, path: &[Key], value: &[u8]) {
        match path {
            [Type] | [Header, Event] => {
                self.kind = match value {
                    b"response.created" => Kind::Begins,
                    b"response.done"
                    | b"response.completed"
                    | b"response.incomplete"
                    | b"response.failed" => Kind::Response,
                    b"conversation.item.input_audio_transcription.completed" => Kind::Transcription,
                    b"session.usage.updated" => Kind::LiveUsage,
                    b"Metadata" => Kind::Metadata,
                    b"result-generated" => Kind::TaskResult,
                    b"task-finished" | b"task-failed" => Kind::TaskEnd,
                    _ => Kind::Other,
                };
            }
            [_, Model] => {
                let name = String::from_utf8_lossy(value);
                if !name.is_empty() && name.len() <= 128 && !name.contains(char::is_control) {
                    self.model = Some(name.into_owned());
                }
            }
            [_, Status] => self.finish = Finish::of(value),
            _ => {}
        }
    }

    fn literal(&mut self, path: &[Key], raw: &[u8], _: Range<u64>) {
        let (path, top) = match path {
            [Response | Payload, Usage, path @ ..] | [Usage, path @ ..] => (path, false),
            [Duration] => (path, true),
            _ => return,
        };
        if !raw.first().is_some_and(u8::is_ascii_digit) {
            return;
        }
        let number = std::str::from_utf8(raw).ok().and_then(|raw| raw.parse::<f64>().ok());
        let Some(number) = number.filter(|number| *number <= MOST) else { return };
        let counts = &mut self.counts;
        let slot = match path {
            [InputTokens] => &mut counts.input,
            [OutputTokens] => &mut counts.output,
            [TotalTokens] => &mut counts.total,
            [InputDetails, CachedTokens] => &mut counts.cached,
            [InputDetails, AudioTokens] => &mut counts.audio_input,
            [InputDetails, ImageTokens] => &mut counts.image_input,
            [OutputDetails, AudioTokens] => &mut counts.audio_output,
            [OutputDetails, ImageTokens] => &mut counts.image_output,
            [OutputDetails, ReasoningTokens] => &mut counts.reasoning,
            [Characters] => &mut counts.characters,
            [ImageCount] => &mut counts.images,
            [Duration] if top => {
                self.duration = Some(number);
                return;
            }
            [Seconds | Duration] => {
                counts.seconds = Some(number);
                return;
            }
            _ => return,
        };
        *slot = Some(number.round() as u64);
    }
}

/// Reads the models that a caller's messages name: `model` of the message itself and of what it says
/// under `session`, `response`, `payload` and `agent`, however deep
/// (`session.audio.input.transcription.model`), and Gemini's `setup.model`.
#[derive(Debug, Default)]
pub struct Caller {
    text: Text,
    names: Names,
}

/// A model that a message names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its name, or [`UNREADABLE`].
    pub name: String,
    /// It writes down what the caller says, beside the session's own model.
    pub aside: bool,
}

#[derive(Debug, Default)]
struct Names(Vec<Named>);

impl Caller {
    /// Looks at the next bytes of a message.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.text.feed(bytes, &mut self.names);
    }

    /// The message has ended.
    pub fn end(&mut self) {
        self.text.end(&mut self.names);
    }

    /// As [`end`](Self::end), where a text that is no JSON object names a model that cannot be read: others
    /// may read it more generously.
    pub fn end_strictly(&mut self, text: bool) {
        // Sound may begin like anything.
        let odd = text
            && match self.text.state {
                // White space says nothing.
                State::Before => false,
                State::Other => true,
                State::Json => !self.text.object || !self.text.scanner.is_sound(),
            };
        self.text.end(&mut self.names);
        if odd {
            self.names.unknown(&[]);
        }
    }

    /// The models found since the last call, in order.
    pub fn take_named(&mut self) -> Vec<Named> {
        std::mem::take(&mut self.names.0)
    }

    /// As [`take_named`](Self::take_named), their names alone.
    pub fn take_models(&mut self) -> Vec<String> {
        self.take_named().into_iter().map(|named| named.name).collect()
    }
}

impl Sink for Names {
    fn want(&mut self, path: &[Key]) -> Want {
        match path {
            [Model | ModelId | LikeModel]
            | [Session | Response | Payload | Agent | LikePart, .., Model | ModelId | LikeModel]
            | [Setup, Model | LikeModel] => Want::Keep,
            _ => Want::Skip,
        }
    }

    fn string(&mut self, path: &[Key], value: &[u8]) {
        if self.0.len() >= MODELS {
            self.unknown(path);
        } else {
            // Gemini says `models/gemini-…` where its paths say `gemini-…`.
            let bare = value.strip_prefix(b"models/").filter(|_| path.first() == Some(&Setup));
            let name = String::from_utf8_lossy(bare.unwrap_or(value)).into_owned();
            self.0.push(Named { name, aside: is_aside(path) });
        }
    }

    fn literal(&mut self, path: &[Key], raw: &[u8], _: Range<u64>) {
        if raw != b"null" && self.want(path) == Want::Keep {
            self.unknown(path);
        }
    }

    fn open(&mut self, path: &[Key], _: bool, _: u64) {
        if self.want(path) == Want::Keep {
            self.unknown(path);
        }
    }

    fn unknown(&mut self, path: &[Key]) {
        // A platform may obey the last of them. One that is aside says nothing of those that are not.
        let aside = is_aside(path);
        let says_it = |last: &Named| last.name == UNREADABLE && (aside || !last.aside);
        if !self.0.last().is_some_and(says_it) {
            self.0.push(Named { name: UNREADABLE.to_owned(), aside });
        }
    }
}

/// `session.audio.input.transcription.model`, and `session.input_audio_transcription.model` of the beta.
fn is_aside(path: &[Key]) -> bool {
    matches!(path, [Session, .., Transcription, Model])
}

#[cfg(test)]
#[path = "tests/socket.rs"]
mod tests;
