//! An event as a record of the journal, and back.
//!
//! A version byte, then fields in any order: tag (u8), length (LEB128), bytes. Text is UTF-8,
//! numbers are little-endian without their upper zero bytes, kinds are their names in the log. A
//! reader skips tags that it does not know, so that a journal written by a newer program can be
//! read after a step back; a tag never changes its meaning, and a new field takes a new tag.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aiproxy_core::{CallFigures, ErrorClass, LegFigures, Outcome, SocketFigures, Tokens, Usage, UsageEvent};

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
    pub(super) const PATH: u8 = 21;
    pub(super) const MODEL_SERVED: u8 = 22;
    /// Numbers of [`Tokens`](aiproxy_core::Tokens) in their order, LEB128 each; zeros at the end
    /// are left out. The field is there wherever there is usage.
    pub(super) const TOKENS: u8 = 23;
    /// Microseconds of sound or video.
    pub(super) const SECONDS: u8 = 24;
    pub(super) const IMAGES: u8 = 25;
    pub(super) const CHARACTERS: u8 = 26;
    /// 1: reported by the platform; 2: estimated.
    pub(super) const SOURCE: u8 = 27;
    pub(super) const FINISH: u8 = 28;
    /// Millionths of the currency's unit.
    pub(super) const COST: u8 = 29;
    pub(super) const CURRENCY: u8 = 30;
    pub(super) const USER_AGENT: u8 = 31;
    pub(super) const ERROR_CLASS: u8 = 32;
    pub(super) const ATTEMPTS: u8 = 33;
    /// Of a WebSocket; the field is there wherever one was open.
    pub(super) const FRAMES_IN: u8 = 40;
    pub(super) const FRAMES_OUT: u8 = 41;
    pub(super) const CLOSE_CODE: u8 = 42;
    /// Of a session: which of its records.
    pub(super) const PART: u8 = 43;
    /// Of a WebRTC call: its figures in their order, LEB128 each; zeros at the end are left out.
    pub(super) const CALL: u8 = 44;
}

const REPORTED: u8 = 1;
const ESTIMATED: u8 = 2;
/// Millionths in a second.
const MICROS: f64 = 1e6;
/// The most of them that are kept, 35 years: below, a float gives back each one exactly.
const MOST_MICROS: u64 = 1 << 50;

/// A record, as read. Kinds stay names, since a newer program may know more of them. What a record
/// does not hold is empty or zero.
#[derive(Debug, Clone, PartialEq)]
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
    /// As [`UsageEvent::path`].
    pub path: Option<&'a str>,
    /// As [`UsageEvent::usage`].
    pub usage: Option<Used<'a>>,
    /// As [`UsageEvent::cost`]: millionths and currency.
    pub cost: Option<(i64, &'a str)>,
    /// As [`UsageEvent::user_agent`].
    pub user_agent: Option<&'a str>,
    /// Name of [`UsageEvent::error_class`].
    pub error_class: Option<&'a str>,
    /// As [`UsageEvent::attempts`].
    pub attempts: u64,
    /// As [`UsageEvent::socket`].
    pub socket: Option<SocketFigures>,
    /// As [`UsageEvent::call`], times in whole microseconds.
    pub call: Option<CallFigures>,
    /// As [`UsageEvent::part`].
    pub part: Option<u32>,
}

impl<'a> Decoded<'a> {
    /// The model asked for; where the request named none, the one served.
    #[must_use]
    pub fn any_model(&self) -> Option<&'a str> {
        self.model.or_else(|| self.usage.as_ref()?.model)
    }

    /// Whether a later record takes this one's place.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.outcome == Outcome::Open.as_str()
    }
}

/// What an answer used, as [`Usage`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Used<'a> {
    /// As [`Usage::tokens`].
    pub tokens: Tokens,
    /// As [`Usage::seconds`].
    pub seconds: Option<f64>,
    /// As [`Usage::images`].
    pub images: u64,
    /// As [`Usage::characters`].
    pub characters: u64,
    /// As [`Usage::model`].
    pub model: Option<&'a str>,
    /// As [`Usage::reported`].
    pub reported: bool,
    /// As [`Usage::estimated`].
    pub estimated: bool,
    /// Name of [`Usage::finish`].
    pub finish: Option<&'a str>,
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
        path,
        model,
        status,
        error,
        outcome,
        first_byte,
        total,
        own,
        bytes_in,
        bytes_out,
        usage,
        cost,
        caller_ip,
        user_agent,
        passed_over,
        socket,
        call,
        part,
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
    optional(out, tag::PATH, path.as_deref());
    if let Some(usage) = usage {
        encode_usage(out, usage);
    }
    if let Some(cost) = cost {
        number(out, tag::COST, cost.micros.cast_unsigned());
        text(out, tag::CURRENCY, &cost.currency);
    }
    optional(out, tag::USER_AGENT, user_agent.as_deref());
    optional(out, tag::ERROR_CLASS, event.error_class().map(aiproxy_core::ErrorClass::as_str));
    number(out, tag::ATTEMPTS, event.attempts() as u64);
    if let Some(SocketFigures { frames_in, frames_out, close_code }) = socket {
        number(out, tag::FRAMES_IN, *frames_in);
        number(out, tag::FRAMES_OUT, *frames_out);
        if let Some(code) = close_code {
            number(out, tag::CLOSE_CODE, u64::from(*code));
        }
    }
    if let Some(call) = call {
        encode_call(out, call);
    }
    if let Some(part) = part {
        number(out, tag::PART, u64::from(*part));
    }
}

/// From the last record of a session that was open when its process ended, the one that closes it: of
/// two fields with one tag the later one stands.
#[must_use]
pub fn aborted(record: &[u8]) -> Option<Vec<u8>> {
    let last = decode(record).filter(|last| last.outcome == Outcome::Open.as_str())?;
    let mut out = record.to_vec();
    text(&mut out, tag::OUTCOME, Outcome::Aborted.as_str());
    text(&mut out, tag::ERROR_CLASS, ErrorClass::Relay.as_str());
    number(&mut out, tag::PART, u64::from(last.part.unwrap_or(0)) + 1);
    if last.usage.is_some() {
        field(&mut out, tag::SOURCE, &[REPORTED | ESTIMATED]);
    }
    Some(out)
}

/// Numbers of a call: three of its own and seven of each leg.
const CALL_NUMBERS: usize = 3 + 2 * 7;

fn encode_call(out: &mut Vec<u8>, call: &CallFigures) {
    let CallFigures { setup, connected, caller, platform, dropped } = call;
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    // Zero is for none.
    let perhaps = |time: Option<Duration>| time.map_or(0, |time| micros(time).saturating_add(1));
    let leg = |leg: &LegFigures| {
        let LegFigures { packets, media_bytes, lost, jitter, rtt, messages, message_bytes } = *leg;
        [packets, media_bytes, lost, micros(jitter), perhaps(rtt), messages, message_bytes]
    };
    let mut all = [0; CALL_NUMBERS];
    all[..3].copy_from_slice(&[perhaps(*setup), micros(*connected), *dropped]);
    all[3..10].copy_from_slice(&leg(caller));
    all[10..].copy_from_slice(&leg(platform));
    let mut packed = [0; CALL_NUMBERS * 10];
    let mut end = 0;
    let used = all.iter().rposition(|number| *number > 0).map_or(0, |last| last + 1);
    for number in &all[..used] {
        end += leb128(*number, &mut packed[end..]);
    }
    field(out, tag::CALL, &packed[..end]);
}

fn as_call(mut value: &[u8]) -> Option<CallFigures> {
    let mut all = [0_u64; CALL_NUMBERS];
    for slot in &mut all {
        if value.is_empty() {
            break;
        }
        *slot = take_leb128(&mut value)?;
    }
    let perhaps = |number: u64| number.checked_sub(1).map(Duration::from_micros);
    let leg = |at: usize| LegFigures {
        packets: all[at],
        media_bytes: all[at + 1],
        lost: all[at + 2],
        jitter: Duration::from_micros(all[at + 3]),
        rtt: perhaps(all[at + 4]),
        messages: all[at + 5],
        message_bytes: all[at + 6],
    };
    Some(CallFigures {
        setup: perhaps(all[0]),
        connected: Duration::from_micros(all[1]),
        dropped: all[2],
        caller: leg(3),
        platform: leg(10),
    })
}

fn encode_usage(out: &mut Vec<u8>, usage: &Usage) {
    let Usage { tokens, seconds, images, characters, model, reported, estimated, finish } = usage;
    let mut packed = [0; 9 * 10];
    let mut end = 0;
    let all = tokens.counts();
    let used = all.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
    for count in &all[..used] {
        end += leb128(*count, &mut packed[end..]);
    }
    field(out, tag::TOKENS, &packed[..end]);
    if let Some(seconds) = seconds {
        number(out, tag::SECONDS, ((seconds * MICROS).round() as u64).min(MOST_MICROS));
    }
    for (tag, count) in [(tag::IMAGES, *images), (tag::CHARACTERS, *characters)] {
        if count > 0 {
            number(out, tag, count);
        }
    }
    optional(out, tag::MODEL_SERVED, model.as_deref());
    let source = u8::from(*reported) * REPORTED + u8::from(*estimated) * ESTIMATED;
    field(out, tag::SOURCE, &[source]);
    optional(out, tag::FINISH, finish.map(aiproxy_core::Finish::as_str));
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
        path: None,
        usage: None,
        cost: None,
        user_agent: None,
        error_class: None,
        attempts: 0,
        socket: None,
        call: None,
        part: None,
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
            tag::PATH => event.path = Some(as_text(value)?),
            tag::COST => event.cost.get_or_insert_default().0 = as_number(value)?.cast_signed(),
            tag::CURRENCY => event.cost.get_or_insert_default().1 = as_text(value)?,
            tag::USER_AGENT => event.user_agent = Some(as_text(value)?),
            tag::ERROR_CLASS => event.error_class = Some(as_text(value)?),
            tag::ATTEMPTS => event.attempts = as_number(value)?,
            tag::FRAMES_IN => event.socket.get_or_insert_default().frames_in = as_number(value)?,
            tag::FRAMES_OUT => event.socket.get_or_insert_default().frames_out = as_number(value)?,
            tag::CLOSE_CODE => {
                event.socket.get_or_insert_default().close_code =
                    Some(u16::try_from(as_number(value)?).ok()?);
            }
            tag::CALL => event.call = Some(as_call(value)?),
            tag::PART => event.part = Some(u32::try_from(as_number(value)?).ok()?),
            tag::TOKENS => event.usage.get_or_insert_default().tokens = as_tokens(value)?,
            tag::SECONDS => {
                let micros = as_number(value).filter(|micros| *micros <= MOST_MICROS)?;
                event.usage.get_or_insert_default().seconds = Some(micros as f64 / MICROS);
            }
            tag::IMAGES => event.usage.get_or_insert_default().images = as_number(value)?,
            tag::CHARACTERS => event.usage.get_or_insert_default().characters = as_number(value)?,
            tag::MODEL_SERVED => event.usage.get_or_insert_default().model = Some(as_text(value)?),
            tag::SOURCE => {
                let source = *value.first()?;
                let usage = event.usage.get_or_insert_default();
                (usage.reported, usage.estimated) = (source & REPORTED != 0, source & ESTIMATED != 0);
            }
            tag::FINISH => event.usage.get_or_insert_default().finish = Some(as_text(value)?),
            _ => {}
        }
    }
    Some(event)
}

fn field(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    if value.len() < 0x80 {
        out.extend_from_slice(&[tag, value.len() as u8]);
    } else {
        let mut length = [0; 10];
        let used = leb128(value.len() as u64, &mut length);
        out.push(tag);
        out.extend_from_slice(&length[..used]);
    }
    out.extend_from_slice(value);
}

/// Writes the number to the beginning of `out`, which has room for ten bytes; gives how many it took.
fn leb128(mut value: u64, out: &mut [u8]) -> usize {
    let mut used = 0;
    while value >= 0x80 {
        out[used] = value as u8 | 0x80;
        value >>= 7;
        used += 1;
    }
    out[used] = value as u8;
    used + 1
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

fn take_leb128(value: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0_u64, 0);
    loop {
        let (&byte, behind) = value.split_first()?;
        *value = behind;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
}

fn as_tokens(mut value: &[u8]) -> Option<Tokens> {
    let mut numbers = [0u64; 9];
    for number in &mut numbers {
        if value.is_empty() {
            break;
        }
        *number = take_leb128(&mut value)?;
    }
    // A newer program may count more kinds.
    Some(Tokens::of(numbers))
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
