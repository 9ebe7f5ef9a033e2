use bytes::Bytes;

use super::fixtures::ALL;
use crate::strip::StripUsage;

/// The stream after the filter, and the most that was held back after any piece.
pub(super) fn stripped(pieces: &[&[u8]]) -> (String, usize) {
    let mut strip = StripUsage::default();
    let (mut out, mut fed, mut most) = (Vec::new(), 0, 0);
    for piece in pieces {
        fed += piece.len();
        out.extend_from_slice(&strip.feed(&Bytes::copy_from_slice(piece)));
        most = most.max(fed - out.len().min(fed));
    }
    out.extend_from_slice(&strip.finish());
    (String::from_utf8_lossy(&out).into_owned(), most)
}

fn check(stream: &str, expected: &str) {
    for step in 1..=stream.len() {
        let pieces: Vec<&[u8]> = stream.as_bytes().chunks(step).collect();
        assert_eq!(stripped(&pieces).0, expected, "{stream:?} in pieces of {step}");
    }
    for at in 0..stream.len() {
        let (one, two) = stream.as_bytes().split_at(at);
        assert_eq!(stripped(&[one, two]).0, expected, "{stream:?} split at {at}");
    }
}

/// A fixture as it would be without `include_usage`.
fn without_usage(name: &str, cut: &[&str]) -> (String, String) {
    let body = ALL.iter().find(|f| f.name == name).expect("a fixture").body;
    let usage = body
        .split_inclusive("\n\n")
        .filter(|e| !(e.contains(r#""choices":[],"#) && e.contains(r#""usage":{"#)));
    let mut expected: String = usage.collect();
    cut.iter().for_each(|part| expected = expected.replace(part, ""));
    assert_ne!(body, expected);
    (body.to_owned(), expected)
}

#[test]
fn the_caller_sees_the_stream_it_asked_for() {
    for name in ["openai chat stream", "azure chat stream", "dashscope compatible stream"] {
        let (body, expected) = without_usage(name, &[r#","usage":null"#]);
        check(&body, &expected);
        check(&body.replace('\n', "\r\n"), &expected.replace('\n', "\r\n"));
        check(&body.replace('\n', "\r"), &expected.replace('\n', "\r"));
    }
}

#[test]
fn what_was_not_added_stays() {
    for stream in [
        "data: [DONE]\n\n",
        ": ping\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}],\"usage\":{\"total_tokens\":1}}\n\n",
        "data: {\"choices\":[],\"usage\":{\"total_tokens\":1},\"error\":{\"message\":\"x\"}}\n\n",
        "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
        "data: {\"choices\":[]}\n\n",
        "data: {\"usage\":{\"total_tokens\":1}}\n\n",
        "data: {\"choices\":{},\"usage\":{\"total_tokens\":1}}\n\n",
        "data: {\"choices\":[{\"usage\":null}],\"a\":{\"x\":1,\"usage\":null}}\n\n",
        "data: {\"choices\":[{}],\"usage\":nullx}\n\n",
        "data: {\"choices\":[{}],\"usage\":\"null\"}\n\n",
        "data: {\"choices\":[{\"text\":\",\\\"usage\\\":null\"}]}\n\n",
        "data: {\"error\":{\"message\":\"x\"}}\n\n",
        "data: {\"usage\":null",
        "data: nonsense\n\nid: 7\n\n\n\nevent: x\n\n",
        "\u{feff}data: [1,2]\n\n",
    ] {
        check(stream, stream);
    }
}

#[test]
fn commas_and_lines_stay_right() {
    for (stream, expected) in [
        ("data: {\"usage\":null,\"choices\":[{}]}\n\n", "data: {\"choices\":[{}]}\n\n"),
        ("data: {\"usage\":null , \"choices\":[{}]}\n\n", "data: { \"choices\":[{}]}\n\n"),
        ("data: {\"usage\":null}\n\n", "data: {}\n\n"),
        ("data: {\"usage\":null,\"usage\":null}\n\n", "data: {}\n\n"),
        ("data: {\"usage\":null,\"usage\":null,\"a\":1}\n\n", "data: {\"a\":1}\n\n"),
        ("data: {\"a\":1,\"usage\":null,\"b\":2}\n\n", "data: {\"a\":1,\"b\":2}\n\n"),
        ("data: {\"a\":1 , \"us\\u0061ge\" : null }\n\n", "data: {\"a\":1  }\n\n"),
        ("data: {\"a\":1,\ndata: \"usage\":null,\ndata: \"b\":2}\n\n", "data: {\"a\":1,\ndata: \"b\":2}\n\n"),
        ("data: {\"a\":1,\"usage\":null\ndata: ,\"b\":2}\n\n", "data: {\"a\":1\ndata: ,\"b\":2}\n\n"),
        ("data: {\"usage\":null\ndata\ndata:,\"b\":2}\n\n", "data: {\"b\":2}\n\n"),
        (
            "id: 1\ndata: {\"usage\":{\"total_tokens\":1},\"choices\":[ ]}\n\ndata: [DONE]\n\n",
            "data: [DONE]\n\n",
        ),
        // At the end without its empty line.
        ("data: [1]\n\ndata: {\"choices\":[],\"usage\":{\"total_tokens\":1}}\n", "data: [1]\n\n"),
    ] {
        check(stream, expected);
    }
}

#[test]
fn whole_events_are_not_held_back_nor_copied() {
    let mut strip = StripUsage::default();
    let event = Bytes::from_static(b"data: {\"id\":\"1\",\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n");
    for _ in 0..3 {
        let passed = strip.feed(&event);
        assert_eq!(passed, event);
        assert_eq!(passed.as_ptr(), event.as_ptr());
    }
    // Content passes in the middle of its event.
    assert_eq!(strip.feed(&Bytes::from_static(b"data: {\"id\":\"1\",\"choices\":[")), "");
    let content = strip.feed(&Bytes::from_static(b"{\"delta\":{\"content\":\"half"));
    assert_eq!(content, "data: {\"id\":\"1\",\"choices\":[{\"delta\":{\"content\":\"half");
    assert_eq!(strip.feed(&Bytes::from_static(b" of it\"}}]")), " of it\"}}]");
    assert_eq!(strip.feed(&Bytes::from_static(b",\"usage\":nu")), "");
    assert_eq!(strip.feed(&Bytes::from_static(b"ll}\n\n")), "}\n\n");
}

#[test]
fn what_is_held_back_is_bounded() {
    let event = format!("data: {{\"id\":\"{}\",\"choices\":[]}}\n\n", "x".repeat(1 << 20));
    let pieces: Vec<&[u8]> = event.as_bytes().chunks(1000).collect();
    let (out, most) = stripped(&pieces);
    assert_eq!(out, event);
    assert!(most <= 66 << 10, "{most}");
}
