//! What was used, as a platform reported it and as AIProxy records it.

use aiproxy_core::usage::Tokens;
use aiproxy_platform::UsageShape;

use crate::estimate::Meter;

/// What one answer used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Tokens by kind.
    pub tokens: Tokens,
    /// Seconds of sound or video, where the platform bills by them.
    pub seconds: Option<f64>,
    /// Images made.
    pub images: u64,
    /// Characters spoken, where the platform says so.
    pub characters: u64,
    /// The model served, which may be a dated name of the one asked for.
    pub model: Option<String>,
    /// The platform reported some of it.
    pub reported: bool,
    /// Some of it is AIProxy's estimate, or the answer broke off after the last report. Where
    /// both are set, the platform's last word is in it and what came later was estimated.
    pub estimated: bool,
    /// How the model ended, where the answer says it.
    pub finish: Option<Finish>,
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// It was done.
    Stop,
    /// A limit of tokens cut it short.
    Length,
    /// It wants a tool called.
    ToolCalls,
    /// The platform's filter stopped it.
    Filtered,
    /// The answer holds an error.
    Error,
    /// Something else.
    Other,
}

impl Finish {
    /// The name in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::Filtered => "filtered",
            Self::Error => "error",
            Self::Other => "other",
        }
    }

    /// From any platform's word. `None`: not yet finished (DashScope writes the string `null`).
    pub(crate) fn of(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"" | b"null" | b"in_progress" | b"queued" | b"FINISH_REASON_UNSPECIFIED" => return None,
            b"stop" | b"STOP" | b"end_turn" | b"stop_sequence" | b"completed" => Self::Stop,
            b"length"
            | b"MAX_TOKENS"
            | b"max_tokens"
            | b"max_output_tokens"
            | b"model_context_window_exceeded" => Self::Length,
            b"tool_calls" | b"function_call" | b"tool_use" => Self::ToolCalls,
            b"content_filter"
            | b"refusal"
            | b"SAFETY"
            | b"RECITATION"
            | b"BLOCKLIST"
            | b"PROHIBITED_CONTENT"
            | b"SPII"
            | b"IMAGE_SAFETY" => Self::Filtered,
            b"failed" | b"error" => Self::Error,
            _ => Self::Other,
        })
    }
}

/// A platform's numbers as they stand, each the last one seen.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Counts {
    pub(crate) input: Option<u64>,
    pub(crate) output: Option<u64>,
    pub(crate) total: Option<u64>,
    pub(crate) cached: Option<u64>,
    pub(crate) cache_written: Option<u64>,
    pub(crate) reasoning: Option<u64>,
    pub(crate) audio_input: Option<u64>,
    pub(crate) audio_output: Option<u64>,
    pub(crate) image_input: Option<u64>,
    pub(crate) image_output: Option<u64>,
    /// Gemini: tokens that tools added to the prompt.
    pub(crate) tools: Option<u64>,
    pub(crate) seconds: Option<f64>,
    pub(crate) images: Option<u64>,
    pub(crate) characters: Option<u64>,
}

impl Counts {
    /// Whether the platform reported anything.
    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }

    /// In the meaning of [`Tokens`]. `unreported` is text that came after the last report.
    pub(crate) fn settle(&self, shape: UsageShape, unreported: Meter) -> Tokens {
        let of = Option::unwrap_or_default;
        let mut tokens = Tokens {
            input: of(self.input),
            output: of(self.output),
            cached: of(self.cached),
            cache_written: of(self.cache_written),
            reasoning: of(self.reasoning),
            audio_input: of(self.audio_input),
            audio_output: of(self.audio_output),
            image_input: of(self.image_input),
            image_output: of(self.image_output),
        };
        match shape {
            // `input_tokens` is what the cache had no part in.
            UsageShape::Anthropic => tokens.input += tokens.cached + tokens.cache_written,
            // Thoughts and tools are beside candidates and prompt.
            UsageShape::Gemini => {
                tokens.output += tokens.reasoning;
                tokens.input += of(self.tools);
            }
            _ => {}
        }
        let total = of(self.total);
        if self.input.is_none() && total > 0 {
            // Embeddings and rerankers may report the total alone.
            tokens.input = total.saturating_sub(tokens.output);
        } else if shape == UsageShape::OpenAi && self.output.is_some() {
            // xAI and Gemini's compatible API count thoughts in the total only.
            let hidden = total.saturating_sub(tokens.input + tokens.output);
            if hidden > 0 && tokens.reasoning == 0 {
                tokens.reasoning = hidden;
            }
            tokens.output += hidden;
        }
        tokens.output += unreported.tokens();
        tokens
    }
}
