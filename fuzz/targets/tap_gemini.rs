//! Usage in answers of Gemini.

#![no_main]

use aiproxy_fuzz::taps::{Names, check};
use aiproxy_platform::UsageShape;
use libfuzzer_sys::fuzz_target;

const PATHS: &[&str] = &["/v1beta/models/gemini-2.5-flash:generateContent"];
const NAMES: Names =
    Names { usage: "usageMetadata", input: "promptTokenCount", output: "candidatesTokenCount" };

fuzz_target!(|data: &[u8]| check(data, UsageShape::Gemini, PATHS, NAMES));
