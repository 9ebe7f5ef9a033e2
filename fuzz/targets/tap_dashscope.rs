//! Usage in answers of DashScope's own API.

#![no_main]

use aiproxy_fuzz::taps::{Names, check};
use aiproxy_platform::UsageShape;
use libfuzzer_sys::fuzz_target;

const PATHS: &[&str] = &["/api/v1/services/aigc/text-generation/generation"];
const NAMES: Names = Names { usage: "usage", input: "input_tokens", output: "output_tokens" };

fuzz_target!(|data: &[u8]| check(data, UsageShape::DashScope, PATHS, NAMES));
