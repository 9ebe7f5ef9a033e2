//! What was used, as a platform reported it and as AIProxy records it.

use aiproxy_core::usage::Tokens;
pub use aiproxy_core::usage::{Finish, Usage};
use aiproxy_platform::UsageShape;

use crate::estimate::Meter;

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
    /// `model` is the one that answered.
    pub(crate) fn settle(&self, shape: UsageShape, unreported: Meter, model: Option<&str>) -> Tokens {
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
            // xAI counts thoughts beside the output, and Gemini's compatible API in the total only. A
            // total that says more for any other reason is not believed.
            let hidden = total.saturating_sub(tokens.input + tokens.output);
            let gemini = model.is_some_and(|model| model.starts_with("gemini"));
            if hidden > 0 && gemini && tokens.reasoning == 0 {
                tokens.reasoning = hidden;
            }
            if hidden == tokens.reasoning {
                tokens.output += hidden;
            }
        }
        tokens.output += unreported.tokens();
        tokens
    }
}
