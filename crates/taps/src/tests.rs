//! What platforms really send, split anywhere, broken off anywhere, and worse.

mod fixtures;
mod fuzz;
mod hostile;
mod inject;
mod splits;
mod strip;

use aiproxy_core::usage::Tokens;
use aiproxy_platform::UsageShape;

use crate::report::{Finish, Usage};
use crate::tap::Tap;
use fixtures::{ALL, Fixture};

/// What a tap says of an answer that comes in pieces of `step` bytes.
fn tapped(fixture: &Fixture, bytes: &[u8], step: usize, complete: bool) -> Usage {
    let mut tap = fixture.tap();
    bytes.chunks(step.max(1)).for_each(|piece| tap.feed(piece));
    tap.finish(complete)
}

#[test]
fn usage_is_read_from_every_platform() {
    for fixture in ALL {
        let usage = tapped(fixture, fixture.body.as_bytes(), fixture.body.len(), true);
        assert_eq!(usage, (fixture.expected)(), "{}", fixture.name);
    }
}

#[test]
fn an_answer_that_said_it_was_over_is_whole_even_if_the_caller_left_then() {
    for fixture in ALL.iter().filter(|f| f.says_its_end) {
        let usage = tapped(fixture, fixture.body.as_bytes(), 7, false);
        assert_eq!(usage, (fixture.expected)(), "{}", fixture.name);
    }
}

/// The bytes before the first `end` in a fixture's body.
fn broken_off(name: &str, end: &str) -> Usage {
    let fixture = ALL.iter().find(|f| f.name == name).expect("a fixture");
    let at = fixture.body.find(end).expect("the end is in the body");
    tapped(fixture, &fixture.body.as_bytes()[..at], 11, false)
}

#[test]
fn broken_off_streams_count_what_was_seen() {
    let chat = broken_off("openai chat stream", r#"。"}"#);
    assert_eq!(chat.tokens, Tokens { output: 6, ..Tokens::default() });
    assert_eq!((chat.reported, chat.estimated, chat.finish), (false, true, None));
    assert_eq!(chat.model.as_deref(), Some("gpt-4o-mini-2024-07-18"));

    // Input from `message_start`, its first token, and the text since.
    let messages = broken_off("anthropic stream", r#"data: {"type":"content_block_stop""#);
    assert_eq!(messages.tokens.input, 25 + 12 + 100);
    assert_eq!(messages.tokens.output, 1 + 5);
    assert!(messages.reported && messages.estimated);

    // Each chunk reports; the second is only half there.
    let native = broken_off("dashscope native stream", r#","usage":{"total_tokens":18"#);
    assert_eq!((native.tokens.input, native.tokens.output), (12, 3 + 4));
    assert!(native.reported && native.estimated);

    let responses = broken_off("responses stream", "event: response.completed");
    assert_eq!((responses.tokens.input, responses.tokens.output), (0, 4 + 3));
    assert_eq!(responses.model.as_deref(), Some("gpt-5-2025-08-07"));
    assert!(!responses.reported && responses.estimated);

    let gemini = broken_off("gemini sse", r#""finishReason""#);
    assert_eq!((gemini.tokens.input, gemini.tokens.output), (8, 5));

    let nothing = tapped(&ALL[0], b"", 1, false);
    assert_eq!(nothing, Usage { estimated: true, ..Usage::default() });
}

#[test]
fn numbers_cut_in_two_are_not_counted() {
    let body = br#"{"usage":{"prompt_tokens":1234"#;
    let fixture = &ALL[0];
    let usage = tapped(fixture, &body[..body.len() - 2], 3, false);
    assert_eq!(usage.tokens, Tokens::default());
}

#[test]
fn streams_that_never_report_are_estimated() {
    let fixture = ALL.iter().find(|f| f.name == "openai chat stream").expect("a fixture");
    let body = fixture.body.replace(r#","usage":{"prompt_tokens":19"#, r#","x":{"prompt_tokens":19"#);
    let usage = tapped(fixture, body.as_bytes(), 64, true);
    assert_eq!(usage.tokens, Tokens { output: 7, ..Tokens::default() });
    assert_eq!((usage.reported, usage.estimated, usage.finish), (false, true, Some(Finish::Stop)));
}

#[test]
fn what_cannot_be_read_is_not_tapped() {
    let json = "application/json; charset=utf-8";
    for (shape, path, content_type, encoding, tapped) in [
        (UsageShape::OpenAi, "/v1/chat/completions", json, "", true),
        (UsageShape::OpenAi, "/v1/chat/completions", json, "identity", true),
        (UsageShape::OpenAi, "/v1/chat/completions", "TEXT/Event-Stream", "", true),
        (UsageShape::OpenAi, "/v1/chat/completions", "application/problem+json", "", true),
        (UsageShape::OpenAi, "/v1/chat/completions", json, "gzip", false),
        (UsageShape::OpenAi, "/v1/audio/speech", "audio/mpeg", "", false),
        (UsageShape::OpenAi, "/v1/audio/transcriptions", "text/plain", "", false),
        (UsageShape::OpenAi, "/v1/batches", json, "", false),
        (UsageShape::OpenAi, "/v1/chat/completions/chatcmpl-1", json, "", false),
        (UsageShape::OpenAi, "/v1/chat/completions", "", "", false),
        (UsageShape::Anthropic, "/v1/messages/count_tokens", json, "", false),
        (UsageShape::Gemini, "/v1beta/models/gemini-2.5-pro:counttokens", json, "", false),
        (UsageShape::DashScope, "/api/v1/tasks/abc", json, "", false),
        (UsageShape::None, "/v1/listen", json, "", false),
    ] {
        assert_eq!(Tap::new(shape, path, content_type, encoding).is_some(), tapped, "{path} {content_type}");
    }
}
