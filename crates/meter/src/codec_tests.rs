use aiproxy_core::{ErrorKind, PassedOver, Protocol, Why};

use super::*;
use crate::line;
use crate::testing::{event, used};

fn record_of(event: &UsageEvent) -> Vec<u8> {
    let mut record = Vec::new();
    encode(&mut record, event);
    record
}

/// Every field of the event is in what is read of its record.
fn check(event: &UsageEvent) {
    let record = record_of(event);
    let read = decode(&record).unwrap();
    let key = event.key.as_deref();
    assert_eq!(read.request_id, event.request_id.as_str());
    assert_eq!(read.started, event.started);
    assert_eq!((read.user, read.channel), (event.user.as_deref(), event.channel.as_deref()));
    assert_eq!((read.key, read.key_id), (key.map(|key| &*key.prefix), key.map(|key| &*key.digest)));
    assert_eq!((read.protocol, read.method), (event.protocol.as_str(), event.method.as_str()));
    assert_eq!((read.endpoint, read.path), (&*event.endpoint, event.path.as_deref()));
    assert_eq!((read.model, read.status), (event.model.as_deref(), event.status));
    assert_eq!((read.error, read.outcome), (event.error.map(ErrorKind::code), event.outcome.as_str()));
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap();
    assert_eq!((read.first_byte_us, read.total_us), (event.first_byte.map(micros), micros(event.total)));
    assert_eq!(
        (read.own_us, read.bytes_in, read.bytes_out),
        (event.own.map(micros), event.bytes_in, event.bytes_out)
    );
    assert_eq!((read.caller_ip, read.user_agent), (event.caller_ip, event.user_agent.as_deref()));
    assert_eq!(read.cost, event.cost.as_ref().map(|cost| (cost.micros, &*cost.currency)));
    assert_eq!(read.attempts, event.attempts() as u64);
    assert_eq!(read.error_class, event.error_class().map(aiproxy_core::ErrorClass::as_str));
    let passed_over: Vec<_> = event
        .passed_over
        .iter()
        .map(|attempt| (attempt.channel.to_string(), attempt.why.to_string()))
        .collect();
    let read_over: Vec<_> =
        read.passed_over.iter().map(|(channel, why)| ((*channel).to_owned(), (*why).to_owned())).collect();
    assert_eq!(read_over, passed_over);
    assert_eq!(read.socket, event.socket);
    let Some(usage) = &event.usage else { return assert_eq!(read.usage, None) };
    let used = read.usage.unwrap();
    assert_eq!((used.tokens, used.seconds), (usage.tokens, usage.seconds));
    assert_eq!(
        (used.images, used.characters, used.model),
        (usage.images, usage.characters, usage.model.as_deref())
    );
    assert_eq!((used.reported, used.estimated), (usage.reported, usage.estimated));
    assert_eq!(used.finish, usage.finish.map(aiproxy_core::Finish::as_str));
}

#[test]
fn what_is_written_is_read() {
    check(&event("/v1/文件\n\"x\""));
    let full = used(event("/v1/files/{id}"));
    check(&full);
    let mut other = event("");
    (other.user, other.key, other.channel, other.model, other.error) = (None, None, None, None, None);
    (other.first_byte, other.own) = (Some(Duration::from_secs(90_000)), Some(Duration::ZERO));
    (other.bytes_in, other.bytes_out, other.status) = (u64::MAX, 1 << 40, u16::MAX);
    other.caller_ip = "2001:db8::1".parse().unwrap();
    other.started = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_795_000_000_123_456_789);
    other.passed_over.clear();
    other.usage = Some(Usage::default());
    other.cost = Some(aiproxy_core::Cost { micros: -5, currency: "USD".into() });
    for kind in ErrorKind::ALL {
        other.error = Some(*kind);
        other.passed_over = vec![PassedOver { channel: "甲".into(), why: Why::Error(*kind) }; 3];
        check(&other);
    }
    assert!(record_of(&full).len() < 400, "{} bytes", record_of(&full).len());
}

#[test]
fn the_line_says_what_was_used() {
    let mut out = Vec::new();
    line::append(&mut out, &used(event("/v1/files/{id}")));
    let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(
        line["usage"],
        serde_json::json!({
            "input": 1_u64 << 40, "output": 300, "cached": 3, "cache_written": 4, "reasoning": 5,
            "audio_input": 6, "audio_output": 7, "image_input": 8, "image_output": 9,
            "seconds": 1.25, "images": 2, "characters": 77, "estimated": true, "finish": "tool_calls",
        })
    );
    assert_eq!((&line["cost"], &line["currency"]), (&1.25.into(), &"CNY".into()));
    assert_eq!((&line["path"], &line["endpoint"]), (&"/v1/files/file-7".into(), &"/v1/files/{id}".into()));
    assert_eq!(line["model_served"], "gpt-4o-2024-11-20");
    assert_eq!((&line["error_class"], &line["attempts"]), (&"permission".into(), &1.into()));
}

#[test]
fn fields_of_newer_programs_are_skipped() {
    let mut record = Vec::new();
    encode(&mut record, &event("/x"));
    let known = decode(&record).unwrap();
    let mut newer = record.clone();
    field(&mut newer, 200, &[7; 300]);
    text(&mut newer, 255, "");
    assert_eq!(decode(&newer), Some(known));
    assert_eq!(decode(&[]), None);
    record[0] = 2;
    assert_eq!(decode(&record), None);
}

#[test]
fn every_protocol_is_read_as_it_was_written() {
    for protocol in Protocol::ALL {
        check(&UsageEvent { protocol: *protocol, ..event("/v1/models") });
    }
}

#[test]
fn names_of_newer_programs_reach_the_line() {
    let mut record = vec![VERSION];
    text(&mut record, tag::PROTOCOL, "h4");
    text(&mut record, tag::OUTCOME, "abducted");
    let mut out = Vec::new();
    line::append_decoded(&mut out, &decode(&record).unwrap());
    let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&line["protocol"], &line["outcome"]), (&"h4".into(), &"abducted".into()));
}

#[test]
fn a_record_cut_or_changed_anywhere_is_no_panic() {
    let record = record_of(&used(event("/v1/x")));
    for at in 0..record.len() {
        let _ = decode(&record[..at]);
        for bit in 0..8 {
            let mut wrong = record.clone();
            wrong[at] ^= 1 << bit;
            if let Some(event) = decode(&wrong) {
                line::append_decoded(&mut Vec::new(), &event);
            }
        }
    }
}

#[test]
fn the_longest_record_fits_the_journal() {
    let long = "文".repeat(100_000);
    let mut event = event(&long);
    (event.user, event.channel, event.model) =
        (Some(long.as_str().into()), Some(long.as_str().into()), Some(long.as_str().into()));
    event = used(event);
    (event.user_agent, event.path) = (Some(long.as_str().into()), Some(long.as_str().into()));
    event.passed_over = vec![PassedOver { channel: long.as_str().into(), why: Why::Status(503) }; 100];
    let mut record = Vec::new();
    encode(&mut record, &event);
    assert!(record.len() <= 64 << 10, "{} bytes", record.len());
    assert_eq!(decode(&record).unwrap().passed_over.len(), PASSED_OVER);
}

#[test]
fn the_last_record_of_a_session_becomes_the_one_that_closes_it() {
    let mut bytes = Vec::new();
    let open =
        UsageEvent { outcome: aiproxy_core::Outcome::Open, error: None, ..used(event("/v1/realtime")) };
    encode(&mut bytes, &open);
    let aborted = aborted(&bytes).unwrap();
    let (before, after) = (decode(&bytes).unwrap(), decode(&aborted).unwrap());
    assert!(before.is_open() && !after.is_open());
    assert_eq!((after.outcome, after.error_class, after.part), ("aborted", Some("relay"), Some(4)));
    let usage = after.usage.unwrap();
    assert!(usage.reported && usage.estimated);
    assert_eq!(
        (usage.tokens, after.cost, after.socket),
        (before.usage.unwrap().tokens, before.cost, before.socket)
    );
    assert_eq!(after.passed_over, before.passed_over);
    assert_eq!(super::aborted(&aborted), None);
}
