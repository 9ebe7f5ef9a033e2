//! What holds of every platform's tap.

use aiproxy_platform::UsageShape;
use aiproxy_taps::Tap;
use serde_json::Value;

use crate::events;
use crate::pieces::Input;
use crate::tree;

/// No number in a report is larger.
const MOST: u64 = 1 << 40;

/// Names of the members that say what was read and what was written.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// The member that holds both.
    pub usage: &'static str,
    /// What the model read.
    pub input: &'static str,
    /// What the model wrote.
    pub output: &'static str,
}

/// Feeds one answer in all ways. The lowest bit of the choice says whether it is a stream of events,
/// the others pick a path.
pub fn check(data: &[u8], shape: UsageShape, paths: &[&str], names: Names) {
    let Some(input) = Input::new(data) else { return };
    let stream = input.choice & 1 == 1;
    let path = paths[usize::from(input.choice >> 1) % paths.len()];
    let used = |pieces: &[&[u8]], complete: bool| {
        let kind = if stream { "text/event-stream" } else { "application/json" };
        let mut tap = Tap::new(shape, path, kind, "").expect("such an answer can be read");
        pieces.iter().for_each(|piece| tap.feed(piece));
        tap.finish(complete)
    };
    for complete in [true, false] {
        let whole = used(&[input.text], complete);
        assert_eq!(used(&input.pieces(), complete), whole, "in pieces");
        if complete {
            assert_eq!(used(&input.single(), complete), whole, "byte by byte");
        }

        // A count of text is at most its bytes; a platform's sum has at most three parts.
        let most = 4 * MOST + input.text.len() as u64;
        let tokens = &whole.tokens;
        for count in [
            tokens.input,
            tokens.output,
            tokens.cached,
            tokens.cache_written,
            tokens.reasoning,
            tokens.audio_input,
            tokens.audio_output,
            tokens.image_input,
            tokens.image_output,
            whole.images,
            whole.characters,
        ] {
            assert!(count <= most, "{whole:?}");
        }
        assert!(whole.seconds.is_none_or(|seconds| (0.0..=MOST as f64).contains(&seconds)), "{whole:?}");
        assert!(whole.model.as_ref().is_none_or(|model| model.len() <= 128), "{whole:?}");
    }
    if stream {
        let whole = used(&[input.text], true);
        for end in [&b"\r\n"[..], b"\r"] {
            let Some(other) = events::with_line_end(input.text, end) else { break };
            assert_eq!(used(&[&other], true), whole, "with other line ends");
        }
    }
    if !stream && let Some((read, written)) = expected(input.text, names) {
        let whole = used(&[input.text], true);
        assert!(whole.reported, "{whole:?}");
        assert_eq!((whole.tokens.input, whole.tokens.output), (read, written), "{whole:?}");
    }
}

/// What a tree says, of an answer that is one report and hardly anything else.
fn expected(text: &[u8], names: Names) -> Option<(u64, u64)> {
    let tree = tree::parse(text)?;
    let object = tree.as_object()?;
    let usage = object.get(names.usage)?.as_object()?;
    let scalar = |value: &Value| !value.is_object() && !value.is_array();
    let alone = object.iter().all(|(name, value)| name == names.usage || scalar(value));
    let (read, written) = (usage.get(names.input)?, usage.get(names.output)?);
    (alone && usage.len() == 2).then_some(())?;
    Some((tree::count(read)?, tree::count(written)?))
}
