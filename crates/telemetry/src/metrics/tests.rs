use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aiproxy_core::usage::PassedOver;
use aiproxy_core::{ErrorKind, Protocol, Tokens, Usage, Why};

use super::*;

fn event(channel: Option<&str>) -> UsageEvent {
    UsageEvent {
        user: Some("张三".into()),
        channel: channel.map(Into::into),
        endpoint: "/v1/chat/completions".into(),
        model: Some("gpt-4o".into()),
        status: 200,
        outcome: Outcome::Complete,
        first_byte: Some(Duration::from_millis(300)),
        total: Duration::from_secs(2),
        own: Some(Duration::from_micros(60)),
        bytes_in: 10,
        bytes_out: 200,
        ..UsageEvent::begin(http::Method::POST, IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

fn channel(id: impl Into<Arc<str>>) -> ChannelMirror {
    ChannelMirror { id: id.into(), breaker: Breaker::Closed, rejected: false, unhealthy: false }
}

fn of(ids: &[&str]) -> Mirror {
    Mirror { channels: ids.iter().map(|id| channel(*id)).collect(), ..Mirror::default() }
}

/// The value of one sample, by its name and labels as they stand on the page.
fn value(metrics: &Metrics, sample: &str) -> Option<f64> {
    let page = metrics.page().unwrap();
    let mut found = page.lines().filter_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    let value = found.next().map(|value| value.parse().unwrap());
    assert_eq!(found.next(), None, "{sample} twice");
    value
}

#[test]
fn an_event_is_counted_in_all_its_aspects() {
    let metrics = Metrics::new(|| of(&["openai", "aliyun"]));
    let why = [Why::Status(429), Why::Error(ErrorKind::UpstreamTimeout)];
    let passed_over = why.map(|why| PassedOver { channel: "aliyun".into(), why }).to_vec();
    metrics.record(UsageEvent { passed_over, ..event(Some("openai")) });
    metrics.record(event(Some("openai")));
    let refused = UsageEvent {
        status: 403,
        error: Some(ErrorKind::ModelNotAllowed),
        outcome: Outcome::Refused,
        first_byte: None,
        own: None,
        ..event(None)
    };
    metrics.record(refused);

    let is = |sample: &str, expected: f64| assert_eq!(value(&metrics, sample), Some(expected), "{sample}");
    let requests = "aiproxy_requests_total{channel=";
    is(&format!(r#"{requests}"openai",protocol="http1",outcome="complete",status_class="2xx"}}"#), 2.0);
    is(&format!(r#"{requests}"none",protocol="http1",outcome="refused",status_class="4xx"}}"#), 1.0);
    is(r#"aiproxy_refusals_total{code="model_not_allowed"}"#, 1.0);
    is(r#"aiproxy_refusals_total{code="internal"}"#, 0.0);
    is(r#"aiproxy_upstream_attempts_total{channel="openai",result="answered"}"#, 2.0);
    is(r#"aiproxy_upstream_attempts_total{channel="aliyun",result="busy"}"#, 1.0);
    is(r#"aiproxy_upstream_attempts_total{channel="aliyun",result="timeout"}"#, 1.0);
    is(r#"aiproxy_bytes_total{direction="in"}"#, 30.0);
    is(r#"aiproxy_bytes_total{direction="out"}"#, 600.0);
    is(r#"aiproxy_request_duration_seconds_sum{channel="openai"}"#, 4.0);
    is(r#"aiproxy_request_duration_seconds_bucket{le="1.0",channel="openai"}"#, 0.0);
    is(r#"aiproxy_request_duration_seconds_bucket{le="2.5",channel="openai"}"#, 2.0);
    is(r#"aiproxy_first_byte_seconds_count{channel="openai"}"#, 2.0);
    is(r#"aiproxy_first_byte_seconds_count{channel="none"}"#, 0.0);
    is("aiproxy_added_latency_seconds_count{}", 2.0);
}

#[test]
fn every_protocol_is_counted_by_its_name() {
    let metrics = Metrics::new(|| of(&["openai"]));
    for protocol in Protocol::ALL {
        metrics.record(UsageEvent { protocol: *protocol, ..event(Some("openai")) });
    }
    for name in ["http1", "http2", "http3", "websocket", "webrtc"] {
        let sample = format!(
            r#"aiproxy_requests_total{{channel="openai",protocol="{name}",outcome="complete",status_class="2xx"}}"#
        );
        assert_eq!(value(&metrics, &sample), Some(1.0), "{name}");
    }
}

#[test]
fn users_and_keys_are_no_labels() {
    let metrics = Metrics::new(|| of(&["openai"]));
    metrics.record(event(Some("openai")));
    let page = metrics.page().unwrap();
    assert!(!page.contains("张三") && !page.contains("gpt-4o") && !page.contains("/v1/"));
}

#[test]
fn how_the_last_channel_was_tried_is_told_from_the_event() {
    let tried = |change: &dyn Fn(&mut UsageEvent)| {
        let mut event = event(Some("a"));
        change(&mut event);
        Tried::last(&event).map(Tried::as_str)
    };
    let refused = |event: &mut UsageEvent, kind: ErrorKind| {
        event.outcome = Outcome::Refused;
        event.error = Some(kind);
        event.first_byte = None;
    };
    assert_eq!(tried(&|_| ()), Some("answered"));
    assert_eq!(tried(&|event| event.status = 404), Some("answered"));
    assert_eq!(tried(&|event| event.status = 429), Some("busy"));
    assert_eq!(tried(&|event| event.status = 500), Some("server_error"));
    assert_eq!(tried(&|event| refused(event, ErrorKind::UpstreamUnreachable)), Some("unreachable"));
    assert_eq!(tried(&|event| refused(event, ErrorKind::ChannelKeyRejected)), Some("rejected"));
    assert_eq!(tried(&|event| refused(event, ErrorKind::BodyTooLarge)), Some("abandoned"));
    assert_eq!(tried(&|event| event.channel = None), None);
    let never_asked = |event: &mut UsageEvent| {
        refused(event, ErrorKind::ChannelUnavailable);
        event.own = None;
    };
    assert_eq!(tried(&never_asked), None);
}

#[test]
fn labels_stay_bounded_with_ten_thousand_channels() {
    let configured =
        || Mirror { channels: (0..10_000).map(|n| channel(format!("c{n}"))).collect(), ..Mirror::default() };
    for metrics in [Metrics::new(|| of(&["openai"])), Metrics::new(configured)] {
        for n in 0..10_000 {
            metrics.record(event(Some(&format!("c{n}"))));
        }
        let page = metrics.page().unwrap();
        for family in
            ["aiproxy_requests_total{", "aiproxy_first_byte_seconds_count{", "aiproxy_channel_rejected{"]
        {
            let series = page.lines().filter(|line| line.starts_with(family)).count();
            assert!(series <= MAX_CHANNELS + 2, "{series} of {family}");
        }
        let counted: f64 = page
            .lines()
            .filter(|line| line.starts_with("aiproxy_requests_total{"))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
            .sum();
        assert_eq!(counted, 10_000.0);
    }
}

#[test]
fn channels_come_and_go_with_the_configuration() {
    static RELOADS: AtomicUsize = AtomicUsize::new(0);
    let configured = || match RELOADS.load(Ordering::SeqCst) {
        0 => of(&["a", "b"]),
        _ => of(&["b", "c"]),
    };
    let metrics = Metrics::new(configured);
    let count = |id: &str| value(&metrics, &format!(r#"aiproxy_first_byte_seconds_count{{channel="{id}"}}"#));
    metrics.record(event(Some("a")));
    metrics.record(event(Some("b")));
    assert_eq!((count("a"), count("b"), count("c")), (Some(1.0), Some(1.0), None));
    RELOADS.store(1, Ordering::SeqCst);
    metrics.refresh();
    metrics.record(event(Some("a")));
    metrics.record(event(Some("b")));
    metrics.record(event(Some("c")));
    assert_eq!((count("a"), count("b"), count("c")), (None, Some(2.0), Some(1.0)));
    assert_eq!(count("other"), Some(1.0));
}

#[test]
fn a_channel_may_be_called_other_or_none() {
    let metrics = Metrics::new(|| of(&[OTHER, NONE]));
    metrics.record(event(Some(OTHER)));
    metrics.record(event(Some("gone")));
    metrics.record(event(Some(NONE)));
    metrics.record(event(None));
    for id in [OTHER, NONE] {
        let sample = format!(r#"aiproxy_first_byte_seconds_count{{channel="{id}"}}"#);
        assert_eq!(value(&metrics, &sample), Some(2.0));
    }
}

#[test]
fn what_others_keep_is_read_at_the_scrape() {
    let mut open = channel("a");
    open.breaker = Breaker::Open;
    open.rejected = true;
    let metrics = Metrics::new(move || Mirror {
        connections: 7,
        live_requests: 3,
        calls: Calls { open: 7, setups: 2, relayed: 5, addresses: 6, unknown_packets: 8, dropped_packets: 9 },
        reloads_applied: 2,
        reloads_refused: 1,
        records: Records {
            lines_dropped: 9,
            journal_dropped: 4,
            journal_lag_bytes: 77,
            ..Records::default()
        },
        turned_away: vec![("flood", 3)],
        tls_loaded: 4,
        tls_refused: 5,
        certificates: vec![CertificateMirror {
            name: "a.test".into(),
            fingerprint: "00ff".into(),
            expires: 1_800_000_000,
        }],
        channels: vec![open.clone(), channel("b")],
    });
    let is = |sample: &str, expected: f64| assert_eq!(value(&metrics, sample), Some(expected), "{sample}");
    is("aiproxy_connections{}", 7.0);
    is("aiproxy_live_requests{}", 3.0);
    is("aiproxy_calls{}", 7.0);
    is("aiproxy_call_setups{}", 2.0);
    is("aiproxy_calls_relayed{}", 5.0);
    is("aiproxy_media_addresses{}", 6.0);
    is("aiproxy_media_dropped_total{reason=\"unknown\"}", 8.0);
    is("aiproxy_media_dropped_total{reason=\"queue_full\"}", 9.0);
    is(r#"aiproxy_breaker_state{channel="a",state="open"}"#, 1.0);
    is(r#"aiproxy_breaker_state{channel="a",state="closed"}"#, 0.0);
    is(r#"aiproxy_breaker_state{channel="b",state="closed"}"#, 1.0);
    is(r#"aiproxy_channel_rejected{channel="a"}"#, 1.0);
    is(r#"aiproxy_channel_unhealthy{channel="a"}"#, 0.0);
    is(r#"aiproxy_reloads_total{result="applied"}"#, 2.0);
    is(r#"aiproxy_reloads_total{result="refused"}"#, 1.0);
    is("aiproxy_access_log_dropped_total{}", 9.0);
    is("aiproxy_journal_dropped_total{}", 4.0);
    is("aiproxy_journal_lag_bytes{}", 77.0);
    is(r#"aiproxy_connections_turned_away_total{reason="flood"}"#, 3.0);
    is(r#"aiproxy_tls_loads_total{result="applied"}"#, 4.0);
    is(r#"aiproxy_tls_loads_total{result="refused"}"#, 5.0);
    is(
        r#"aiproxy_tls_certificate_expiry_timestamp_seconds{name="a.test",fingerprint="00ff"}"#,
        1_800_000_000.0,
    );
}

#[test]
fn no_event_is_lost_between_threads_and_reloads() {
    let metrics = Metrics::new(|| of(&["a"]));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|_| metrics.observe(&event(Some("a")))));
        }
        scope.spawn(|| (0..100).for_each(|_| metrics.refresh()));
    });
    assert_eq!(value(&metrics, r#"aiproxy_request_duration_seconds_count{channel="a"}"#), Some(4000.0));
}

/// Names in the order of the page, as Prometheus will know them.
fn names(page: &str) -> Vec<(String, String)> {
    page.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|rest| {
            let (name, kind) = rest.split_once(' ').unwrap();
            let suffix = if kind == "counter" { "_total" } else { "" };
            (format!("{name}{suffix}"), kind.to_owned())
        })
        .collect()
}

#[test]
fn the_documentation_lists_the_metrics_of_the_code() {
    let page = Metrics::new(Mirror::default).page().unwrap();
    let table = include_str!("../../../../docs/metrics.md");
    let documented: Vec<_> = table
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().trim_matches('`'));
            Some((cells.next()?.to_owned(), cells.next()?.to_owned()))
        })
        .collect();
    assert_eq!(documented, names(&page));
    for code in [Tried::ALL.map(Tried::as_str).as_slice(), &Breaker::ALL.map(Breaker::as_str), &[NONE, OTHER]]
    {
        assert!(code.iter().all(|value| table.contains(&format!("`{value}`"))), "{code:?}");
    }
}

/// `cargo nextest run -p aiproxy-telemetry --release --run-ignored all what_an_event_costs --no-capture`
#[test]
#[ignore = "a measurement"]
fn what_an_event_costs() {
    let metrics = Metrics::new(|| of(&["a"]));
    let event = event(Some("a"));
    let began = Instant::now();
    for _ in 0..1_000_000 {
        metrics.observe(&event);
    }
    println!("{:?} per event", began.elapsed() / 1_000_000);
}

#[test]
fn tokens_are_counted_by_kind() {
    let metrics = Metrics::new(|| of(&["openai"]));
    let tokens = Tokens { input: 20, output: 7, cached: 5, ..Tokens::default() };
    let usage = Usage { tokens, estimated: true, ..Usage::default() };
    metrics.record(UsageEvent { usage: Some(usage.clone()), ..event(Some("openai")) });
    metrics.record(UsageEvent { usage: Some(Usage { estimated: false, ..usage }), ..event(Some("openai")) });
    let is = |sample: &str, expected| assert_eq!(value(&metrics, sample), expected, "{sample}");
    is(r#"aiproxy_tokens_total{channel="openai",kind="input"}"#, Some(40.0));
    is(r#"aiproxy_tokens_total{channel="openai",kind="output"}"#, Some(14.0));
    is(r#"aiproxy_tokens_total{channel="openai",kind="cached"}"#, Some(10.0));
    is(r#"aiproxy_tokens_total{channel="openai",kind="reasoning"}"#, None);
    is(r#"aiproxy_usage_estimated_total{channel="openai"}"#, Some(1.0));
}
