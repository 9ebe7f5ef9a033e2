//! HTTP/3 as real callers speak it: aioquic, Chromium, and niquests, which finds it by itself.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use aiproxy_testkit::{App, Authority, BOUND, Builder, PROXY_KEY, Process, until};
use serde_json::{Value, json};

use super::certificates::renew;
use super::curl::curl;
use super::secure;
use crate::sdk;

/// H3_INTERNAL_ERROR, H3_REQUEST_REJECTED and H3_NO_ERROR.
const BROKEN: u64 = 0x102;
const REJECTED: u64 = 0x10b;
const NO_ERROR: u64 = 0x100;
/// The page of which `h3_client.py` speaks.
const PAGE: &str = "http://localhost:8000";

/// A relay that callers reach by its address, and `ca.pem` for those who are to trust it.
fn local(authority: &Authority) -> Builder {
    secure(authority, &["127.0.0.1", "127.0.0.2", "relay.test"]).file("ca.pem", &authority.pem())
}

/// What aioquic and niquests take for the authority.
fn trusting(mut script: Command, app: &App, ca: &str) -> Command {
    script.env("SSL_CERT_FILE", app.dir().join(ca));
    script
}

fn url(at: SocketAddr) -> String {
    format!("https://{at}")
}

/// Asks for the models on a connection of its own, trusting this file.
async fn asks(app: &App, at: SocketAddr, ca: &str) {
    let mut script = trusting(sdk::python("h3_client.py"), app, ca);
    script.arg("get");
    sdk::succeeds(app, url(at), script).await;
}

/// Streams of one caller over HTTP/3.
struct Streams(Process);

impl Streams {
    /// Opens them; each waits at `gate` behind its first piece.
    async fn open(app: &App, count: usize, gate: &str, more: &[&str]) -> Self {
        let mut script = trusting(sdk::python("h3_streams.py"), app, "ca.pem");
        script.arg(url(app.quic_addr())).args(["--key", PROXY_KEY, "--streams", &count.to_string()]);
        script.args(["--sandbox", &format!("hold={gate}")]).args(more);
        let streams = Self(Process::start(script));
        assert_eq!(streams.told("open").await, count);
        streams
    }

    /// What it tells of this step.
    async fn told(&self, step: &str) -> Value {
        let find = |line: &str| serde_json::from_str::<Value>(line).ok()?.get(step).cloned();
        self.0.printed(step, find).await
    }

    /// How all of them ended, and the code with which the relay closed the connection.
    async fn end(self) -> (Vec<Value>, Value) {
        let ends = self.told("ends").await;
        let closed = self.told("closed").await;
        assert_eq!(self.0.end().await.code, Some(0));
        (ends.as_array().unwrap().clone(), closed)
    }
}

fn is_whole(end: &Value) -> bool {
    let tail = end["tail"].as_str().unwrap();
    (&end["end"], &end["status"]) == (&json!("complete"), &json!(200)) && tail.ends_with("data: [DONE]\n\n")
}

#[tokio::test]
async fn aioquic_is_served_as_callers_over_tcp_are() {
    let authority = Authority::default();
    let app = sdk::quiet(local(&authority))
        .config(|c| c["system"]["cors"] = json!({"origins": [PAGE]}))
        .start()
        .await;
    let script = trusting(sdk::python("h3_client.py"), &app, "ca.pem");
    sdk::succeeds(&app, url(app.quic_addr()), script).await;
    let line = app.logged("an answer that its caller left", |line| line["outcome"] == "caller_left").await;
    assert_eq!((&line["protocol"], &line["user"]), (&json!("http3"), &json!("user1")));
    let said = app.process().stdout();
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["protocol"] == "http3"), "{said}");
    assert!(lines.iter().any(|line| line["usage"]["output"].as_u64() > Some(0)), "{said}");
    let page = app.admin("/metrics").await.text().await;
    let counted =
        |wanted: &str| page.lines().any(|line| line.contains("protocol=\"http3\"") && line.contains(wanted));
    assert!(counted("outcome=\"refused\"") && counted("outcome=\"caller_left\""), "{page}");
    app.finish().await;
}

#[tokio::test]
async fn chromium_fetches_over_http3() {
    let authority = Authority::default();
    let (_server, page) = sdk::page().await;
    let app = sdk::quiet(local(&authority))
        .config(|c| c["system"]["cors"] = json!({"origins": [page]}))
        .start()
        .await;
    let mut script = sdk::node("chromium_h3.mjs");
    script.env("CERTIFICATE", app.dir().join("relay.pem")).env("PAGE_URL", &page);
    sdk::succeeds(&app, url(app.quic_addr()), script).await;
    app.logged("a stream that the page left", |line| line["outcome"] == "caller_left").await;
    app.finish().await;
}

#[tokio::test]
async fn a_client_that_reads_alt_svc_goes_on_over_http3() {
    let authority = Authority::default();
    let app = sdk::quiet(local(&authority)).start().await;
    let script = trusting(sdk::python("alt_svc.py"), &app, "ca.pem");
    // Over TCP it comes through the tap, whose port is another one.
    sdk::succeeds(&app, url(app.https_addr()), script).await;
    for protocol in ["http1", "http2", "http3"] {
        app.logged(protocol, |line| line["protocol"] == protocol).await;
    }
    app.finish().await;
}

#[tokio::test]
async fn a_draining_relay_says_goaway_and_finishes_fifty_streams() {
    let authority = Authority::default();
    let app = local(&authority).start().await;
    let streams = Streams::open(&app, 50, "end", &["--goodbye"]).await;
    app.process().signal("TERM");
    // Four numbers for each stream that was opened, the first being 0.
    assert_eq!(streams.told("goaway").await, 4 * 50);
    let later = streams.told("later").await;
    assert_eq!((&later["end"], &later["code"]), (&json!("reset"), &json!(REJECTED)), "{later}");
    app.sandbox().release("end");
    let (ends, closed) = streams.end().await;
    assert!(ends.len() == 50 && ends.iter().all(is_whole), "{ends:?}");
    assert_eq!(closed, NO_ERROR);
    app.process().ended_within(BOUND).await.expect("an end");
    let whole = app.process().stdout().matches("\"outcome\":\"complete\"").count();
    assert_eq!(whole, 50, "nothing is written of the one that was rejected");
    app.finish().await;
}

#[tokio::test]
async fn a_withdrawn_key_breaks_its_streams_off() {
    let authority = Authority::default();
    let mut app = local(&authority).start().await;
    let streams = Streams::open(&app, 3, "never", &[]).await;
    assert!(app.change(|c| c["users"]["user1"]["status"] = "disabled".into()).await);
    let (ends, _) = streams.end().await;
    for end in &ends {
        assert_eq!((&end["end"], &end["code"]), (&json!("reset"), &json!(BROKEN)), "{end}");
    }
    let line = app.logged("the end", |line| line["outcome"] == "cut").await;
    assert_eq!((&line["error"], &line["protocol"]), (&json!("user_disabled"), &json!("http3")));
    app.metric_is("aiproxy_live_requests", 0.0).await;
    app.finish().await;
}

/// What answers over HTTP/1.1 and over HTTP/2 say about HTTP/3.
async fn alt_svc(app: &App) -> [Option<String>; 2] {
    let url = format!("https://relay.test:{}/v1/models", app.https_addr().port());
    let mut said = [None, None];
    for (said, (option, version)) in said.iter_mut().zip([("--http1.1", "1.1 200"), ("--http2", "2 200")]) {
        let (code, answer) = curl(app, &["-i", option, &url]).await;
        assert!(code == Some(0) && answer.ends_with(version), "{answer}");
        *said = answer.lines().find_map(|line| line.strip_prefix("alt-svc: ")).map(str::to_owned);
    }
    said
}

#[tokio::test]
async fn alt_svc_is_said_over_tls_where_there_is_http3() {
    let authority = Authority::default();
    let mut app = local(&authority).start().await;
    let says = |port: u16| format!("h3=\":{port}\"; ma=86400");
    let own = Some(says(app.quic_addr().port()));
    assert_eq!(alt_svc(&app).await, [own.clone(), own]);
    assert_eq!(app.get("/v1/models").send().await.header("alt-svc"), None, "in the clear it is not believed");
    let leaked = app.get("/v1/models").sandbox("leak").send().await;
    assert_eq!(leaked.header("alt-svc"), None, "nor is the platform's passed on");

    assert!(app.change(|c| c["system"]["listen"]["quic_advertise"] = 443.into()).await);
    let other = Some(says(443));
    assert_eq!(alt_svc(&app).await, [other.clone(), other]);
    assert!(app.change(|c| c["system"]["listen"]["quic"] = "off".into()).await);
    assert_eq!(alt_svc(&app).await, [None, None]);
    app.finish().await;
}

/// The HTTP/3 listener that has opened since the relay said `before`.
async fn opened(app: &App, before: usize) -> SocketAddr {
    until("a new listener", || {
        let said = app.process().stderr();
        let lines = said.get(before..)?.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter_map(|line| line.get("quic")?.as_str()?.parse().ok()).next()
    })
    .await
}

#[tokio::test]
async fn listeners_for_http3_come_and_go_with_the_configuration() {
    let authority = Authority::default();
    let mut app = local(&authority).start().await;
    let first = app.quic_addr();
    let streams = Streams::open(&app, 2, "later", &[]).await;

    let before = app.process().stderr().len();
    assert!(app.change(|c| c["system"]["listen"]["quic"] = json!(["127.0.0.2:0"])).await);
    let second = opened(&app, before).await;
    asks(&app, second, "ca.pem").await;

    assert!(app.change(|c| c["system"]["listen"]["quic"] = "off".into()).await);
    until("the second port being free", || UdpSocket::bind(second).is_ok().then_some(())).await;
    app.sandbox().release("later");
    let (ends, _) = streams.end().await;
    assert!(ends.iter().all(is_whole), "what is open stays: {ends:?}");
    until("the first port being free", || UdpSocket::bind(first).is_ok().then_some(())).await;

    let before = app.process().stderr().len();
    assert!(app.change(|c| c["system"]["listen"]["quic"] = true.into()).await);
    let third = opened(&app, before).await;
    asks(&app, third, "ca.pem").await;
    app.finish().await;
}

#[tokio::test]
async fn an_address_that_is_taken_over_udp_changes_nothing() {
    let authority = Authority::default();
    let mut app = local(&authority).start().await;
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    app.change(|c| c["system"]["listen"]["quic"] = address.as_str().into()).await;
    until("the complaint", || {
        let said = app.process().stderr();
        (said.contains("the listeners stay as they were") && said.contains(&address)).then_some(())
    })
    .await;
    asks(&app, app.quic_addr(), "ca.pem").await;
    app.finish().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_over_http3_and_what_is_open_stays() {
    let (first, second) = (Authority::new("The first"), Authority::new("The second"));
    let app = local(&first).file("second.pem", &second.pem()).start().await;
    let streams = Streams::open(&app, 1, "later", &[]).await;
    let issued = second.issue(&["127.0.0.1", "relay.test"]);
    let applied = "aiproxy_tls_loads_total{result=\"applied\"}";
    let before = app.metric(applied).await;
    renew(&app, &issued);
    app.metric_is(applied, before + 1.0).await;
    asks(&app, app.quic_addr(), "second.pem").await;
    app.sandbox().release("later");
    let (ends, _) = streams.end().await;
    assert!(ends.iter().all(is_whole), "{ends:?}");
    app.finish().await;
}

#[tokio::test]
async fn behind_the_proxy_protocol_there_is_no_http3_unless_it_is_asked_for() {
    let authority = Authority::default();
    let app = behind_a_balancer(&authority, None).start().await;
    assert!(!app.process().stderr().contains("\"quic\":"), "{}", app.process().stderr());
    app.finish().await;
    let app = behind_a_balancer(&authority, Some("127.0.0.1:0")).start().await;
    asks(&app, app.quic_addr(), "ca.pem").await;
    app.finish().await;
}

fn behind_a_balancer(authority: &Authority, quic: Option<&str>) -> Builder {
    let quic = quic.map(Value::from);
    local(authority).config(|c| {
        c["system"]["listen"]["proxy_protocol"] = true.into();
        c["system"]["trusted_proxies"] = json!(["127.0.0.1"]);
        if let Some(quic) = quic {
            c["system"]["listen"]["quic"] = quic;
        }
    })
}
