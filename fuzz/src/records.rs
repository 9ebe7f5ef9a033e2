//! A usage event's record, written as the codec describes it: a version, then tag, length, bytes.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aiproxy_core::Tokens;
use aiproxy_meter::codec::{Decoded, Used};

/// The record of an event that was read from one.
#[must_use]
pub fn write(event: &Decoded<'_>) -> Vec<u8> {
    let since = event.started.duration_since(SystemTime::UNIX_EPOCH).expect("records begin in 1970");
    let started = u64::try_from(since.as_nanos()).expect("64 bits of nanoseconds");
    let ip = match event.caller_ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let number = |number: u64| {
        let bytes = number.to_le_bytes();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Some(bytes[..used].to_vec())
    };
    let fields = [
        (1, text(event.request_id)),
        (2, number(started)),
        (3, event.user.and_then(text)),
        (4, event.key.and_then(text)),
        (5, event.key_id.and_then(text)),
        (6, event.channel.and_then(text)),
        (7, text(event.protocol)),
        (8, text(event.method)),
        (9, text(event.endpoint)),
        (10, event.model.and_then(text)),
        (11, number(event.status.into())),
        (12, event.error.and_then(text)),
        (13, text(event.outcome)),
        (14, event.first_byte_us.and_then(number)),
        (15, number(event.total_us)),
        (16, event.own_us.and_then(number)),
        (17, number(event.bytes_in)),
        (18, number(event.bytes_out)),
        (19, Some(ip)),
    ];
    let mut out = vec![1];
    for (tag, value) in fields {
        if let Some(value) = value {
            field(&mut out, tag, &value);
        }
    }
    for (channel, why) in &event.passed_over {
        let mut inner = Vec::new();
        field(&mut inner, 6, channel.as_bytes());
        field(&mut inner, 12, why.as_bytes());
        field(&mut out, 20, &inner);
    }
    let used = event.usage.as_ref();
    let cost = event.cost;
    let source = used.map(|used| vec![u8::from(used.reported) | u8::from(used.estimated) << 1]);
    let micros = used.and_then(|used| used.seconds).map(|seconds| (seconds * 1e6).round() as u64);
    let some = |count: u64| Some(count).filter(|count| *count > 0);
    let fields = [
        (21, event.path.and_then(text)),
        (23, used.map(tokens)),
        (24, micros.and_then(number)),
        (25, used.and_then(|used| some(used.images)).and_then(number)),
        (26, used.and_then(|used| some(used.characters)).and_then(number)),
        (22, used.and_then(|used| used.model).and_then(text)),
        (27, source),
        (28, used.and_then(|used| used.finish).and_then(text)),
        (29, cost.and_then(|(micros, _)| number(micros.cast_unsigned()))),
        (30, cost.and_then(|(_, currency)| text(currency))),
        (31, event.user_agent.and_then(text)),
        (32, event.error_class.and_then(text)),
        (33, number(event.attempts)),
        // A zero is said as well: that there is a socket.
        (40, event.socket.map(|socket| number(socket.frames_in).unwrap_or_default())),
        (41, event.socket.and_then(|socket| number(socket.frames_out))),
        (
            42,
            event.socket.and_then(|socket| {
                number(u64::from(socket.close_code?)).or_else(|| Some(Default::default()))
            }),
        ),
        (44, event.call.as_ref().map(call)),
        // Its zero is said as well.
        (43, event.part.map(|part| number(part.into()).unwrap_or_default())),
    ];
    for (tag, value) in fields {
        if let Some(value) = value {
            field(&mut out, tag, &value);
        }
    }
    out
}

/// Nine numbers of seven bits a byte, without the zeros at the end.
/// Figures of a call in their order, as [`tokens`].
fn call(call: &aiproxy_core::CallFigures) -> Vec<u8> {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let perhaps = |time: Option<Duration>| time.map_or(0, |time| micros(time).saturating_add(1));
    let mut all = vec![perhaps(call.setup), micros(call.connected), call.dropped];
    for leg in [&call.caller, &call.platform] {
        let (jitter, rtt) = (micros(leg.jitter), perhaps(leg.rtt));
        all.extend([leg.packets, leg.media_bytes, leg.lost, jitter, rtt, leg.messages, leg.message_bytes]);
    }
    packed(&all)
}

fn tokens(used: &Used<'_>) -> Vec<u8> {
    let Tokens {
        input,
        output,
        cached,
        cache_written,
        reasoning,
        audio_input,
        audio_output,
        image_input,
        image_output,
    } = used.tokens;
    packed(&[
        input,
        output,
        cached,
        cache_written,
        reasoning,
        audio_input,
        audio_output,
        image_input,
        image_output,
    ])
}

fn packed(all: &[u64]) -> Vec<u8> {
    let mut all = all.to_vec();
    while all.last() == Some(&0) {
        all.pop();
    }
    let mut out = Vec::new();
    for mut count in all {
        while count > 0x7f {
            out.push((count & 0x7f) as u8 | 0x80);
            count >>= 7;
        }
        out.push(count as u8);
    }
    out
}

fn field(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    let mut length = value.len();
    while length > 0x7f {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(value);
}
