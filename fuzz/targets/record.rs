//! Records: a usage event's, hostile and of our own, and those of a segment.

#![no_main]

// Private to the journal, and small: compiled in, so that a segment needs no folder here.
#[allow(dead_code, unreachable_pub, reason = "the journal uses the rest")]
#[path = "../../crates/journal/src/record.rs"]
mod record;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aiproxy_core::{
    CallFigures, Cost, ErrorKind, Finish, KeyTag, LegFigures, Outcome, PassedOver, Protocol, RequestId,
    SocketFigures, Tokens, Usage, UsageEvent, Why,
};
use aiproxy_fuzz::{records, segments};
use aiproxy_meter::codec::{self, Decoded};
use aiproxy_meter::line;
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// Records that the journal takes.
const LONGEST: usize = 64 << 10;
/// Longer text is cut.
const TEXT: usize = 2048;

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 3 {
        0 => hostile(rest),
        1 => {
            if let Ok(event) = event(&mut Unstructured::new(rest)) {
                ours(&event);
            }
        }
        _ => remains(rest),
    }
});

fn hostile(record: &[u8]) {
    let Some(event) = codec::decode(record) else { return };
    for text in texts(&event) {
        let (range, own) = (record.as_ptr_range(), text.as_bytes().as_ptr_range());
        assert!(text.is_empty() || range.start <= own.start && own.end <= range.end, "beyond the record");
    }
    let line = one_line(&event);
    assert_eq!((&line["user"], &line["status"]), (&event.user.into(), &event.status.into()));
    assert_eq!(line["bytes_in"], event.bytes_in);

    // Written again as the page has it, it says the same; so it does with what only newer programs know.
    let mut again = records::write(&event);
    assert_eq!(codec::decode(&again).as_ref(), Some(&event));
    again.extend_from_slice(&[200, 0x81, 0x00, 7]);
    assert_eq!(codec::decode(&again).as_ref(), Some(&event));
    // A record that ends early is less, or nothing.
    let _ = codec::decode(&record[..record.len() / 2]);
}

fn ours(event: &UsageEvent) {
    let mut record = Vec::new();
    codec::encode(&mut record, event);
    assert!(record.len() <= LONGEST, "{} bytes", record.len());
    let decoded = codec::decode(&record).expect("our own record");
    assert_eq!(decoded.request_id, event.request_id.as_str());
    assert_eq!((decoded.status, decoded.bytes_in), (event.status, event.bytes_in));
    assert_eq!((decoded.bytes_out, decoded.caller_ip), (event.bytes_out, event.caller_ip));
    assert_eq!(records::write(&decoded), record, "the page says how");
    let channels = event.passed_over.iter().map(|attempt| &*attempt.channel);
    let optional = [event.user.as_deref(), event.channel.as_deref(), event.model.as_deref()];
    let mut texts = optional.into_iter().flatten().chain([&*event.endpoint]).chain(channels);
    if texts.all(|text| text.len() <= TEXT) && event.passed_over.len() <= 24 {
        let mut direct = Vec::new();
        line::append(&mut direct, event);
        assert_eq!(serde_json::from_slice::<Value>(&direct).expect("JSON"), one_line(&decoded));
    }
}

/// A segment's bytes: records with right and wrong sums among noise.
fn remains(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let (Ok(seed), Ok(start), mut bytes) = (u.arbitrary(), u.int_in_range(0..=100), Vec::new()) else {
        return;
    };
    let _ = segments::write(&mut u, &mut bytes, seed);
    let expected = segments::read(&bytes, start, seed);
    let mut remains = record::Remains::new(bytes, start, seed);
    let (mut whole, mut torn) = (Vec::new(), 0);
    while let Some(read) = remains.read() {
        match read {
            Ok(payload) => whole.push(payload.to_vec()),
            Err(_) => torn += 1,
        }
    }
    assert!(remains.read().is_none(), "the end stays the end");
    assert_eq!((whole, torn), (expected.payloads, expected.torn));
}

fn one_line(event: &Decoded<'_>) -> Value {
    let mut out = Vec::new();
    line::append_decoded(&mut out, event);
    let end = out.iter().position(|byte| *byte == b'\n');
    assert_eq!(end, out.len().checked_sub(1), "one line: {}", out.escape_ascii());
    serde_json::from_slice(&out).expect("JSON")
}

fn texts<'a>(event: &Decoded<'a>) -> Vec<&'a str> {
    let kinds = [event.request_id, event.protocol, event.method, event.endpoint, event.outcome];
    let used = event.usage.as_ref();
    let optional = [
        event.user,
        event.key,
        event.key_id,
        event.channel,
        event.model,
        event.error,
        event.path,
        event.user_agent,
        event.error_class,
        event.cost.map(|(_, currency)| currency),
        used.and_then(|used| used.model),
        used.and_then(|used| used.finish),
    ];
    let passed = event.passed_over.iter().flat_map(|(channel, why)| [*channel, *why]);
    kinds.into_iter().chain(optional.into_iter().flatten()).chain(passed).collect()
}

fn event(u: &mut Unstructured<'_>) -> Result<UsageEvent> {
    let text = |u: &mut Unstructured<'_>| u.arbitrary::<Option<String>>();
    let method =
        [http::Method::GET, http::Method::POST, http::Method::from_bytes(b"PURGE").expect("a token")];
    let mut passed_over = Vec::new();
    while passed_over.len() < 40 && u.arbitrary()? {
        let why =
            if u.arbitrary()? { Why::Status(u.arbitrary()?) } else { Why::Error(*u.choose(ErrorKind::ALL)?) };
        passed_over.push(PassedOver { channel: u.arbitrary::<&str>()?.into(), why });
    }
    Ok(UsageEvent {
        request_id: RequestId::fresh(),
        started: SystemTime::UNIX_EPOCH + Duration::from_nanos(u.arbitrary()?),
        user: text(u)?.map(Into::into),
        key: u.arbitrary::<Option<String>>()?.map(|key| Arc::new(KeyTag::of(&key))),
        channel: text(u)?.map(Into::into),
        protocol: *u.choose(Protocol::ALL)?,
        method: u.choose(&method)?.clone(),
        endpoint: u.arbitrary::<String>()?.into(),
        path: text(u)?.map(Into::into),
        usage: if u.arbitrary()? { Some(usage(u)?) } else { None },
        cost: u
            .arbitrary::<Option<(i64, String)>>()?
            .map(|(micros, currency)| Cost { micros, currency: currency.into() }),
        user_agent: text(u)?.map(Into::into),
        model: text(u)?.map(Into::into),
        status: u.arbitrary()?,
        error: if u.arbitrary()? { Some(*u.choose(ErrorKind::ALL)?) } else { None },
        outcome: *u.choose(Outcome::ALL)?,
        first_byte: u.arbitrary::<Option<u64>>()?.map(Duration::from_micros),
        total: Duration::from_secs(u.arbitrary()?),
        own: u.arbitrary::<Option<u64>>()?.map(Duration::from_nanos),
        bytes_in: u.arbitrary()?,
        bytes_out: u.arbitrary()?,
        caller_ip: u.arbitrary::<IpAddr>()?,
        passed_over,
        socket: u
            .arbitrary::<Option<(u64, u64, Option<u16>)>>()?
            .map(|(frames_in, frames_out, close_code)| SocketFigures { frames_in, frames_out, close_code }),
        call: if u.arbitrary()? { Some(Box::new(call(u)?)) } else { None },
        part: u.arbitrary()?,
    })
}

fn call(u: &mut Unstructured<'_>) -> Result<CallFigures> {
    let leg = |u: &mut Unstructured<'_>| -> Result<LegFigures> {
        Ok(LegFigures {
            packets: u.arbitrary()?,
            media_bytes: u.arbitrary()?,
            lost: u.arbitrary()?,
            jitter: Duration::from_nanos(u.arbitrary()?),
            rtt: u.arbitrary::<Option<u64>>()?.map(Duration::from_micros),
            messages: u.arbitrary()?,
            message_bytes: u.arbitrary()?,
        })
    };
    Ok(CallFigures {
        setup: u.arbitrary::<Option<u64>>()?.map(Duration::from_nanos),
        connected: Duration::from_micros(u.arbitrary()?),
        dropped: u.arbitrary()?,
        caller: leg(u)?,
        platform: leg(u)?,
    })
}

fn usage(u: &mut Unstructured<'_>) -> Result<Usage> {
    let finish =
        [Finish::Stop, Finish::Length, Finish::ToolCalls, Finish::Filtered, Finish::Error, Finish::Other];
    Ok(Usage {
        tokens: Tokens::of(u.arbitrary()?),
        seconds: u.arbitrary::<Option<u32>>()?.map(|millis| f64::from(millis) / 1000.0),
        images: u.arbitrary()?,
        characters: u.arbitrary()?,
        model: u.arbitrary()?,
        reported: u.arbitrary()?,
        estimated: u.arbitrary()?,
        finish: if u.arbitrary()? { Some(*u.choose(&finish)?) } else { None },
    })
}
