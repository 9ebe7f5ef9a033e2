//! Usage in answers of OpenAI's chat completions and its other products.

#![no_main]

use aiproxy_fuzz::taps::{Names, check};
use aiproxy_platform::UsageShape;
use libfuzzer_sys::fuzz_target;

const PATHS: &[&str] =
    &["/v1/chat/completions", "/v1/images/generations", "/v1/audio/transcriptions", "/v1/embeddings"];
const NAMES: Names = Names { usage: "usage", input: "prompt_tokens", output: "completion_tokens" };

fuzz_target!(|data: &[u8]| check(data, UsageShape::OpenAi, PATHS, NAMES));
