//! Usage in answers of OpenAI's responses.

#![no_main]

use aiproxy_fuzz::taps::{Names, check};
use aiproxy_platform::UsageShape;
use libfuzzer_sys::fuzz_target;

const PATHS: &[&str] = &["/v1/responses"];
const NAMES: Names = Names { usage: "usage", input: "input_tokens", output: "output_tokens" };

fuzz_target!(|data: &[u8]| check(data, UsageShape::OpenAiResponses, PATHS, NAMES));
