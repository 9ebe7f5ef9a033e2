//! Collects usage, model, end and text from what a scanner meets in an answer.

use std::ops::Range;

use aiproxy_platform::UsageShape;

use crate::estimate::Meter;
use crate::json::{Sink, Want};
use crate::key::Key::{self, *};
use crate::places::{below_usage, text_at, unwrap};
use crate::report::{self, Counts, Finish};

/// No count is larger: what is, is nonsense.
const MOST: f64 = (1u64 << 40) as f64;
/// The longest model name, in bytes.
const MODEL_BYTES: usize = 128;

/// What the endpoint makes besides text, where the answer says it by its form alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Product {
    Text,
    Images,
    Transcript,
}

/// The kind of an event whose text stands in `delta`, which its `type` tells.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[default]
    Unknown,
    Text,
    Thought,
    Image,
    /// The last event of an answer.
    Last,
    Other,
}

/// One text: the body, or an event's data.
#[derive(Debug, Default)]
struct Event {
    kind: Kind,
    text: Meter,
    thought: Meter,
    /// Text under `delta`, which may be base64.
    delta: Meter,
    reported_output: bool,
    images: u64,
    seconds: Option<f64>,
    sense: Sense,
    modal_tokens: Option<u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Sense {
    #[default]
    Text,
    Audio,
    Image,
}

/// Collects from what a scanner meets.
#[derive(Debug)]
pub(crate) struct Reader {
    shape: UsageShape,
    product: Product,
    stream: bool,
    counts: Counts,
    model: Option<String>,
    finish: Option<Finish>,
    /// Text since the last report of output, and thoughts among it.
    text: Meter,
    thought: Meter,
    /// Images counted by form.
    images: u64,
    event: Event,
    /// The answer said that nothing more comes.
    closed: bool,
}

impl Reader {
    pub(crate) fn new(shape: UsageShape, product: Product, stream: bool) -> Self {
        Self {
            shape,
            product,
            stream,
            counts: Counts::default(),
            model: None,
            finish: None,
            text: Meter::default(),
            thought: Meter::default(),
            images: 0,
            event: Event::default(),
            closed: false,
        }
    }

    /// What was used. `complete`: the body came to its regular end.
    pub(crate) fn settle(mut self, complete: bool) -> report::Usage {
        self.document_ended();
        let reported = self.counts.any();
        let by_time = self.counts.seconds.is_some() && self.counts.output.is_none();
        let unreported = if by_time { Meter::default() } else { self.text };
        let mut tokens = self.counts.settle(self.shape, unreported, self.model.as_deref());
        if !by_time {
            tokens.reasoning += self.thought.tokens();
        }
        report::Usage {
            tokens,
            seconds: self.counts.seconds,
            images: self.counts.images.unwrap_or(self.images),
            characters: self.counts.characters.unwrap_or(0),
            model: self.model,
            reported,
            estimated: !unreported.is_empty() || !(complete || self.closed),
            finish: self.finish,
        }
    }

    fn number(&mut self, path: &[Key], number: f64) {
        if self.product == Product::Transcript && path == [Duration] {
            self.event.seconds = Some(number);
        }
        let Some(path) = below_usage(self.shape, path) else { return };
        let whole = number.round() as u64;
        let counts = &mut self.counts;
        let native = self.shape == UsageShape::DashScope;
        let slot = match path {
            [InputTokens | PromptTokenCount] => &mut counts.input,
            [OutputTokens | CandidatesTokenCount] => {
                self.event.reported_output = true;
                &mut counts.output
            }
            [TotalTokens] => &mut counts.total,
            [CachedTokens | CacheHitTokens | CacheReadTokens | CachedTokenCount]
            | [InputDetails, CachedTokens] => &mut counts.cached,
            [CacheWrittenTokens] | [InputDetails, CacheWrittenTokens] => &mut counts.cache_written,
            [ThoughtsTokenCount] | [OutputDetails, ReasoningTokens] => &mut counts.reasoning,
            [ToolTokenCount] => &mut counts.tools,
            [InputDetails, AudioTokens] => &mut counts.audio_input,
            [InputDetails, ImageTokens] => &mut counts.image_input,
            [OutputDetails, AudioTokens] => &mut counts.audio_output,
            [OutputDetails, ImageTokens] => &mut counts.image_output,
            // DashScope before it had details.
            [AudioTokens] if native => &mut counts.audio_input,
            [ImageTokens] if native => &mut counts.image_input,
            [Characters] => &mut counts.characters,
            [ImageCount] => &mut counts.images,
            [Seconds | Duration] => {
                counts.seconds = Some(number);
                return;
            }
            // A DashScope application reports each model that it called.
            [Models, Item, InputTokens] => return add(&mut counts.input, whole),
            [Models, Item, OutputTokens] => {
                self.event.reported_output = true;
                return add(&mut counts.output, whole);
            }
            [PromptDetails | CandidatesDetails, Item, TokenCount] => &mut self.event.modal_tokens,
            _ => return,
        };
        *slot = Some(whole);
    }

    /// An element of Gemini's list of modalities has ended.
    fn modality_ended(&mut self, list: Key) {
        let (sense, tokens) = (self.event.sense, self.event.modal_tokens);
        (self.event.sense, self.event.modal_tokens) = (Sense::default(), None);
        let slot = match (list, sense) {
            (_, Sense::Text) => return,
            (PromptDetails, Sense::Audio) => &mut self.counts.audio_input,
            (PromptDetails, Sense::Image) => &mut self.counts.image_input,
            (_, Sense::Audio) => &mut self.counts.audio_output,
            (_, Sense::Image) => &mut self.counts.image_output,
        };
        *slot = tokens.or(*slot);
    }

    fn finished(&mut self, word: &[u8]) {
        // The first word stands, save that an error outdoes it and a reason explains it.
        if let Some(finish) = Finish::of(word)
            && (self.finish.is_none_or(|old| old == Finish::Other) || finish == Finish::Error)
        {
            self.finish = Some(finish);
        }
    }

    fn typed(&mut self, name: &[u8]) {
        let ends = |end: &[u8]| name.ends_with(end);
        self.event.kind = match name {
            b"message_stop"
            | b"response.completed"
            | b"response.incomplete"
            | b"response.failed"
            | b"transcript.text.done"
            | b"speech.audio.done" => Kind::Last,
            b"error" => {
                self.finished(b"error");
                Kind::Other
            }
            b"image_generation.completed" | b"image_edit.completed" => Kind::Image,
            _ if ends(b"audio.delta") => Kind::Other,
            _ if ends(b"reasoning_text.delta") || ends(b"reasoning_summary_text.delta") => Kind::Thought,
            _ if ends(b".delta") => Kind::Text,
            _ => Kind::Other,
        };
    }

    fn document_ended(&mut self) {
        let mut event = std::mem::take(&mut self.event);
        match event.kind {
            Kind::Text => event.text.add(event.delta),
            Kind::Thought => event.thought.add(event.delta),
            Kind::Image => self.images += 1,
            Kind::Last => self.closed = true,
            Kind::Unknown | Kind::Other => {}
        }
        event.text.add(event.thought);
        self.images += event.images;
        if !self.counts.any() {
            self.counts.seconds = event.seconds;
        }
        if event.reported_output {
            (self.text, self.thought) = Default::default();
            self.closed |= self.finish.is_some();
        } else if self.shape == UsageShape::DashScope {
            // Events may repeat what was said before: the longest says most.
            (self.text, self.thought) = (self.text.max(event.text), self.thought.max(event.thought));
        } else {
            self.text.add(event.text);
            self.thought.add(event.thought);
        }
    }
}

impl Sink for Reader {
    fn want(&mut self, path: &[Key]) -> Want {
        if let [] | [.., Other] = path {
            return Want::Skip;
        }
        if let Some([.., Modality | ModelId]) = below_usage(self.shape, path) {
            return Want::Keep;
        }
        match unwrap(self.shape, path).0 {
            [Model | ModelVersion] if self.model.is_none() => Want::Keep,
            [Type | Status | Code] | [.., FinishReason | StopReason] | [IncompleteDetails, Reason] => {
                Want::Keep
            }
            [Delta] => Want::Count,
            _ if text_at(self.shape, path).is_some() => Want::Count,
            _ => Want::Skip,
        }
    }

    fn string(&mut self, path: &[Key], value: &[u8]) {
        if let Some(below) = below_usage(self.shape, path) {
            match below {
                [.., Modality] => {
                    self.event.sense = match value {
                        b"AUDIO" => Sense::Audio,
                        b"IMAGE" => Sense::Image,
                        _ => Sense::Text,
                    };
                }
                [Models, Item, ModelId] => self.named_model(value),
                _ => {}
            }
            return;
        }
        let (path, wrapped) = unwrap(self.shape, path);
        match (self.shape, path) {
            (_, [Model | ModelVersion]) => self.named_model(value),
            (UsageShape::OpenAiResponses, [Status]) if wrapped || !self.stream => {
                // Why it is incomplete is said elsewhere.
                self.finished(if value == b"incomplete" { b"other" } else { value });
            }
            (UsageShape::OpenAiResponses, [IncompleteDetails, Reason])
            | (UsageShape::OpenAi, [Choices, Item, FinishReason])
            | (UsageShape::Anthropic, [StopReason] | [Delta, StopReason])
            | (UsageShape::DashScope, [Output, FinishReason] | [Output, Choices, Item, FinishReason])
            | (UsageShape::Gemini, [Candidates, Item, FinishReason]) => self.finished(value),
            (UsageShape::DashScope, [Code]) if !value.is_empty() => self.finished(b"error"),
            (UsageShape::OpenAi | UsageShape::OpenAiResponses | UsageShape::Anthropic, [Type])
                if !wrapped =>
            {
                self.typed(value);
            }
            _ => {}
        }
    }

    fn text(&mut self, path: &[Key], piece: Meter) {
        match (path, text_at(self.shape, path)) {
            (_, Some(true)) => self.event.thought.add(piece),
            (_, Some(false)) => self.event.text.add(piece),
            ([Delta], None) => self.event.delta.add(piece),
            _ => {}
        }
    }

    fn literal(&mut self, path: &[Key], raw: &[u8], _: Range<u64>) {
        if path == [Item] && raw == b"DONE" {
            self.closed = true;
        }
        if !raw.first().is_some_and(u8::is_ascii_digit) {
            return;
        }
        let number = std::str::from_utf8(raw).ok().and_then(|raw| raw.parse::<f64>().ok());
        if let Some(number) = number.filter(|number| *number <= MOST) {
            self.number(path, number);
        }
    }

    fn open(&mut self, path: &[Key], array: bool, _: u64) {
        let below = below_usage(self.shape, path);
        match (unwrap(self.shape, path).0, array) {
            ([Error], false) => self.finished(b"error"),
            ([Data, Item], false) if self.product == Product::Images => self.event.images += 1,
            ([Predictions, Item], false) if self.shape == UsageShape::Gemini => self.event.images += 1,
            (_, true) if below == Some(&[Models]) => (self.counts.input, self.counts.output) = (None, None),
            _ => {}
        }
    }

    fn close(&mut self, path: &[Key], _: u64) {
        if let Some([list @ (PromptDetails | CandidatesDetails), Item]) = below_usage(self.shape, path) {
            self.modality_ended(*list);
        }
        match path {
            // Each element of Gemini's array is what an event would be.
            [Item] if self.shape == UsageShape::Gemini => self.document_ended(),
            [] if !self.stream => self.closed = true,
            _ => {}
        }
    }

    fn document(&mut self) {
        self.document_ended();
    }
}

impl Reader {
    fn named_model(&mut self, name: &[u8]) {
        let name = String::from_utf8_lossy(name);
        let fits = !name.is_empty() && name.len() <= MODEL_BYTES && !name.contains(char::is_control);
        if fits && self.model.is_none() {
            self.model = Some(name.into_owned());
        }
    }
}

fn add(slot: &mut Option<u64>, more: u64) {
    *slot = Some((slot.unwrap_or(0) + more).min(MOST as u64));
}
