//! One usage event as one line of JSON.

use std::time::Duration;

use aiproxy_core::{CallFigures, LegFigures, Tokens, UsageEvent};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::codec::{self, Decoded, Used};

/// Field order and names of the access log; `docs/access-log.md` explains them.
#[derive(serde::Serialize)]
struct Line<'a> {
    time: jiff::Timestamp,
    request_id: &'a str,
    user: Option<&'a str>,
    key: Option<&'a str>,
    key_id: Option<&'a str>,
    channel: Option<&'a str>,
    protocol: &'a str,
    method: &'a str,
    endpoint: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_served: Option<&'a str>,
    status: u16,
    error: Option<&'a str>,
    error_class: Option<&'a str>,
    outcome: &'a str,
    first_byte_us: Option<u64>,
    total_us: u64,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Counts<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
    ip: std::net::IpAddr,
    user_agent: Option<&'a str>,
    own_us: Option<u64>,
    attempts: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passed_over: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frames_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frames_out: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    close_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<Call>,
}

/// Figures of a call.
#[derive(serde::Serialize)]
struct Call {
    setup_us: Option<u64>,
    connected_us: u64,
    dropped: u64,
    caller: Leg,
    platform: Leg,
}

/// Figures of one leg of a call.
#[derive(serde::Serialize)]
struct Leg {
    packets: u64,
    bytes: u64,
    lost: u64,
    jitter_us: u64,
    rtt_us: Option<u64>,
    messages: u64,
    message_bytes: u64,
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl From<CallFigures> for Call {
    fn from(call: CallFigures) -> Self {
        let CallFigures { setup, connected, caller, platform, dropped } = call;
        let (caller, platform) = (Leg::from(caller), Leg::from(platform));
        Self { setup_us: setup.map(micros), connected_us: micros(connected), dropped, caller, platform }
    }
}

impl From<LegFigures> for Leg {
    fn from(leg: LegFigures) -> Self {
        let LegFigures { packets, media_bytes, lost, jitter, rtt, messages, message_bytes } = leg;
        let (jitter_us, rtt_us) = (micros(jitter), rtt.map(micros));
        Self { packets, bytes: media_bytes, lost, jitter_us, rtt_us, messages, message_bytes }
    }
}

/// What an answer used; parts that are zero are left out, but for input and output.
struct Counts<'a>(&'a Used<'a>);

impl Serialize for Counts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let used = self.0;
        let mut map = serializer.serialize_map(None)?;
        for (index, (kind, count)) in Tokens::KINDS.iter().zip(used.tokens.counts()).enumerate() {
            if index < ALWAYS || count > 0 {
                map.serialize_entry(kind, &count)?;
            }
        }
        if let Some(seconds) = used.seconds {
            map.serialize_entry("seconds", &seconds)?;
        }
        for (name, count) in [("images", used.images), ("characters", used.characters)] {
            if count > 0 {
                map.serialize_entry(name, &count)?;
            }
        }
        map.serialize_entry("estimated", &used.estimated)?;
        if let Some(finish) = used.finish {
            map.serialize_entry("finish", finish)?;
        }
        map.end()
    }
}

/// Kinds of tokens that are there even where they are zero: input and output.
const ALWAYS: usize = 2;

/// Appends the event and a line feed.
pub fn append(out: &mut Vec<u8>, event: &UsageEvent) {
    // One way to write a line: what the journal would hold is what is written.
    let mut record = Vec::with_capacity(512);
    codec::encode(&mut record, event);
    if let Some(event) = codec::decode(&record) {
        append_decoded(out, &event);
    }
}

/// Appends an event that was read from the journal, and a line feed.
pub fn append_decoded(out: &mut Vec<u8>, event: &Decoded<'_>) {
    let line = Line {
        time: jiff::Timestamp::try_from(event.started).unwrap_or_default(),
        request_id: event.request_id,
        user: event.user,
        key: event.key,
        key_id: event.key_id,
        channel: event.channel,
        protocol: event.protocol,
        method: event.method,
        endpoint: event.endpoint,
        path: event.path,
        model: event.model,
        model_served: event.usage.as_ref().and_then(|used| used.model),
        status: event.status,
        error: event.error,
        error_class: event.error_class,
        outcome: event.outcome,
        first_byte_us: event.first_byte_us,
        total_us: event.total_us,
        bytes_in: event.bytes_in,
        bytes_out: event.bytes_out,
        usage: event.usage.as_ref().map(Counts),
        cost: event.cost.map(|(micros, _)| micros as f64 / 1e6),
        currency: event.cost.map(|(_, currency)| currency),
        ip: event.caller_ip,
        user_agent: event.user_agent,
        own_us: event.own_us,
        attempts: event.attempts,
        passed_over: event.passed_over.iter().map(|(channel, why)| format!("{channel}: {why}")).collect(),
        frames_in: event.socket.map(|socket| socket.frames_in),
        frames_out: event.socket.map(|socket| socket.frames_out),
        close_code: event.socket.and_then(|socket| socket.close_code),
        call: event.call.map(Call::from),
    };
    let length = out.len();
    // Writing to memory cannot fail; should a value ever refuse, no half line stays behind.
    if serde_json::to_writer(&mut *out, &line).is_err() {
        out.truncate(length);
        return;
    }
    out.push(b'\n');
}
