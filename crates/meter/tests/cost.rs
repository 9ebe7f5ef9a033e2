//! What a record costs the thread that makes it; prints, asserts nothing.
//! `cargo test --release -p aiproxy-meter --test cost -- --ignored --nocapture`

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aiproxy_core::ports::UsageSink;
use aiproxy_core::{KeyTag, Outcome, UsageEvent};
use aiproxy_journal::{Journal, Options};
use aiproxy_meter::{AccessLog, JournalSink, Target};

const RECORDS: u32 = 200_000;

fn event() -> UsageEvent {
    UsageEvent {
        user: Some("user1".into()),
        key: Some(Arc::new(KeyTag::of("pk_0123456789_0123456789_0123456789"))),
        channel: Some("openai".into()),
        endpoint: "/v1/chat/completions".into(),
        model: Some("gpt-4o-mini".into()),
        status: 200,
        outcome: Outcome::Complete,
        first_byte: Some(Duration::from_millis(312)),
        total: Duration::from_millis(1500),
        own: Some(Duration::from_micros(80)),
        bytes_in: 1200,
        bytes_out: 34_000,
        ..UsageEvent::begin(http::Method::POST, IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

fn print(what: &str, run: impl Fn()) {
    run();
    let rounds = (0..5).map(|_| {
        let began = Instant::now();
        for _ in 0..RECORDS {
            run();
        }
        began.elapsed().as_nanos() / u128::from(RECORDS)
    });
    let mut nanos: Vec<_> = rounds.collect();
    nanos.sort_unstable();
    println!("{what}: {} ns a record (median of 5; {nanos:?})", nanos[2]);
}

#[test]
#[ignore = "a measurement"]
fn cost() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { spares: 64, max_bytes: 4 << 30, ..Options::new(folder.path().join("journal")) };
    let journal = Arc::new(Journal::open(options).unwrap());
    let event = event();
    let writer = std::cell::RefCell::new(journal.writer());
    print("append of 150 bytes", || {
        let _ = writer.borrow_mut().append(&[7; 150]);
    });
    let scratch = std::cell::RefCell::new(Vec::new());
    print("codec::encode", || {
        scratch.borrow_mut().clear();
        aiproxy_meter::codec::encode(&mut scratch.borrow_mut(), std::hint::black_box(&event));
    });
    let sink = JournalSink::new(Arc::clone(&journal));
    print("JournalSink::observe", || sink.observe(&event));
    println!("{:?}", journal.counters());
    let log = AccessLog::open(&Target::File(folder.path().join("access.log"))).unwrap();
    print("AccessLog::record, as before (with a clone)", || log.record(event.clone()));
    println!("lines dropped: {}", log.dropped());
    print("the clone alone", || drop(std::hint::black_box(event.clone())));
}
