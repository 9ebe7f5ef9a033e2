//! An event as a record of the journal, and back.
//!
//! A version byte, then fields in any order: tag (u8), length (LEB128), bytes. Text is UTF-8,
//! numbers are little-endian without their upper zero bytes, kinds are their names in the log. A
//! reader skips tags that it does not know, so that a journal written by a newer program can be
//! read after a step back; a tag never changes its meaning, and a new field takes a new tag.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aiproxy_core::UsageEvent;

const VERSION: u8 = 1;
/// Longer text is cut: so every record stays within the journal's bound.
const TEXT_BYTES: usize = 2048;
/// Channels that were passed over, at most.
const PASSED_OVER: usize = 24;

mod tag {
    pub(super) const REQUEST_ID: u8 = 1;
    pub(super) const STARTED: u8 = 2;
    pub(super) const USER: u8 = 3;
    pub(super) const KEY: u8 = 4;
    pub(super) const KEY_ID: u8 = 5;
    pub(super) const CHANNEL: u8 = 6;
    pub(super) const PROTOCOL: u8 = 7;
    pub(super) const METHOD: u8 = 8;
    pub(super) const ENDPOINT: u8 = 9;
    pub(super) const MODEL: u8 = 10;
    pub(super) const STATUS: u8 = 11;
    pub(super) const ERROR: u8 = 12;
    pub(super) const OUTCOME: u8 = 13;
    pub(super) const FIRST_BYTE: u8 = 14;
    pub(super) const TOTAL: u8 = 15;
    pub(super) const OWN: u8 = 16;
    pub(super) const BYTES_IN: u8 = 17;
    pub(super) const BYTES_OUT: u8 = 18;
    pub(super) const CALLER_IP: u8 = 19;
    /// Once for each channel; the value is two fields of its own: `CHANNEL` and `ERROR`.
    pub(super) const PASSED_OVER: u8 = 20;
}

/// A record, as read. Kinds stay names, since a newer program may know more of them. What a record
/// does not hold is empty or zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// As [`UsageEvent::request_id`].
    pub request_id: &'a str,
    /// As [`UsageEvent::started`].
    pub started: SystemTime,
    /// As [`UsageEvent::user`].
    pub user: Option<&'a str>,
    /// The key's visible beginning.
    pub key: Option<&'a str>,
    /// The beginning of the key's digest.
    pub key_id: Option<&'a str>,
    /// As [`UsageEvent::channel`].
    pub channel: Option<&'a str>,
    /// Name of [`UsageEvent::protocol`].
    pub protocol: &'a str,
    /// As [`UsageEvent::method`].
    pub method: &'a str,
    /// As [`UsageEvent::endpoint`].
    pub endpoint: &'a str,
    /// As [`UsageEvent::model`].
    pub model: Option<&'a str>,
    /// As [`UsageEvent::status`].
    pub status: u16,
    /// Code of [`UsageEvent::error`].
    pub error: Option<&'a str>,
    /// Name of [`UsageEvent::outcome`].
    pub outcome: &'a str,
    /// [`UsageEvent::first_byte`] in microseconds.
    pub first_byte_us: Option<u64>,
    /// [`UsageEvent::total`] in microseconds.
    pub total_us: u64,
    /// [`UsageEvent::own`] in microseconds.
    pub own_us: Option<u64>,
    /// As [`UsageEvent::bytes_in`].
    pub bytes_in: u64,
    /// As [`UsageEvent::bytes_out`].
    pub bytes_out: u64,
    /// As [`UsageEvent::caller_ip`].
    pub caller_ip: IpAddr,
    /// Channel and cause of each [`UsageEvent::passed_over`].
    pub passed_over: Vec<(&'a str, &'a str)>,
}

/// Appends the event's record.
pub fn encode(out: &mut Vec<u8>, event: &UsageEvent) {
    // A field that is added to the event does not compile until it has a tag.
    let UsageEvent {
        request_id,
        started,
        user,
        key,
        channel,
        protocol,
        method,
        endpoint,
        model,
        status,
        error,
        outcome,
        first_byte,
        total,
        own,
        bytes_in,
        bytes_out,
        caller_ip,
        passed_over,
    } = event;
    out.push(VERSION);
    text(out, tag::REQUEST_ID, request_id.as_str());
    let since = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    number(out, tag::STARTED, u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    optional(out, tag::USER, user.as_deref());
    optional(out, tag::KEY, key.as_deref().map(|key| &*key.prefix));
    optional(out, tag::KEY_ID, key.as_deref().map(|key| &*key.digest));
    optional(out, tag::CHANNEL, channel.as_deref());
    text(out, tag::PROTOCOL, protocol.as_str());
    text(out, tag::METHOD, method.as_str());
    text(out, tag::ENDPOINT, endpoint);
    optional(out, tag::MODEL, model.as_deref());
    number(out, tag::STATUS, u64::from(*status));
    optional(out, tag::ERROR, error.map(aiproxy_core::ErrorKind::code));
    text(out, tag::OUTCOME, outcome.as_str());
    duration(out, tag::FIRST_BYTE, *first_byte);
    duration(out, tag::TOTAL, Some(*total));
    duration(out, tag::OWN, *own);
    number(out, tag::BYTES_IN, *bytes_in);
    number(out, tag::BYTES_OUT, *bytes_out);
    match caller_ip {
        IpAddr::V4(ip) => field(out, tag::CALLER_IP, &ip.octets()),
        IpAddr::V6(ip) => field(out, tag::CALLER_IP, &ip.octets()),
    }
    for attempt in passed_over.iter().take(PASSED_OVER) {
        let mut inner = Vec::with_capacity(64);
        text(&mut inner, tag::CHANNEL, &attempt.channel);
        text(&mut inner, tag::ERROR, &attempt.why.to_string());
        field(out, tag::PASSED_OVER, &inner);
    }
}

/// Reads a record; none when it is of another version or malformed.
#[must_use]
pub fn decode(record: &[u8]) -> Option<Decoded<'_>> {
    let (&VERSION, mut rest) = record.split_first()? else { return None };
    let mut event = Decoded {
        request_id: "",
        started: SystemTime::UNIX_EPOCH,
        user: None,
        key: None,
        key_id: None,
        channel: None,
        protocol: "",
        method: "",
        endpoint: "",
        model: None,
        status: 0,
        error: None,
        outcome: "",
        first_byte_us: None,
        total_us: 0,
        own_us: None,
        bytes_in: 0,
        bytes_out: 0,
        caller_ip: IpAddr::from([0, 0, 0, 0]),
        passed_over: Vec::new(),
    };
    while !rest.is_empty() {
        let (tag, value) = take_field(&mut rest)?;
        match tag {
            tag::REQUEST_ID => event.request_id = as_text(value)?,
            tag::STARTED => {
                event.started =
                    SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(as_number(value)?))?;
            }
            tag::USER => event.user = Some(as_text(value)?),
            tag::KEY => event.key = Some(as_text(value)?),
            tag::KEY_ID => event.key_id = Some(as_text(value)?),
            tag::CHANNEL => event.channel = Some(as_text(value)?),
            tag::PROTOCOL => event.protocol = as_text(value)?,
            tag::METHOD => event.method = as_text(value)?,
            tag::ENDPOINT => event.endpoint = as_text(value)?,
            tag::MODEL => event.model = Some(as_text(value)?),
            tag::STATUS => event.status = u16::try_from(as_number(value)?).ok()?,
            tag::ERROR => event.error = Some(as_text(value)?),
            tag::OUTCOME => event.outcome = as_text(value)?,
            tag::FIRST_BYTE => event.first_byte_us = Some(as_number(value)?),
            tag::TOTAL => event.total_us = as_number(value)?,
            tag::OWN => event.own_us = Some(as_number(value)?),
            tag::BYTES_IN => event.bytes_in = as_number(value)?,
            tag::BYTES_OUT => event.bytes_out = as_number(value)?,
            tag::CALLER_IP => event.caller_ip = as_ip(value)?,
            tag::PASSED_OVER => event.passed_over.push(as_attempt(value)?),
            _ => {}
        }
    }
    Some(event)
}

fn field(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    if value.len() < 0x80 {
        out.extend_from_slice(&[tag, value.len() as u8]);
    } else {
        out.push(tag);
        let mut length = value.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
    }
    out.extend_from_slice(value);
}

fn text(out: &mut Vec<u8>, tag: u8, value: &str) {
    let end = if value.len() > TEXT_BYTES { value.floor_char_boundary(TEXT_BYTES) } else { value.len() };
    field(out, tag, &value.as_bytes()[..end]);
}

fn optional(out: &mut Vec<u8>, tag: u8, value: Option<&str>) {
    if let Some(value) = value {
        text(out, tag, value);
    }
}

fn number(out: &mut Vec<u8>, tag: u8, value: u64) {
    let used = 8 - value.leading_zeros() as usize / 8;
    // Copied at its full width, which is one store, and then cut.
    let mut whole = [tag, used as u8, 0, 0, 0, 0, 0, 0, 0, 0];
    whole[2..].copy_from_slice(&value.to_le_bytes());
    out.extend_from_slice(&whole);
    out.truncate(out.len() - 8 + used);
}

fn duration(out: &mut Vec<u8>, tag: u8, value: Option<Duration>) {
    if let Some(value) = value {
        number(out, tag, u64::try_from(value.as_micros()).unwrap_or(u64::MAX));
    }
}

fn take_field<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, mut after) = rest.split_first()?;
    let mut length = 0usize;
    for shift in [0, 7, 14] {
        let (&byte, behind) = after.split_first()?;
        after = behind;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let (value, behind) = after.split_at_checked(length)?;
            *rest = behind;
            return Some((tag, value));
        }
    }
    None
}

fn as_text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

fn as_number(value: &[u8]) -> Option<u64> {
    let mut bytes = [0u8; 8];
    bytes.get_mut(..value.len())?.copy_from_slice(value);
    Some(u64::from_le_bytes(bytes))
}

fn as_ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        _ => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
    }
}

fn as_attempt(mut rest: &[u8]) -> Option<(&str, &str)> {
    let (mut channel, mut why) = ("", "");
    while !rest.is_empty() {
        match take_field(&mut rest)? {
            (tag::CHANNEL, value) => channel = as_text(value)?,
            (tag::ERROR, value) => why = as_text(value)?,
            _ => {}
        }
    }
    Some((channel, why))
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
