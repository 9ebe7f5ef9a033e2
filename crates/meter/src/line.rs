//! One usage event as one line of JSON.

use aiproxy_core::UsageEvent;
use serde::Serialize;

use crate::codec::Decoded;

/// Field order and names of the access log; `docs/access-log.md` explains them.
#[derive(Serialize)]
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
    model: Option<&'a str>,
    status: u16,
    error: Option<&'a str>,
    outcome: &'a str,
    first_byte_us: Option<u64>,
    total_us: u64,
    bytes_in: u64,
    bytes_out: u64,
    ip: std::net::IpAddr,
    own_us: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passed_over: Vec<String>,
}

/// Appends the event and a line feed.
pub fn append(out: &mut Vec<u8>, event: &UsageEvent) {
    let key = event.key.as_deref();
    let line = Line {
        time: jiff::Timestamp::try_from(event.started).unwrap_or_default(),
        request_id: event.request_id.as_str(),
        user: event.user.as_deref(),
        key: key.map(|key| &*key.prefix),
        key_id: key.map(|key| &*key.digest),
        channel: event.channel.as_deref(),
        protocol: event.protocol.as_str(),
        method: event.method.as_str(),
        endpoint: &event.endpoint,
        model: event.model.as_deref(),
        status: event.status,
        error: event.error.map(aiproxy_core::ErrorKind::code),
        outcome: event.outcome.as_str(),
        first_byte_us: event.first_byte.map(micros),
        total_us: micros(event.total),
        bytes_in: event.bytes_in,
        bytes_out: event.bytes_out,
        ip: event.caller_ip,
        own_us: event.own.map(micros),
        passed_over: event
            .passed_over
            .iter()
            .map(|attempt| format!("{}: {}", attempt.channel, attempt.why))
            .collect(),
    };
    write(out, &line);
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
        model: event.model,
        status: event.status,
        error: event.error,
        outcome: event.outcome,
        first_byte_us: event.first_byte_us,
        total_us: event.total_us,
        bytes_in: event.bytes_in,
        bytes_out: event.bytes_out,
        ip: event.caller_ip,
        own_us: event.own_us,
        passed_over: event.passed_over.iter().map(|(channel, why)| format!("{channel}: {why}")).collect(),
    };
    write(out, &line);
}

fn write(out: &mut Vec<u8>, line: &Line<'_>) {
    let length = out.len();
    // Writing to memory cannot fail; should a value ever refuse, no half line stays behind.
    if serde_json::to_writer(&mut *out, line).is_err() {
        out.truncate(length);
        return;
    }
    out.push(b'\n');
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
