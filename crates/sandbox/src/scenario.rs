//! The `x-sandbox` request header: how one request asks the platform to misbehave.
//!
//! A list `name` or `name=value`, separated by `;`. See [`NAMES`] for what there is.

use crate::gates::NAME_LIMIT;
use crate::shape::Fault;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::time::Duration;

/// The request header that carries a scenario.
pub(crate) const HEADER: &str = "x-sandbox";

/// Every name, for the message that refuses an unknown one.
const NAMES: &str = "status=NNN, retry-after=N, code=STRING, hold=NAME, chunks=N, delay=MS, cut=N, \
                     location=URL, operation-location=URL, upload-url=URL, leak, trailers";
/// A stream has at most this many content chunks.
const MAX_CHUNKS: usize = 1_000_000;

/// What a real platform adds to its answers and a relay should keep to itself.
const LEAKS: [(&str, &str); 5] = [
    ("openai-organization", "org-sandbox"),
    ("openai-project", "proj_sandbox"),
    ("set-cookie", "__cf_bm=x; path=/"),
    ("alt-svc", "h3=\":443\""),
    ("access-control-allow-origin", "*"),
];

/// One request's wishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scenario {
    /// Answer with this status: an error body from 400 up, nothing for 204 and 3xx, the normal
    /// answer under another number for the rest of 2xx.
    pub(crate) status: Option<StatusCode>,
    /// Replaces the `code` of an error body.
    pub(crate) code: Option<String>,
    /// The gate to wait at.
    pub(crate) hold: Option<String>,
    /// Content chunks of a stream.
    pub(crate) chunks: Option<usize>,
    /// Pause between content chunks.
    pub(crate) delay: Option<Duration>,
    /// Reset the connection after this many content chunks.
    pub(crate) cut: Option<u64>,
    /// End with a trailer.
    pub(crate) trailers: bool,
    /// Answer headers.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Scenario {
    /// Reads the header; a fault names the offending item.
    pub(crate) fn parse(headers: &HeaderMap) -> Result<Scenario, Fault> {
        let mut scenario = Scenario::default();
        for line in headers.get_all(HEADER) {
            let line = String::from_utf8_lossy(line.as_bytes());
            for item in line.split(';').map(str::trim).filter(|item| !item.is_empty()) {
                let (name, value) = match item.split_once('=') {
                    Some((name, value)) => (name.trim(), Some(value.trim())),
                    None => (item, None),
                };
                scenario.apply(name, value).ok_or_else(|| {
                    Fault::bad_request(format!("{HEADER}: `{item}` is none of: {NAMES}")).param(HEADER)
                })?;
            }
        }
        Ok(scenario)
    }

    fn apply(&mut self, name: &str, value: Option<&str>) -> Option<()> {
        match (name, value) {
            ("status", Some(value)) => {
                let status = value.parse().ok().filter(|n| (200..=599).contains(n))?;
                self.status = Some(StatusCode::from_u16(status).ok()?);
            }
            ("retry-after", Some(value)) => self.add("retry-after", value)?,
            ("location", Some(value)) => self.add("location", value)?,
            ("operation-location", Some(value)) => self.add("operation-location", value)?,
            ("upload-url", Some(value)) => self.add("x-goog-upload-url", value)?,
            ("code", Some(value)) => self.code = Some(value.to_owned()),
            ("hold", Some(value)) if (1..=NAME_LIMIT).contains(&value.len()) => {
                self.hold = Some(value.to_owned());
            }
            ("chunks", Some(value)) => {
                self.chunks = Some(value.parse().ok().filter(|n| (1..=MAX_CHUNKS).contains(n))?);
            }
            ("delay", Some(value)) => self.delay = Some(Duration::from_millis(value.parse().ok()?)),
            ("cut", Some(value)) => self.cut = Some(value.parse().ok()?),
            ("leak", None) => {
                for (name, value) in LEAKS {
                    self.add(name, value)?;
                }
            }
            ("trailers", None) => self.trailers = true,
            _ => return None,
        }
        Some(())
    }

    fn add(&mut self, name: &'static str, value: &str) -> Option<()> {
        let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        self.headers.push((HeaderName::from_static(name), value));
        Some(())
    }

    /// Adds the answer headers that the scenario asks for.
    pub(crate) fn decorate(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Scenario, Fault> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, text.parse().unwrap());
        Scenario::parse(&headers)
    }

    #[test]
    fn items_are_read_in_any_order() {
        let scenario = parse(" cut=2 ; status=429;retry-after=7; leak;hold=a-b; delay=5;").unwrap();
        assert_eq!(scenario.cut, Some(2));
        assert_eq!(scenario.status, Some(StatusCode::TOO_MANY_REQUESTS));
        assert_eq!(scenario.hold.as_deref(), Some("a-b"));
        let mut headers = HeaderMap::new();
        scenario.decorate(&mut headers);
        assert_eq!(headers["retry-after"], "7");
        assert_eq!(headers["alt-svc"], "h3=\":443\"");
        assert_eq!(parse("").unwrap(), Scenario::default());
    }

    #[test]
    fn unknown_names_are_refused_with_the_valid_ones() {
        for bad in ["explode", "status=99", "status=x", "hold=", "leak=1", "chunks=0"] {
            let fault = parse(bad).unwrap_err();
            assert_eq!(fault.status, StatusCode::BAD_REQUEST);
            assert!(fault.message.contains(bad) && fault.message.contains("retry-after=N"));
        }
    }
}
