use proptest::prelude::*;
use serde_json::{Value, json};

use crate::inject::{BodyEdit, RequestScan, injectable};
use aiproxy_platform::UsageShape;

fn edit(body: &str, step: usize) -> Option<BodyEdit> {
    let mut scan = RequestScan::default();
    body.as_bytes().chunks(step).for_each(|piece| scan.feed(piece));
    scan.edit()
}

/// The body after the edit, spliced piece by piece.
fn edited(body: &str, step: usize) -> Option<String> {
    let edit = edit(body, step)?;
    let mut out = Vec::new();
    for (n, piece) in body.as_bytes().chunks(step).enumerate() {
        out.extend(edit.splice((n * step) as u64, piece).concat());
    }
    assert_eq!(out.len() as u64, edit.length(body.len() as u64));
    Some(String::from_utf8(out).expect("still UTF-8"))
}

#[test]
fn usage_is_asked_for_and_nothing_else_changes() {
    for (body, expected) in [
        (
            r#"{"model":"gpt-4o","stream":true,"messages":[]}"#,
            Some(r#"{"stream_options":{"include_usage":true},"model":"gpt-4o","stream":true,"messages":[]}"#),
        ),
        (
            " { \"stream\" : true } \n",
            Some(" {\"stream_options\":{\"include_usage\":true}, \"stream\" : true } \n"),
        ),
        (
            r#"{"stream_options":null,"stream":true}"#,
            Some(r#"{"stream_options":{"include_usage":true},"stream":true}"#),
        ),
        (
            r#"{"stream":true,"stream_options": { }}"#,
            Some(r#"{"stream":true,"stream_options": {"include_usage":true }}"#),
        ),
        (
            r#"{"stream":true,"stream_options":{"include_obfuscation":false}}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}"#),
        ),
        (
            r#"{"stream":true,"stream_options":{"a":[{"include_usage":true}],"include_usage":false}}"#,
            Some(r#"{"stream":true,"stream_options":{"a":[{"include_usage":true}],"include_usage":true}}"#),
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage": null }}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage": true }}"#),
        ),
        (
            r#"{"messages":[{"content":"\"stream\":false,\"你好\\"}],"str\u0065am":true}"#,
            Some(
                r#"{"stream_options":{"include_usage":true},"messages":[{"content":"\"stream\":false,\"你好\\"}],"str\u0065am":true}"#,
            ),
        ),
        (r#"{"stream":true,"stream_options":{"include_usage":true}}"#, None),
        (r#"{"stream":false}"#, None),
        (r#"{"stream":null}"#, None),
        (r#"{"a":{"stream":true}}"#, None),
        (r#"{"stream":"true"}"#, None),
        (r#"{"stream":1}"#, None),
        (r#"{"stream":true,"stream":true}"#, None),
        (r#"{"stream":true,"stream_options":{},"stream_options":{}}"#, None),
        (r#"{"stream":true,"stream_options":{"include_usage":false,"include_usage":false}}"#, None),
        (r#"{"stream":true,"stream_options":[]}"#, None),
        (r#"{"stream":true,"stream_options":"x"}"#, None),
        (r#"{"stream":true,"stream_options":{"include_usage":"no"}}"#, None),
        (r#"{"stream":true,"stream_options":{"include_usage":{}}}"#, None),
        (r#"{"stream":true"#, None),
        (r#"{"stream":true}{"#, None),
        (r#"{"stream":true}{}"#, None),
        (r#"{"stream":true} 1"#, None),
        (r#"{"stream":true} ""#, None),
        (r#"{"stream":true]"#, None),
        (r#"{'stream':true,"stream":true}"#, None),
        (r#"[{"stream":true}]"#, None),
        ("\u{feff}{\"stream\":true}", None),
        ("", None),
    ] {
        for step in 1..=body.len().max(1) {
            assert_eq!(edited(body, step).as_deref(), expected, "{body} in pieces of {step}");
        }
    }
}

#[test]
fn prompts_are_weighed() {
    for (body, tokens) in [
        (r#"{"messages":[{"role":"user","content":"你好 abcd"}]}"#, 4),
        (
            r#"{"messages":[{"content":[{"type":"text","text":"你好"},{"image_url":{"url":"data:xxxx"}}]}]}"#,
            2,
        ),
        (r#"{"input":{"messages":[{"content":[{"text":"你好"}]}]}}"#, 2),
        (r#"{"contents":[{"parts":[{"text":"\u4f60好"}]}]}"#, 2),
        (r#"{"input":["one ","two "]}"#, 2),
        (r#"{"system":"be brief","messages":[]}"#, 2),
        (r#"{"model":"abcdefgh"}"#, 0),
    ] {
        let mut scan = RequestScan::default();
        body.as_bytes().chunks(3).for_each(|piece| scan.feed(piece));
        assert_eq!(scan.input_estimate(), tokens, "{body}");
    }
}

#[test]
fn only_completions_know_the_option() {
    for (path, expected) in [
        ("/v1/chat/completions", true),
        ("/v1/completions", true),
        ("/openai/deployments/x/chat/completions", true),
        ("/compatible-mode/v1/chat/completions", true),
        ("/v1/embeddings", false),
        ("/v1/chat/completions/chatcmpl-1", false),
    ] {
        assert_eq!(injectable(UsageShape::OpenAi, path), expected, "{path}");
    }
    assert!(!injectable(UsageShape::OpenAiResponses, "/v1/completions"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z\"\\\\{}\\[\\],:\u{4e00}-\u{4e10}\n]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z\"\\\\]{0,8}|stream|stream_options|include_usage", inner, 0..5)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn an_edited_body_differs_in_nothing_else(
        mut body in prop::collection::btree_map("[a-z\"]{0,5}", any_json(), 0..5),
        options in prop::option::of(prop_oneof![
            Just(json!(null)), Just(json!({})), Just(json!({"include_usage": false})),
            Just(json!({"include_usage": true})), Just(json!({"a": {"include_usage": false}})),
        ]),
        pretty in any::<bool>(),
        step in 1..40usize,
    ) {
        body.insert("stream".to_owned(), true.into());
        if let Some(options) = options {
            body.insert("stream_options".to_owned(), options);
        }
        let value = Value::from_iter(body);
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.expect("serialises");
        let asked = value["stream_options"]["include_usage"] == true;
        let result = edited(&text, step);
        prop_assert_eq!(result.is_none(), asked);
        if let Some(result) = result {
            let mut expected = value;
            expected["stream_options"]["include_usage"] = true.into();
            let result: Value = serde_json::from_str(&result).expect("still JSON");
            prop_assert_eq!(result, expected);
        }
    }
}
