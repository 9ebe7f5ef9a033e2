//! Usage in answers of Anthropic's messages.

#![no_main]

use aiproxy_fuzz::taps::{Names, check};
use aiproxy_platform::UsageShape;
use libfuzzer_sys::fuzz_target;

const PATHS: &[&str] = &["/v1/messages"];
const NAMES: Names = Names { usage: "usage", input: "input_tokens", output: "output_tokens" };

fuzz_target!(|data: &[u8]| check(data, UsageShape::Anthropic, PATHS, NAMES));
