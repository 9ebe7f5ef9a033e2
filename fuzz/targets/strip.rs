//! The filter that takes the report out of a stream again.

#![no_main]

use aiproxy_fuzz::pieces::{Input, is_subsequence};
use aiproxy_fuzz::{events, tree};
use aiproxy_taps::StripUsage;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

/// What is held back at most, besides the piece under way.
const HELD: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::new(data) else { return };
    let whole = stripped(&[input.text]);
    for pieces in [input.pieces(), input.single()] {
        let parts = stripped(&pieces);
        assert!(parts == whole, "in {} pieces: {}\nwhole: {}", pieces.len(), shown(&parts), shown(&whole));
    }
    assert!(is_subsequence(&whole, input.text), "a byte was made up: {}", shown(&whole));
    // A name may be written with escapes.
    let named = input.text.windows(5).any(|window| window == b"usage") || input.text.contains(&b'\\');
    assert!(named || whole == input.text, "something else went: {}", shown(&whole));
    let (expected, all) = expected(input.text);
    let mut left = events::parse(&whole);
    assert!(!all || left.len() == expected.len(), "{}", shown(&whole));
    left.truncate(expected.len());
    let left: Vec<_> = left.into_iter().map(|data| data.and_then(|data| tree(&data))).collect();
    assert_eq!(left, expected, "{}", shown(&whole));
});

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn stripped(pieces: &[&[u8]]) -> Vec<u8> {
    let mut strip = StripUsage::default();
    let (mut out, mut fed) = (Vec::new(), 0);
    for piece in pieces {
        fed += piece.len();
        let passes = strip.feed(&Bytes::copy_from_slice(piece));
        out.extend_from_slice(&passes);
        assert!(out.len() <= fed);
    }
    out.extend_from_slice(&strip.finish());
    out
}

/// The events that stay, up to one that is no JSON (nor `[DONE]`); and whether there is none.
fn expected(stream: &[u8]) -> (Vec<Option<Value>>, bool) {
    let mut left = Vec::new();
    for data in events::parse(stream) {
        let Some(data) = data else {
            left.push(None);
            continue;
        };
        // Longer events pass as they are.
        let Some(mut value) = tree(&data).filter(|_| data.len() < HELD) else { return (left, false) };
        if let Some(object) = value.as_object_mut() {
            if is_report(object) {
                continue;
            }
            if object.get("usage").is_some_and(Value::is_null) {
                object.remove("usage");
            }
        }
        left.push(Some(value));
    }
    (left, true)
}

/// Whether the event is there only because usage was asked for.
fn is_report(event: &Map<String, Value>) -> bool {
    let said = |name: &str| event.get(name).is_some_and(|value| !value.is_null());
    event.get("choices").and_then(Value::as_array).is_some_and(Vec::is_empty)
        && event.get("usage").is_some_and(Value::is_object)
        && !said("error")
        && !said("prompt_filter_results")
}

fn tree(data: &[u8]) -> Option<Value> {
    if data == b"[DONE]" { Some("[DONE]".into()) } else { tree::parse(data) }
}
