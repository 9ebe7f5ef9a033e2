//! Handshakes: versions, names, resumption, certificates of callers.

use aiproxy_testkit::h2::{self, H2, Outcome};
use aiproxy_testkit::{Authority, Raw, RawUpstream, Tls};
use serde_json::json;

use super::{bearer, fields, get, secure};
use crate::relay;

#[tokio::test]
async fn both_versions_of_tls_carry_both_versions_of_http() {
    let (authority, upstream) = (Authority::default(), RawUpstream::recording().await);
    let app = secure(&authority, &["relay.test"]).upstream(&upstream).start().await;
    let bearer = bearer();
    let mut served = 0;
    for tls in [Tls::new, Tls::version_1_2] {
        let wire =
            tls(&authority, &["h2", "http/1.1"]).connect(app.https_addr(), "relay.test").await.unwrap();
        assert_eq!(wire.protocol().as_deref(), Some("h2"), "the relay's first choice");
        let mut h2 = H2::over(wire);
        h2.begin(&[]).await;
        h2.send(h2::headers(1, true, &fields("GET", "/v1/a", &bearer))).await;
        let outcome = h2.outcome(1).await;
        assert!(matches!(outcome, Outcome::Answer(200, _)), "{outcome:?}");
        for alpn in [&["http/1.1"][..], &[]] {
            let wire = tls(&authority, alpn).connect(app.https_addr(), "relay.test").await.unwrap();
            assert_eq!(wire.protocol().as_deref(), alpn.first().copied());
            let mut raw = Raw::over(wire);
            raw.send(get("/v1/a", "")).await;
            assert_eq!(raw.answer().await.status, 200);
        }
        served += 3;
    }
    assert_eq!(upstream.received().len(), served);
    let unknown = Tls::new(&authority, &["spdy/3"]).connect(app.https_addr(), "relay.test").await;
    assert!(unknown.is_err(), "no common protocol");
    app.metric_is("aiproxy_connections_turned_away_total{reason=\"handshake\"}", 1.0).await;
    let protocols = ["http1", "http2"].map(|protocol| {
        format!(
            "aiproxy_requests_total{{channel=\"main\",protocol=\"{protocol}\",outcome=\"complete\",status_class=\"2xx\"}}"
        )
    });
    app.metric_is(&protocols[0], 4.0).await;
    app.metric_is(&protocols[1], 2.0).await;
    app.finish().await;
}

#[tokio::test]
async fn key_exchange_is_post_quantum_and_sessions_are_resumed() {
    let authority = Authority::default();
    let app = secure(&authority, &["relay.test"]).start().await;
    let tls = Tls::new(&authority, &["http/1.1"]);
    for resumed in [false, true] {
        let wire = tls.connect(app.https_addr(), "relay.test").await.unwrap();
        assert_eq!(wire.agreed(), ("X25519MLKEM768".to_owned(), resumed));
        let mut raw = Raw::over(wire);
        raw.send(get("/v1/models", "")).await;
        // The tickets come with the answer.
        assert_eq!(raw.answer().await.status, 200);
    }
    app.finish().await;
}

#[tokio::test]
async fn the_name_chooses_the_certificate() {
    let authority = Authority::default();
    let (one, two) = (authority.issue(&["one.test"]), authority.issue(&["two.test", "*.w.two.test"]));
    let app = relay()
        .file("1.pem", &one.cert)
        .file("1.key", &one.key)
        .file("2.pem", &two.cert)
        .file("2.key", &two.key)
        .config(|c| {
            c["system"]["listen"]["https"] = "127.0.0.1:0".into();
            c["system"]["tls"] =
                json!([{"cert": "1.pem", "key": "1.key"}, {"cert": "2.pem", "key": "2.key"}]);
        })
        .start()
        .await;
    let tls = Tls::new(&authority, &["http/1.1"]);
    for (name, expected) in [
        ("one.test", Some(&one)),
        ("two.test", Some(&two)),
        ("a.w.two.test", Some(&two)),
        ("three.test", None),
    ] {
        // The caller itself refuses a certificate that is for somebody else.
        let wire = tls.connect(app.https_addr(), name).await.ok();
        assert_eq!(wire.map(|wire| wire.certificate()), expected.map(|issued| issued.der()), "{name}");
    }
    app.finish().await;
}

#[tokio::test]
async fn callers_without_a_certificate_stay_out_where_one_is_required() {
    let (authority, clients, others) =
        (Authority::default(), Authority::new("Clients"), Authority::new("Others"));
    let upstream = RawUpstream::recording().await;
    let app = secure(&authority, &["relay.test"])
        .upstream(&upstream)
        .file("clients.pem", &clients.pem())
        .config(|c| c["system"]["tls"]["client_ca"] = "clients.pem".into())
        .start()
        .await;
    let own = clients.issue(&["caller"]);
    for tls in [
        Tls::new(&authority, &["http/1.1"]),
        Tls::presenting(&authority, &["http/1.1"], &others.issue(&["caller"])),
        Tls::presenting(&authority, &["http/1.1"], &clients.issue_until(&["caller"], 2020)),
    ] {
        // In TLS 1.3 the caller hears of it after its own side of the handshake.
        if let Ok(wire) = tls.connect(app.https_addr(), "relay.test").await {
            let mut raw = Raw::over(wire);
            raw.send(get("/v1/a", "")).await;
            assert_eq!(raw.rest().await, "");
        }
    }
    assert_eq!(upstream.connections(), 0);
    let tls = Tls::presenting(&authority, &["http/1.1"], &own);
    for _ in 0..2 {
        let wire = tls.connect(app.https_addr(), "relay.test").await.unwrap();
        assert!(!wire.agreed().1, "every session is held against the authority");
        let mut raw = Raw::over(wire);
        raw.send(get("/v1/a", "").replace("Bearer", "Bearer x")).await;
        assert_eq!(raw.answer().await.status, 401, "the key is asked for all the same");
        raw.send(get("/v1/a", "")).await;
        assert_eq!(raw.answer().await.status, 200);
    }
    app.finish().await;
}

#[tokio::test]
async fn whoever_does_not_speak_tls_is_hung_up_on() {
    let authority = Authority::default();
    let app = secure(&authority, &["relay.test"])
        .config(|c| c["system"]["limits"] = json!({"handshake_timeout": "1s", "header_timeout": "1s"}))
        .start()
        .await;
    for beginning in ["", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\x10"] {
        let mut raw = Raw::connect(app.https_addr()).await;
        raw.send(beginning).await;
        let said = raw.rest().await;
        assert!(said.is_empty() || said[0] == 0x15, "an alert at most: {said:?}");
    }
    // After the handshake, the head has its time.
    let mut raw =
        Raw::over(Tls::new(&authority, &["http/1.1"]).connect(app.https_addr(), "relay.test").await.unwrap());
    assert_eq!(raw.answer().await.status, 408);
    let wire = Tls::new(&authority, &["h2"]).connect(app.https_addr(), "relay.test").await.unwrap();
    let mut raw = Raw::over(wire);
    raw.rest().await;
    app.finish().await;
}
