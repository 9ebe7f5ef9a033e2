//! Where in each platform's answers things stand.

use aiproxy_platform::UsageShape;

use crate::key::Key::{self, *};

/// The path without what wraps a whole answer, and whether it was wrapped.
pub(crate) fn unwrap(shape: UsageShape, path: &[Key]) -> (&[Key], bool) {
    match (shape, path) {
        (UsageShape::Gemini, [Item, rest @ ..])
        | (UsageShape::OpenAiResponses, [Response, rest @ ..])
        | (UsageShape::Anthropic, [Message, rest @ ..]) => (rest, true),
        _ => (path, false),
    }
}

/// The path below usage.
pub(crate) fn below_usage(shape: UsageShape, path: &[Key]) -> Option<&[Key]> {
    match (shape, unwrap(shape, path).0) {
        (UsageShape::Gemini, [UsageMetadata, rest @ ..]) => Some(rest),
        (UsageShape::Gemini, _) => None,
        // Moonshot's last chunk, Groq's last chunk.
        (UsageShape::OpenAi, [Choices, Item, Usage, rest @ ..] | [XGroq, Usage, rest @ ..])
        | (_, [Usage, rest @ ..]) => Some(rest),
        _ => None,
    }
}

/// Whether the string at this path is text that the model wrote: `Some(true)` for thoughts.
pub(crate) fn text_at(shape: UsageShape, path: &[Key]) -> Option<bool> {
    let (path, wrapped) = unwrap(shape, path);
    let thought = match (shape, path) {
        // `response.completed` and `message_start` repeat, they do not add.
        (UsageShape::OpenAiResponses | UsageShape::Anthropic, _) if wrapped => return None,
        (UsageShape::OpenAi, [Choices, Item, Text]) => false,
        (UsageShape::OpenAi, [Choices, Item, Delta | Message, rest @ ..]) => match rest {
            [Content | Refusal]
            | [Content, Item, Text]
            | [FunctionCall, Arguments | Name]
            | [ToolCalls, Item, FunctionCall, Arguments | Name]
            | [Audio, Transcript] => false,
            [Reasoning] => true,
            _ => return None,
        },
        (UsageShape::OpenAiResponses, [Output, Item, Content, Item, Text] | [Output, Item, Arguments]) => {
            false
        }
        (UsageShape::Anthropic, [Delta | Content, rest @ ..]) => match rest {
            [Text | PartialJson] | [Item, Text] => false,
            [Reasoning] | [Item, Reasoning] => true,
            _ => return None,
        },
        (UsageShape::DashScope, [Output, Text]) => false,
        (UsageShape::DashScope, [Output, Choices, Item, Message, rest @ ..]) => match rest {
            [Content] | [Content, Item, Text] | [ToolCalls, Item, FunctionCall, Arguments | Name] => false,
            [Reasoning] => true,
            _ => return None,
        },
        (UsageShape::Gemini, [Candidates, Item, Content, Parts, Item, Text]) => false,
        _ => return None,
    };
    Some(thought)
}
