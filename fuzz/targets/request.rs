//! The scan of a request, and the edit that asks for usage.

#![no_main]

use aiproxy_fuzz::pieces::Input;
use aiproxy_fuzz::tree;
use aiproxy_taps::{BodyEdit, RequestScan};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::new(data) else { return };
    let whole = scanned(&[input.text]);
    assert_eq!(scanned(&input.pieces()), whole, "in pieces");
    assert_eq!(scanned(&input.single()), whole, "byte by byte");
    let (edit, estimate, streams) = whole;
    assert!(estimate <= input.text.len() as u64);

    let before: Option<Value> = serde_json::from_slice(input.text).ok();
    if let Some(tree) = tree::parse(input.text) {
        assert_eq!(edit.is_some(), wanted(&tree), "{tree}");
        assert!(!tree.is_object() || streams == (tree["stream"] == true), "{tree}");
    }
    let Some(edit) = edit else { return };
    let after = spliced(&edit, &[input.text]);
    assert_eq!(spliced(&edit, &input.pieces()), after, "in pieces");
    assert_eq!(spliced(&edit, &input.single()), after, "byte by byte");
    assert_eq!(edit.length(input.text.len() as u64), after.len() as u64);

    // An edit makes no JSON of what is none, nor the other way round.
    let after: Option<Value> = serde_json::from_slice(&after).ok();
    assert_eq!(after.is_some(), before.is_some());
    if let Some(mut expected) = before {
        expected["stream_options"]["include_usage"] = true.into();
        assert_eq!(after, Some(expected));
    }
});

fn scanned(pieces: &[&[u8]]) -> (Option<BodyEdit>, u64, bool) {
    let mut scan = RequestScan::default();
    pieces.iter().for_each(|piece| scan.feed(piece));
    (scan.edit(), scan.input_estimate(), scan.streams())
}

fn spliced(edit: &BodyEdit, pieces: &[&[u8]]) -> Vec<u8> {
    let (mut out, mut offset) = (Vec::new(), 0);
    for piece in pieces {
        out.extend(edit.splice(offset, piece).concat());
        offset += piece.len() as u64;
    }
    out
}

/// Whether a request lacks what an edit puts in.
fn wanted(tree: &Value) -> bool {
    let asks = match tree.get("stream_options") {
        None | Some(Value::Null) => Some(false),
        Some(Value::Object(options)) => match options.get("include_usage") {
            None | Some(Value::Null) => Some(false),
            Some(value) => value.as_bool(),
        },
        Some(_) => None,
    };
    tree.get("stream") == Some(&Value::Bool(true)) && asks == Some(false)
}
