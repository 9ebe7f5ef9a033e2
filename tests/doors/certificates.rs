//! Certificates that change while callers come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aiproxy_testkit::h2::{self, H2, Outcome};
use aiproxy_testkit::{App, Authority, Gate, Issued, Raw, RawUpstream, Tls, until, within};
use serde_json::{Value, json};

use super::{bearer, fields, get, secure};
use crate::relay;

/// Both files, one after the other, as a renewal does.
pub(super) fn renew(app: &App, issued: &Issued) {
    std::fs::write(app.dir().join("relay.pem"), &issued.cert).unwrap();
    std::fs::write(app.dir().join("relay.key"), &issued.key).unwrap();
}

async fn shown(app: &App, tls: &Tls) -> Vec<u8> {
    tls.connect(app.https_addr(), "relay.test").await.unwrap().certificate().to_vec()
}

/// Waits until new handshakes show this certificate.
async fn shows(app: &App, authority: &Authority, issued: &Issued) {
    within("the new certificate", async {
        // A fresh caller each time: who resumes a session is shown none.
        while shown(app, &Tls::new(authority, &["http/1.1"])).await != issued.der().to_vec() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn readiness(app: &App) -> Value {
    app.admin("/readyz").await.json().await
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_what_is_open_stays() {
    let authority = Authority::default();
    let gate = Gate::new("the rest");
    let opened = gate.clone();
    let upstream = RawUpstream::start(move |mut conn| {
        let gate = opened.clone();
        async move {
            while let Some(request) = conn.request().await {
                conn.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst").await;
                if request.target() == "/v1/slow" {
                    gate.passed().await;
                }
                conn.send("after").await;
            }
        }
    })
    .await;
    let app = secure(&authority, &["relay.test"]).upstream(&upstream).start().await;
    let bearer = bearer();
    let tls = |alpn: &str| Tls::new(&authority, &[alpn]);
    let mut raw = Raw::over(tls("http/1.1").connect(app.https_addr(), "relay.test").await.unwrap());
    raw.send(get("/v1/slow", "")).await;
    raw.until(b"first").await;
    let mut h2 = H2::over(tls("h2").connect(app.https_addr(), "relay.test").await.unwrap());
    h2.begin(&[]).await;
    h2.send(h2::headers(1, true, &fields("GET", "/v1/slow", &bearer))).await;
    assert_eq!(h2.piece(1).await.unwrap(), "first");

    let renewed = authority.issue(&["relay.test"]);
    renew(&app, &renewed);
    shows(&app, &authority, &renewed).await;

    // What was open goes on, and takes more.
    gate.open();
    raw.until(b"after").await;
    raw.send(get("/v1/more", "")).await;
    assert_eq!(raw.answer().await.text(), "firstafter");
    assert_eq!(h2.piece(1).await.unwrap(), "after");
    h2.send(h2::headers(3, true, &fields("GET", "/v1/more", &bearer))).await;
    assert_eq!(h2.outcome(3).await, Outcome::Answer(200, "firstafter".into()));
    app.finish().await;
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing_and_is_told() {
    let authority = Authority::default();
    let app = secure(&authority, &["relay.test"]).start().await;
    let tls = |alpn: &str| Tls::new(&authority, &[alpn]);
    let first = shown(&app, &tls("http/1.1")).await;
    let details = readiness(&app).await["details"]["tls"].clone();
    assert_eq!(details["error"], Value::Null);
    assert_eq!(details["certificates"][0]["names"], json!(["relay.test"]));
    assert_eq!(details["certificates"][0]["expires"], 2_461_449_600_u64);
    let other = authority.issue(&["relay.test"]);
    let key = other.key.lines().nth(1).unwrap();
    for (round, (name, text, says)) in [
        ("relay.key", other.key.as_str(), "is not the key of"),
        ("relay.key", "nonsense", "holds no private key"),
        ("relay.pem", "", "holds no certificate"),
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(app.dir().join(name), text).unwrap();
        let refused = "aiproxy_tls_loads_total{result=\"refused\"}";
        app.metric_is(refused, f64::from(u32::try_from(round).unwrap() + 1)).await;
        let readiness = readiness(&app).await;
        let error = readiness["details"]["tls"]["error"].as_str().unwrap();
        assert!(error.contains(says), "{error}");
        assert!(!error.contains(key) && !app.process().stderr().contains(key), "no part of a key is told");
        assert_eq!(readiness["ready"], true, "the last good one serves");
        assert_eq!(shown(&app, &tls("http/1.1")).await, first);
    }
    std::fs::remove_file(app.dir().join("relay.pem")).unwrap();
    app.metric_is("aiproxy_tls_loads_total{result=\"refused\"}", 4.0).await;
    assert_eq!(shown(&app, &tls("h2")).await, first);
    // Whoever opened a pipe would wait for somebody to write into it.
    let pipe = app.dir().join("relay.pem");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    app.metric_is("aiproxy_tls_loads_total{result=\"refused\"}", 5.0).await;
    let error = readiness(&app).await["details"]["tls"]["error"].clone();
    assert!(error.as_str().unwrap().contains("is not a regular file"), "{error}");
    assert_eq!(shown(&app, &tls("h2")).await, first);
    std::fs::remove_file(&pipe).unwrap();
    renew(&app, &other);
    shows(&app, &authority, &other).await;
    assert_eq!(readiness(&app).await["details"]["tls"]["error"], Value::Null);
    // On SIGHUP they are read whatever their metadata say.
    let before = app.metric("aiproxy_tls_loads_total{result=\"applied\"}").await;
    assert!(app.reload().await);
    app.metric_is("aiproxy_tls_loads_total{result=\"applied\"}", before + 1.0).await;
    app.finish().await;
}

#[tokio::test]
async fn handshakes_under_load_never_meet_a_half_changed_pair() {
    let authority = Arc::new(Authority::default());
    let app = secure(&authority, &["relay.test"]).start().await;
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let to = app.https_addr();
    let load: Vec<_> = (0..4)
        .map(|number| {
            let (stop, count, authority) = (Arc::clone(&stop), Arc::clone(&count), Arc::clone(&authority));
            tokio::spawn(async move {
                // Half of them resume sessions of earlier certificates.
                let resuming = Tls::new(&authority, &["http/1.1"]);
                while !stop.load(Ordering::Relaxed) {
                    let tls =
                        if number % 2 == 0 { resuming.clone() } else { Tls::new(&authority, &["http/1.1"]) };
                    let mut raw = Raw::over(tls.connect(to, "relay.test").await.expect("a handshake"));
                    raw.send(get("/v1/models", "")).await;
                    assert_eq!(raw.answer().await.status, 200);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let renewed = authority.issue(&["relay.test"]);
        let before = count.load(Ordering::Relaxed);
        renew(&app, &renewed);
        shows(&app, &authority, &renewed).await;
        until("calls after the change", || (count.load(Ordering::Relaxed) > before + 8).then_some(())).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.expect("no call failed");
    }
    assert_eq!(app.metric("aiproxy_connections_turned_away_total{reason=\"handshake\"}").await, 0.0);
    app.finish().await;
}

#[tokio::test]
async fn listeners_with_tls_come_and_go_with_the_configuration() {
    let authority = Authority::default();
    let issued = authority.issue(&["relay.test"]);
    let mut app = relay().file("relay.pem", &issued.cert).file("relay.key", &issued.key).start().await;
    let taken = app
        .change(|c| {
            c["system"]["listen"]["https"] = "127.0.0.1:0".into();
            c["system"]["tls"] = json!({"cert": "relay.pem", "key": "relay.key"});
        })
        .await;
    assert!(taken);
    let address = app
        .process()
        .said("the address", |line| serde_json::from_str::<Value>(line).ok()?["https"].as_str()?.parse().ok())
        .await;
    let tls = Tls::new(&authority, &["http/1.1"]);
    let mut raw = Raw::over(tls.connect(address, "relay.test").await.unwrap());
    raw.send(get("/v1/models", "")).await;
    assert_eq!(raw.answer().await.status, 200);
    assert!(app.change(|c| c["system"]["listen"]["https"] = "off".into()).await);
    within("the port closed", async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    raw.send(get("/v1/models", "")).await;
    assert_eq!(raw.answer().await.status, 200, "what is open stays");
    drop(raw);
    app.finish().await;
}

#[tokio::test]
async fn a_listener_that_lacks_its_certificate_opens_once_there_is_one() {
    let authority = Authority::default();
    let issued = authority.issue_until(&["relay.test"], 2049);
    let mut app = relay().start().await;
    let configured = |c: &mut Value| {
        c["system"]["listen"]["https"] = "127.0.0.1:0".into();
        c["system"]["tls"] = json!({"cert": "relay.pem", "key": "relay.key"});
    };
    assert!(app.change(configured).await, "the rest of the configuration is taken");
    let error = readiness(&app).await["details"]["tls"]["error"].to_string();
    assert!(error.contains("relay.pem"), "{error}");
    assert_eq!(app.get("/v1/models").send().await.status, 200);
    renew(&app, &issued);
    let address = app
        .process()
        .said("the address", |line| serde_json::from_str::<Value>(line).ok()?["https"].as_str()?.parse().ok())
        .await;
    let wire = Tls::new(&authority, &["http/1.1"]).connect(address, "relay.test").await.unwrap();
    assert_eq!(wire.certificate(), issued.der());
    drop(wire);
    app.finish().await;
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_spoken_of() {
    let authority = Authority::default();
    let old = authority.issue_until(&["old.test"], 2021);
    let app = secure(&authority, &["relay.test"])
        .file("old.pem", &old.cert)
        .file("old.key", &old.key)
        .config(|c| {
            let pair = c["system"]["tls"].clone();
            c["system"]["tls"] = json!([pair, {"cert": "old.pem", "key": "old.key"}]);
        })
        .start()
        .await;
    let said = app.process().stderr();
    let line = said.lines().find(|line| line.contains("a certificate expires soon")).unwrap();
    assert!(line.contains("old.test"), "{line}");
    assert_eq!(said.matches("a certificate expires soon").count(), 1);
    let page = app.admin("/metrics").await.text().await;
    let sample = page.lines().find(|line| line.contains("name=\"old.test\"")).unwrap();
    assert!(sample.ends_with(" 1609459200"), "{sample}");
    app.finish().await;
}

#[tokio::test]
async fn a_self_signed_certificate_outlives_the_process() {
    let mut app = relay()
        .config(|c| {
            c["system"]["listen"]["https"] = "127.0.0.1:0".into();
            c["system"]["tls"] = "self-signed".into();
        })
        .start()
        .await;
    let fingerprint =
        |readiness: &Value| readiness["details"]["tls"]["certificates"][0]["fingerprint"].clone();
    let first = fingerprint(&readiness(&app).await);
    let told = app
        .process()
        .said("the fingerprint", |line| serde_json::from_str::<Value>(line).ok()?.get("sha256").cloned());
    assert_eq!(told.await, first);
    app.restart_after("TERM").await;
    assert_eq!(fingerprint(&readiness(&app).await), first);
    app.finish().await;
}

#[tokio::test]
async fn a_start_without_a_certificate_to_show_fails() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("aiproxy.yaml");
    std::fs::write(
        &file,
        "system: {listen: {http: '127.0.0.1:0', https: '127.0.0.1:0', admin: off}, tls: {cert: none.pem, key: none.key}}\n",
    )
    .unwrap();
    for (command, code) in [("serve", 1), ("check", 2)] {
        let mut run = std::process::Command::new(crate::BINARY);
        match command {
            "serve" => run.args(["serve", "--config"]).arg(&file),
            _ => run.arg("check").arg(&file),
        };
        let finished = aiproxy_testkit::run(run, aiproxy_testkit::BOUND).await;
        assert_eq!(finished.code, Some(code), "{command}: {}", finished.stderr);
        assert!(finished.stderr.contains("none.pem"), "{}", finished.stderr);
    }
}
