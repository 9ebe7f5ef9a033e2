use aiproxy_core::{ErrorKind, PassedOver, Why};

use super::*;
use crate::line;
use crate::testing::event;

/// The record of an event, and its line through the journal and without.
fn both_ways(event: &UsageEvent) -> (Vec<u8>, String, String) {
    let (mut record, mut through, mut direct) = (Vec::new(), Vec::new(), Vec::new());
    encode(&mut record, event);
    line::append_decoded(&mut through, &decode(&record).unwrap());
    line::append(&mut direct, event);
    (record, String::from_utf8(through).unwrap(), String::from_utf8(direct).unwrap())
}

#[test]
fn the_line_is_the_same_through_the_journal_and_without() {
    let full = event("/v1/文件\n\"x\"");
    let mut other = event("");
    (other.user, other.key, other.channel, other.model, other.error) = (None, None, None, None, None);
    (other.first_byte, other.own) = (Some(Duration::from_secs(90_000)), Some(Duration::ZERO));
    (other.bytes_in, other.bytes_out, other.status) = (u64::MAX, 1 << 40, u16::MAX);
    other.caller_ip = "2001:db8::1".parse().unwrap();
    other.started = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_795_000_000_123_456_789);
    other.passed_over.clear();
    for kind in ErrorKind::ALL {
        other.error = Some(*kind);
        other.passed_over = vec![PassedOver { channel: "甲".into(), why: Why::Error(*kind) }; 3];
        let (_, through, direct) = both_ways(&other);
        assert_eq!(through, direct);
    }
    let (record, through, direct) = both_ways(&full);
    assert_eq!(through, direct);
    assert!(record.len() < 200, "{} bytes", record.len());
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
    let mut record = Vec::new();
    encode(&mut record, &event("/v1/x"));
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
    event.passed_over = vec![PassedOver { channel: long.as_str().into(), why: Why::Status(503) }; 100];
    let mut record = Vec::new();
    encode(&mut record, &event);
    assert!(record.len() <= 64 << 10, "{} bytes", record.len());
    assert_eq!(decode(&record).unwrap().passed_over.len(), PASSED_OVER);
}
