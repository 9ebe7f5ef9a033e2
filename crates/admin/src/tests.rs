//! Over real sockets, with a client that knows no HTTP but what it writes and reads.

mod api;
mod channels;
mod documents;
mod explain;
mod exposition;
mod keys;
mod live;
mod login;
mod roles;
mod table;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use aiproxy_config::Source;
use aiproxy_config::model::Breaker;
use aiproxy_core::ports::UsageSink as _;
use aiproxy_core::{Outcome, UsageEvent};
use aiproxy_registry::health::Verdict;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::control::{File, Start};
use crate::server::Bounds;

const CONFIG: &str = "
users:
  user1: {name: 张三, proxy_key: pk_user1_0123456789, channels: [openai, aliyun]}
channels:
  openai: {api_key: sk_openai_0123456789, base_url: https://api.openai.com}
  aliyun: {api_key: sk_aliyun_0123456789, base_url: https://dashscope.aliyuncs.com, status: disabled}
";

/// Longer than anything here takes.
const BOUND: Duration = Duration::from_secs(20);

struct Bed {
    admin: Admin,
    state: State,
    folder: tempfile::TempDir,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Bed {
    async fn new() -> Self {
        Self::with(CONFIG, Bounds::default()).await
    }

    async fn with(config: &str, bounds: Bounds) -> Self {
        let source = Source::file(std::path::Path::new("aiproxy.yaml"));
        let mut loaded = aiproxy_config::load_str(config, &source, &|_| None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        loaded.snapshot.system.data_dir = folder.path().to_owned();
        let start = Start::load(File::from(loaded)).await.unwrap();
        let registry = Arc::new(Registry::new(start.snapshot.clone()));
        let theirs = Arc::clone(&registry);
        let metrics = Arc::new(Metrics::new(move || mirror(&theirs)));
        let control = start.attach(Arc::clone(&registry), Arc::clone(&metrics));
        let (auth, started) = (Arc::new(Auth::default()), Instant::now());
        let hosts = vec!["aiproxy.internal".into()];
        let state = State { registry, metrics, hosts, control, auth, started };
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let admin = Admin::bounded(&[loopback], state.clone(), bounds).await.unwrap();
        Self { admin, state, folder }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.admin.addresses()[0]).await.unwrap()
    }

    /// Sends these bytes, asks for the connection to end, and reads until then.
    async fn raw(&self, request: &str) -> Answer {
        let mut stream = self.connect().await;
        let request = request.replacen("HTTP/1.1\r\n", "HTTP/1.1\r\nconnection: close\r\n", 1);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        timeout(BOUND, stream.read_to_end(&mut bytes)).await.expect("no answer in time").unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    async fn ask(&self, method: &str, path: &str) -> Answer {
        let address = self.admin.addresses()[0];
        self.raw(&format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n\r\n")).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path).await
    }
}

fn event(channel: Option<&str>) -> UsageEvent {
    UsageEvent {
        user: Some("user1".into()),
        channel: channel.map(Into::into),
        endpoint: "/v1/chat/completions".into(),
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

#[tokio::test]
async fn a_living_process_says_so_even_while_it_drains() {
    let bed = Bed::new().await;
    for _ in 0..2 {
        let answer = bed.get("/healthz").await;
        assert_eq!((answer.status, &*answer.body), (200, "ok\n"));
        bed.state.registry.status.drain();
    }
}

#[tokio::test]
async fn a_ready_process_tells_of_its_channels() {
    let bed = Bed::new().await;
    let answer = bed.get("/readyz").await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!((&json["ready"], &json["reasons"]), (&Value::Bool(true), &serde_json::json!([])));
    let channel = |id: &str, status: &str| serde_json::json!({"id": id, "status": status, "breaker": "closed", "rejected": false, "unhealthy": false});
    let channels = serde_json::json!([channel("openai", "active"), channel("aliyun", "disabled")]);
    assert_eq!(json["details"]["channels"], channels);
}

#[tokio::test]
async fn a_draining_process_is_not_ready() {
    let bed = Bed::new().await;
    bed.state.registry.status.drain();
    let answer = bed.get("/readyz").await;
    assert_eq!(answer.status, 503);
    let json = answer.json();
    assert_eq!((&json["ready"], &json["reasons"]), (&Value::Bool(false), &serde_json::json!(["draining"])));
    assert_eq!(json["details"]["draining"], true);
}

#[tokio::test]
async fn without_an_active_channel_a_process_is_not_ready() {
    let bed =
        Bed::with(&CONFIG.replace("openai.com}", "openai.com, status: disabled}"), Bounds::default()).await;
    let answer = bed.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["reasons"], serde_json::json!(["no_active_channel"]));
}

#[tokio::test]
async fn a_refused_reload_is_told_and_changes_nothing_else() {
    let bed = Bed::new().await;
    let broken = CONFIG.replace("sk_openai_0123456789", "[sk_openai_0123456789]").replace("users:", "user:");
    let source = Source::file(std::path::Path::new("aiproxy.yaml"));
    let problems = aiproxy_config::load_str(&broken, &source, &|_| None).unwrap_err();
    bed.state.registry.status.reload_refused(problems.to_string());
    let answer = bed.get("/readyz").await;
    assert_eq!(answer.status, 200);
    let reload = answer.json()["details"]["reload"].clone();
    assert_eq!((&reload["applied"], &reload["refused"]), (&0.into(), &1.into()));
    assert!(reload["error"].as_str().unwrap().contains("aiproxy.yaml:2:"), "{reload}");
    assert!(!answer.body.contains("0123456789"), "{}", answer.body);
    assert!(bed.get("/metrics").await.body.contains("aiproxy_reloads_total{result=\"refused\"} 1\n"));

    bed.state.registry.status.reload_refused("长".repeat(100_000));
    assert!(bed.get("/readyz").await.body.len() < 20_000);
    bed.state.registry.status.reload_applied();
    assert_eq!(bed.get("/readyz").await.json()["details"]["reload"]["error"], Value::Null);
}

#[tokio::test]
async fn a_channel_that_fails_is_shown_and_no_reason_to_leave() {
    let bed = Bed::new().await;
    let registry = &bed.state.registry;
    let (openai, now) = (registry.health.get(&"openai".into()), Instant::now());
    let settings = Breaker::default();
    for _ in 0..settings.failures {
        openai.report(Verdict::Bad, &settings, now);
    }
    openai.reject(Duration::from_secs(60), now);
    openai.checked(false, 1);
    let answer = bed.get("/readyz").await;
    assert_eq!(answer.status, 200);
    let channel = answer.json()["details"]["channels"][0].clone();
    let expected = serde_json::json!({"id": "openai", "status": "active", "breaker": "open", "rejected": true, "unhealthy": true});
    assert_eq!(channel, expected);
    let page = bed.get("/metrics").await.body;
    for sample in [
        "aiproxy_breaker_state{channel=\"openai\",state=\"open\"} 1\n",
        "aiproxy_breaker_state{channel=\"openai\",state=\"closed\"} 0\n",
        "aiproxy_breaker_state{channel=\"aliyun\",state=\"closed\"} 1\n",
        "aiproxy_channel_rejected{channel=\"openai\"} 1\n",
        "aiproxy_channel_unhealthy{channel=\"openai\"} 1\n",
    ] {
        assert!(page.contains(sample), "{sample} is not in\n{page}");
    }
}

#[tokio::test]
async fn the_metrics_are_valid_and_bounded_whatever_channels_events_name() {
    let bed = Bed::new().await;
    bed.state.metrics.record(event(None));
    bed.state.metrics.record(event(Some("openai")));
    for n in 0..10_000 {
        bed.state.metrics.record(event(Some(&format!("c{n}\\\"\n"))));
    }
    let answer = bed.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some(aiproxy_telemetry::metrics::CONTENT_TYPE));
    let families = exposition::check(&answer.body);
    assert_eq!(families["aiproxy_requests"], 3);
    assert_eq!(families["aiproxy_breaker_state"], 6);
    assert!(families.values().sum::<usize>() < 500, "{families:?}");
    assert!(!answer.body.contains("user1") && !answer.body.contains("张三"));
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let bed = Bed::new().await;
    for path in ["/", "/metrics/", "/metricsx", "/api/v1/nothing", "/api/", "/%6detrics", "/..//metrics"] {
        let answer = bed.get(path).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &"not_found".into()), "{path}");
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let answer = bed.ask(method, path).await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD")), "{method} {path}");
            assert_eq!(answer.json()["error"]["code"], "method_not_allowed");
        }
    }
}

#[tokio::test]
async fn head_answers_as_get_without_the_body() {
    let bed = Bed::new().await;
    for path in ["/healthz", "/readyz", "/metrics", "/nothing"] {
        let (get, head) = (bed.get(path).await, bed.ask("HEAD", path).await);
        assert_eq!((head.status, &*head.body), (get.status, ""), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        assert!(head.header("content-length").is_some_and(|length| length != "0"), "{path}: {}", head.head);
    }
}

#[tokio::test]
async fn nothing_is_stored_or_guessed_at() {
    let bed = Bed::new().await;
    let address = bed.admin.addresses()[0];
    let mut answers = vec![bed.raw("GET /healthz HTTP/1.1\r\nhost: evil.example\r\n\r\n").await];
    answers.push(bed.raw("GET /healthz HTTP/1.1\r\n\r\n").await);
    answers.push(
        bed.raw(&format!("POST /metrics HTTP/1.1\r\nhost: {address}\r\ncontent-length: 2\r\n\r\n{{}}")).await,
    );
    for path in ["/healthz", "/readyz", "/metrics", "/nothing"] {
        answers.push(bed.get(path).await);
    }
    for answer in answers {
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{}", answer.head);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{}", answer.head);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{}", answer.head);
    }
}

#[tokio::test]
async fn hostile_names_get_nothing() {
    let bed = Bed::new().await;
    let status = async |request: String| bed.raw(&request).await.status;
    for host in ["localhost", "127.0.0.1", "[::1]:1", "aiproxy.internal", "10.0.0.1:80"] {
        assert_eq!(status(format!("GET /metrics HTTP/1.1\r\nhost: {host}\r\n\r\n")).await, 200, "{host}");
    }
    for path in ["/metrics", "/readyz", "/healthz", "/nothing"] {
        let answer = bed.raw(&format!("GET {path} HTTP/1.1\r\nhost: evil.example:9090\r\n\r\n")).await;
        assert_eq!(answer.status, 403);
        assert_eq!(answer.json()["error"]["code"], "host_not_allowed");
    }
    let two = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n";
    assert_eq!(status(two.into()).await, 400);
    let whole = "GET http://evil.example/metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert_eq!(status(whole.into()).await, 403);
    assert_eq!(status("GET /metrics HTTP/1.1\r\n\r\n".into()).await, 400);
    // A load balancer's health check; no browser sends this.
    assert_eq!(status("GET /healthz HTTP/1.0\r\n\r\n".into()).await, 200);
}

#[tokio::test]
async fn heads_are_bounded() {
    let bed = Bed::new().await;
    let fields: String = (0..65).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(64 * 1024));
    for fields in [fields, long] {
        // The answer may be lost when the listener closes with bytes unread; what counts is that it
        // closes.
        let mut stream = bed.connect().await;
        let _ =
            stream.write_all(format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{fields}\r\n").as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(BOUND, stream.read_to_end(&mut answer)).await.expect("still open");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "), "{answer:?}");
    }
}

#[tokio::test]
async fn a_connection_serves_several_requests_and_is_bounded_in_time() {
    let bounds = Bounds { head: Duration::from_millis(300), ..Bounds::default() };
    let bed = Bed::with(CONFIG, bounds).await;
    for sent in ["", "GET /healthz HT", &"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(2)] {
        let mut stream = bed.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answers = Vec::new();
        let _ = timeout(BOUND, stream.read_to_end(&mut answers)).await.expect("still open");
        let answers = String::from_utf8(answers).unwrap();
        assert_eq!(answers.matches("\r\n\r\nok\n").count(), sent.matches("\r\n\r\n").count(), "{answers}");
    }
}

#[tokio::test]
async fn a_connection_ends_in_any_case() {
    let bed = Bed::with(CONFIG, Bounds { life: Duration::from_millis(100), ..Bounds::default() }).await;
    let mut stream = bed.connect().await;
    let ended = timeout(BOUND, stream.read(&mut [0; 16])).await.expect("still open");
    assert!(ended.is_err() || ended.is_ok_and(|bytes| bytes == 0));
}

#[tokio::test]
async fn connections_are_bounded_and_the_next_is_served_when_one_ends() {
    let bed = Bed::with(CONFIG, Bounds { connections: 2, ..Bounds::default() }).await;
    let idle = [bed.connect().await, bed.connect().await];
    let mut third = bed.connect().await;
    third.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    let mut byte = [0; 1];
    timeout(Duration::from_millis(200), third.read(&mut byte)).await.expect_err("served at once");
    drop(idle);
    assert_eq!(timeout(BOUND, third.read(&mut byte)).await.expect("never served").unwrap(), 1);
}

#[tokio::test]
async fn shutdown_closes_the_listener_and_does_not_wait_for_idlers() {
    let bed = Bed::new().await;
    let address = bed.admin.addresses()[0];
    let _idle = bed.connect().await;
    // Served after the idle connection was accepted.
    assert_eq!(bed.get("/healthz").await.status, 200);
    timeout(Duration::from_secs(5), bed.admin.shutdown()).await.expect("waits for an idle connection");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let bed = Bed::new().await;
    let taken = bed.admin.addresses()[0];
    let error = Admin::start(&[taken], bed.state.clone()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
}
