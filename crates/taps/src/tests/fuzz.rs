//! Every parser against mutations of every fixture, for `AIPROXY_FUZZ_SECONDS` (default 1).
//!
//! The seed is fixed and printed with each failure; `AIPROXY_FUZZ_SEED` sets another.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::fixtures::ALL;
use crate::{RequestScan, StripUsage};

/// What mutations are made of.
const TOKENS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b",",
    b":",
    b"null",
    b"-1",
    b"1e999",
    b"\r",
    b"\n",
    b"\r\n\r\n",
    b"\n\n",
    b"data:",
    b"data: ",
    b"data",
    b"\"usage\":",
    b"\"usage\":null",
    b",\"usage\":null",
    b"\"choices\":[]",
    b"\"choices\":[{}]",
    b"\"model\":\"x\"",
    b"\\u12",
    b"\\ud83d",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\ndata: ",
    b"\ndata:\ndata:",
    b"[DONE]",
    b"\"stream\":true",
    b"\"stream_options\":{",
    b"\"include_usage\":false",
    b"18446744073709551616",
    b"\"usageMetadata\":{\"promptTokenCount\":1}",
    b"\"type\":\"message_stop\"",
    b"\"models\":[",
    b"\0",
    b": x\n",
];

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let to = at + self.below((bytes.len() - at + 1).min(64));
        match self.below(5) {
            0 => drop(bytes.drain(at..to)),
            1 => {
                let piece = bytes[at..to].to_vec();
                let into = self.below(bytes.len() + 1);
                bytes.splice(into..into, piece);
            }
            2 if at < bytes.len() => bytes[at] = self.next() as u8,
            3 => bytes.truncate(at.max(8)),
            _ => {
                let token = TOKENS[self.below(TOKENS.len())];
                bytes.splice(at..at, token.iter().copied());
            }
        }
    }

    /// Cuts at random.
    fn pieces<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        let longest = 1 + self.below(40) * self.below(40);
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(1 + self.below(longest.min(bytes.len())));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }
}

fn answers() -> Vec<&'static str> {
    ALL.iter().map(|fixture| fixture.body).collect()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Requests that an edit has something to do with.
const REQUESTS: &[&str] = &[
    r#"{"model":"qwen-max","messages":[{"role":"user","content":"你好，\u4e16界"}],"stream":true}"#,
    r#"{"stream":true,"stream_options":{"include_usage":false,"x":[{}]},"messages":[]}"#,
    r#" { "stream_options" : null , "stream" : true , "n" : 1.5e3 } "#,
    r#"{"stream":true,"stream_options":{}}"#,
];

fn runs(seed: u64, corpus: &[&str], target: impl Fn(&mut Random, &[u8], usize)) {
    let seed = number("AIPROXY_FUZZ_SEED").unwrap_or(seed);
    let until = Instant::now() + Duration::from_secs(number("AIPROXY_FUZZ_SECONDS").unwrap_or(1));
    let mut round = 0;
    while round == 0 || Instant::now() < until {
        let mut random = Random(seed ^ round);
        let fixture = random.below(corpus.len());
        let mut bytes = corpus[fixture].as_bytes().to_vec();
        (0..random.below(8)).for_each(|_| random.mutate(&mut bytes));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            target(&mut random, &bytes, fixture);
        }));
        assert!(outcome.is_ok(), "seed {seed}, round {round}: {:?}", String::from_utf8_lossy(&bytes));
        round += 1;
    }
}

#[test]
fn taps() {
    runs(1, &answers(), |random, bytes, fixture| {
        for complete in [false, true] {
            let fixture = &ALL[fixture];
            let mut whole = fixture.tap();
            whole.feed(bytes);
            let mut parts = fixture.tap();
            random.pieces(bytes).iter().for_each(|piece| parts.feed(piece));
            assert_eq!(parts.finish(complete), whole.finish(complete));
        }
    });
}

#[test]
fn strips() {
    runs(2, &answers(), |random, bytes, _| {
        let strip = |pieces: &[&[u8]]| {
            let mut strip = StripUsage::default();
            let mut out = Vec::new();
            for piece in pieces {
                out.extend_from_slice(&strip.feed(&Bytes::copy_from_slice(piece)));
            }
            out.extend_from_slice(&strip.finish());
            out
        };
        let whole = strip(&[bytes]);
        assert_eq!(strip(&random.pieces(bytes)), whole);
        // Bytes only go: what is left is a subsequence.
        let mut rest = bytes.iter();
        assert!(whole.iter().all(|byte| rest.any(|other| other == byte)), "a byte was made up");
    });
}

#[test]
fn requests() {
    runs(3, REQUESTS, |random, bytes, _| {
        let mut whole = RequestScan::default();
        whole.feed(bytes);
        let mut parts = RequestScan::default();
        random.pieces(bytes).iter().for_each(|piece| parts.feed(piece));
        assert_eq!(parts.edit(), whole.edit());
        assert_eq!(parts.input_estimate(), whole.input_estimate());
        // An edit never makes JSON out of what is none, nor the other way round.
        let Some(edit) = whole.edit() else { return };
        let after = edit.splice(0, bytes).concat();
        let before: Result<serde_json::Value, _> = serde_json::from_slice(bytes);
        let after: Result<serde_json::Value, _> = serde_json::from_slice(&after);
        assert_eq!(before.is_ok(), after.is_ok());
        if let Ok(after) = after {
            assert_eq!(after["stream_options"]["include_usage"], true);
        }
    });
}
