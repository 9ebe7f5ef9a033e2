//! What is read of messages: usage of a platform's, models of a caller's.

#![no_main]

use aiproxy_fuzz::pieces::Input;
use aiproxy_fuzz::tree;
use aiproxy_taps::Usage;
use aiproxy_taps::socket::{Caller, Platform, UNREADABLE};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// Ends a message.
const END: u8 = b'\n';

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::new(data) else { return };
    let complete = input.choice & 1 == 1;
    let (usage, models) = read(&[input.text], complete);
    for pieces in [input.pieces(), input.single()] {
        assert_eq!(read(&pieces, complete), (usage.clone(), models.clone()));
    }
    let messages: Vec<&[u8]> = input.text.split(|byte| *byte == END).collect();
    let trees: Vec<Value> = messages.iter().filter_map(|message| tree::parse(message)).collect();
    // Where each message is JSON without doubt, a tree tells the same.
    if trees.len() == messages.iter().filter(|message| !message.trim_ascii().is_empty()).count() {
        let named = |value: &Value| value.as_str().filter(|name| name.len() < 200).map(str::to_owned);
        for tree in &trees {
            let name = if tree.is_object() { named(&tree["model"]) } else { None };
            let told = |name: &String| models.iter().any(|model| model == name || model == UNREADABLE);
            assert!(name.is_none_or(|name| told(&name)), "{tree}");
        }
        let output: u64 = trees
            .iter()
            .filter(|tree| tree["type"] == "response.done")
            .filter_map(|tree| tree["response"]["usage"]["output_tokens"].as_u64())
            .filter(|count| *count <= 1 << 40)
            .fold(0, u64::saturating_add);
        let told = usage.map_or(0, |usage| usage.tokens.output);
        assert!(told >= output, "{told} {output}");
    }
});

fn read(pieces: &[&[u8]], complete: bool) -> (Option<Usage>, Vec<String>) {
    let (mut platform, mut caller) = (Platform::default(), Caller::default());
    let mut models = Vec::new();
    for piece in pieces {
        let mut parts = piece.split(|byte| *byte == END).peekable();
        while let Some(part) = parts.next() {
            platform.feed(part);
            caller.feed(part);
            if parts.peek().is_some() {
                platform.end();
                caller.end();
                models.extend(caller.take_models());
                // Looking changes nothing.
                let _ = platform.so_far();
            }
        }
    }
    platform.end();
    caller.end();
    models.extend(caller.take_models());
    (platform.settle(complete), models)
}
