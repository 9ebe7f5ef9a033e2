//! One tap per answer.

use aiproxy_platform::UsageShape;

use crate::json::Scanner;
use crate::reader::{Product, Reader};
use crate::report::Usage;
use crate::sse::{Listener, Splitter};

/// The `Accept-Encoding` under which a tap can read the answer.
pub const ACCEPT_ENCODING: &str = "identity";

/// Segments of paths whose answers speak of use that is counted elsewhere, or was before: what
/// batches used is seen again by everyone who looks at them.
const NOT_HERE: &[&[u8]] = &[b"batches", b"files", b"uploads", b"vector_stores", b"fine_tuning", b"tasks"];
/// Last segments, or ends of them, of normal paths that count tokens without using them.
const NOT_USED: &[&[u8]] = &[b"count_tokens", b":counttokens", b"input_tokens"];

/// Whether answers to `POST` requests to this normal path may report usage of their own: then an
/// answer has to come uncompressed ([`ACCEPT_ENCODING`]).
#[must_use]
pub fn reads(shape: UsageShape, path: &str) -> bool {
    if shape == UsageShape::None {
        return false;
    }
    let mut last: &[u8] = b"";
    for segment in path.as_bytes().split(|byte| *byte == b'/') {
        // What stands below completions is a stored one under its id.
        if NOT_HERE.contains(&segment) || last == b"completions" {
            return false;
        }
        last = segment;
    }
    !NOT_USED.iter().any(|end| last.ends_with(end))
}

/// Whether answers to this normal path are speech, billed by the characters of the request.
#[must_use]
pub fn speaks(shape: UsageShape, path: &str) -> bool {
    shape == UsageShape::OpenAi && path.ends_with("/audio/speech")
}

/// Reads one answer as it passes.
///
/// For successful answers (2xx) to `POST` only: other methods show again what was counted when it
/// was made.
#[derive(Debug)]
pub struct Tap {
    scanner: Scanner,
    reader: Reader,
    events: Option<Splitter>,
    fed: u64,
}

impl Tap {
    /// A tap for an answer of this shape. `path` is the normal path of the request, the others
    /// are the answer's headers, empty where absent. `None`: such an answer reports nothing, or
    /// nothing that can be read.
    #[must_use]
    pub fn new(shape: UsageShape, path: &str, content_type: &str, content_encoding: &str) -> Option<Self> {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| media.eq_ignore_ascii_case(name);
        let stream = is("text/event-stream");
        let json = is("application/json") || media.to_ascii_lowercase().ends_with("+json");
        let plain = content_encoding.is_empty() || content_encoding.trim().eq_ignore_ascii_case("identity");
        if !reads(shape, path) || !(stream || json) || !plain {
            return None;
        }
        let product = match shape {
            UsageShape::OpenAi if path.contains("/images/") => Product::Images,
            UsageShape::OpenAi
                if path.ends_with("/audio/transcriptions") || path.ends_with("/audio/translations") =>
            {
                Product::Transcript
            }
            _ => Product::Text,
        };
        Some(Self {
            scanner: Scanner::default(),
            reader: Reader::new(shape, product, stream),
            events: stream.then(Splitter::default),
            fed: 0,
        })
    }

    /// Looks at the next bytes of the body.
    pub fn feed(&mut self, bytes: &[u8]) {
        match &mut self.events {
            None => self.scanner.feed(bytes, self.fed, &mut self.reader),
            Some(events) => {
                events.feed(bytes, &mut Data { scanner: &mut self.scanner, reader: &mut self.reader });
            }
        }
        self.fed += bytes.len() as u64;
    }

    /// What the answer used. `complete`: its body came to a regular end, as opposed to a caller
    /// or a platform that left, or a cut.
    #[must_use]
    pub fn finish(mut self, complete: bool) -> Usage {
        self.scanner.end(complete, self.fed, &mut self.reader);
        self.reader.settle(complete)
    }
}

/// Hands the data of events to the scanner, a text each.
struct Data<'a> {
    scanner: &'a mut Scanner,
    reader: &'a mut Reader,
}

impl Listener for Data<'_> {
    fn data(&mut self, bytes: &[u8], at: u64) {
        self.scanner.feed(bytes, at, self.reader);
    }

    fn next_line(&mut self, at: u64) {
        self.scanner.feed(b"\n", at, self.reader);
    }

    fn end(&mut self, at: u64) {
        self.scanner.end(true, at, self.reader);
    }
}
