//! What the platform saw: one record per request, and running totals.
//!
//! A record opens when the request's head is read and closes when its [`Visit`] goes: completed if
//! the answer was handed over whole, `cut` if the guard dropped before that.

use crate::auth;
use crate::ids::hex;
use http::{HeaderMap, StatusCode, request::Parts};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The log keeps this many requests.
const LOG_LIMIT: usize = 1000;
/// A logged value (a header, a path) is cut to this many bytes.
const VALUE_LIMIT: usize = 8 << 10;
/// Headers beyond this many bytes of values are not logged.
const HEADERS_LIMIT: usize = 64 << 10;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Still being read or answered.
    Open,
    /// The answer was sent whole.
    Complete,
    /// The peer went away (or a scenario cut it off) before the answer was sent whole or the
    /// request body was read whole.
    Cut,
}

impl Outcome {
    /// The word of the control protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Open => "open",
            Outcome::Complete => "complete",
            Outcome::Cut => "cut",
        }
    }
}

/// One request as the platform saw it.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    /// Running number, from 1.
    pub n: u64,
    /// Method, in upper case.
    pub method: String,
    /// Path with query; key parameters show `<key>` or `<other>`.
    pub path: String,
    /// Names in lower case; repeated headers joined with `, `; keys show `<key>` or `<other>`.
    pub headers: BTreeMap<String, String>,
    /// Whether the sandbox's key was there.
    pub authorized: bool,
    /// `None` until the answer's head is made, and for ever when the connection was cut before.
    pub status: Option<u16>,
    /// Body bytes read so far.
    pub request_bytes: u64,
    /// Of the body, in hexadecimal; `None` when it was not read to its end.
    pub request_sha256: Option<String>,
    /// Trailers of the request body.
    pub request_trailers: BTreeMap<String, String>,
    /// Body bytes handed to the connection so far.
    pub response_bytes: u64,
    /// How it ended.
    pub outcome: Outcome,
}

impl SeenRequest {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "n": self.n,
            "method": self.method,
            "path": self.path,
            "headers": self.headers,
            "authorized": self.authorized,
            "status": self.status,
            "request_bytes": self.request_bytes,
            "request_sha256": self.request_sha256,
            "request_trailers": self.request_trailers,
            "response_bytes": self.response_bytes,
            "outcome": self.outcome.as_str(),
        })
    }
}

/// Tokens announced to callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the requests.
    pub input: u64,
    /// Of the answers, as far as they were sent.
    pub output: u64,
}

/// Totals since the start; clearing the log keeps them.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Requests on platform paths, refused ones too.
    pub requests: u64,
    /// By endpoint name (`chat.completions`, `files.content`, ...; `unknown` for other paths).
    pub by_endpoint: BTreeMap<&'static str, u64>,
    /// By status; answers that were cut before their head count nowhere.
    pub by_status: BTreeMap<u16, u64>,
    /// By model.
    pub by_model: BTreeMap<String, Tokens>,
    /// All models together.
    pub tokens: Tokens,
}

impl Counters {
    pub(crate) fn to_json(&self) -> Value {
        let by_status: BTreeMap<String, u64> =
            self.by_status.iter().map(|(status, n)| (status.to_string(), *n)).collect();
        let by_model: BTreeMap<&String, Value> = self
            .by_model
            .iter()
            .map(|(model, t)| (model, json!({"tokens_in": t.input, "tokens_out": t.output})))
            .collect();
        json!({
            "requests": self.requests,
            "by_endpoint": self.by_endpoint,
            "by_status": by_status,
            "by_model": by_model,
            "tokens_in": self.tokens.input,
            "tokens_out": self.tokens.output,
        })
    }
}

type Record = Arc<Mutex<SeenRequest>>;

/// The log and the totals.
#[derive(Default)]
pub(crate) struct Log {
    requests: Mutex<Requests>,
    counters: Mutex<Counters>,
}

#[derive(Default)]
struct Requests {
    last: u64,
    kept: VecDeque<Record>,
}

impl Log {
    /// Opens a record.
    pub(crate) fn open(&self, key: &str, head: &Parts, endpoint: &'static str) -> Visit {
        let mut counters = lock(&self.counters);
        counters.requests += 1;
        *counters.by_endpoint.entry(endpoint).or_default() += 1;
        drop(counters);

        let mut requests = lock(&self.requests);
        requests.last += 1;
        let record = Arc::new(Mutex::new(SeenRequest {
            n: requests.last,
            method: head.method.to_string(),
            path: clipped(auth::logged_path(key, head.uri.path(), head.uri.query())),
            headers: readable(&head.headers, |name, value| auth::logged_header(key, name, value)),
            authorized: false,
            status: None,
            request_bytes: 0,
            request_sha256: None,
            request_trailers: BTreeMap::new(),
            response_bytes: 0,
            outcome: Outcome::Open,
        }));
        requests.kept.push_back(Arc::clone(&record));
        if requests.kept.len() > LOG_LIMIT {
            requests.kept.pop_front();
        }
        Visit { record, request_lost: false }
    }

    pub(crate) fn snapshot(&self) -> Vec<SeenRequest> {
        let records: Vec<Record> = lock(&self.requests).kept.iter().cloned().collect();
        records.iter().map(|record| lock(record).clone()).collect()
    }

    pub(crate) fn clear(&self) {
        lock(&self.requests).kept.clear();
    }

    pub(crate) fn counters(&self) -> Counters {
        lock(&self.counters).clone()
    }

    pub(crate) fn count_status(&self, status: StatusCode) {
        *lock(&self.counters).by_status.entry(status.as_u16()).or_default() += 1;
    }

    pub(crate) fn count_tokens(&self, model: &str, input: u64, output: u64) {
        let mut counters = lock(&self.counters);
        counters.tokens.input += input;
        counters.tokens.output += output;
        if !counters.by_model.contains_key(model) {
            counters.by_model.insert(model.to_owned(), Tokens::default());
        }
        if let Some(tokens) = counters.by_model.get_mut(model) {
            tokens.input += input;
            tokens.output += output;
        }
    }
}

/// The guard of one record; it travels from the request to the end of the answer's body.
pub(crate) struct Visit {
    record: Record,
    request_lost: bool,
}

impl Visit {
    pub(crate) fn authorize(&self) {
        lock(&self.record).authorized = true;
    }

    pub(crate) fn answer(&self, status: StatusCode) {
        lock(&self.record).status = Some(status.as_u16());
    }

    pub(crate) fn sent(&self, bytes: usize) {
        lock(&self.record).response_bytes += bytes as u64;
    }

    /// The request body broke off: whatever is answered, the request stays `cut`.
    pub(crate) fn lose_request(&mut self) {
        self.request_lost = true;
    }

    /// The answer was handed over whole.
    pub(crate) fn complete(&self) {
        if !self.request_lost {
            lock(&self.record).outcome = Outcome::Complete;
        }
    }

    /// A meter for the request's body.
    pub(crate) fn meter(&self) -> BodyMeter {
        BodyMeter { record: Arc::clone(&self.record), hash: Sha256::new() }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut record = lock(&self.record);
        if record.outcome == Outcome::Open {
            record.outcome = Outcome::Cut;
        }
    }
}

/// Counts and hashes a request body as it is read.
pub(crate) struct BodyMeter {
    record: Record,
    hash: Sha256,
}

impl BodyMeter {
    pub(crate) fn data(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        lock(&self.record).request_bytes += bytes.len() as u64;
    }

    pub(crate) fn trailers(&self, trailers: &HeaderMap) {
        lock(&self.record).request_trailers = readable(trailers, |_, _| None);
    }

    pub(crate) fn end(&mut self) {
        let hash = std::mem::take(&mut self.hash).finalize();
        lock(&self.record).request_sha256 = Some(hex(&hash));
    }
}

fn readable(headers: &HeaderMap, shown: impl Fn(&str, &str) -> Option<String>) -> BTreeMap<String, String> {
    let mut out: BTreeMap<String, String> = BTreeMap::new();
    let mut room = HEADERS_LIMIT;
    for (name, value) in headers {
        let text = String::from_utf8_lossy(value.as_bytes());
        let shown = clipped(shown(name.as_str(), &text).unwrap_or_else(|| text.into_owned()));
        let Some(left) = room.checked_sub(shown.len()) else {
            break;
        };
        room = left;
        out.entry(name.as_str().to_owned())
            .and_modify(|line| {
                line.push_str(", ");
                line.push_str(&shown);
            })
            .or_insert(shown);
    }
    out
}

fn clipped(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(VALUE_LIMIT));
    text
}

/// A panic elsewhere does not make counts unreadable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
