//! The PROXY protocol: believed from those who are trusted, and from nobody else.

use aiproxy_testkit::{Authority, Raw, RawUpstream, Tls, Wire};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::{get, secure};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [V2, &[command, family], &length, block].concat()
}

fn behind_a_proxy(trusted: &'static str) -> impl FnOnce(&mut Value) {
    move |c| {
        c["system"]["listen"]["proxy_protocol"] = true.into();
        c["system"]["trusted_proxies"] = json!([trusted, "198.51.100.0/24"]);
        c["system"]["limits"] = json!({"header_timeout": "1s"});
        c["users"]["user1"]["allow_ips"] = json!(["203.0.113.0/24", "2001:db8::/32"]);
    }
}

#[tokio::test]
async fn the_named_caller_is_the_caller() {
    let (authority, upstream) = (Authority::default(), RawUpstream::recording().await);
    let app = secure(&authority, &["relay.test"])
        .config(behind_a_proxy("127.0.0.1"))
        .upstream(&upstream)
        .start()
        .await;
    let four = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 1, 0xbb];
    let outside = [192, 0, 2, 9, 10, 0, 0, 1, 0x12, 0x67, 1, 0xbb];
    let mut six = [0; 36];
    six[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
    let tlvs = [&four[..], &[0x04, 0, 200], &[7; 200]].concat();
    let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
    let tls = Tls::new(&authority, &["http/1.1"]);
    let mut served = 0;
    for (header, forwarded, expected) in [
        (line("TCP4 203.0.113.9 10.0.0.1 4711 443"), "", 200),
        (line("TCP6 2001:db8::9 2001:db8::1 4711 443"), "", 200),
        (line("TCP4 192.0.2.9 10.0.0.1 4711 443"), "", 403),
        // Whom the header names is not trusted: what it says about others is ignored.
        (line("TCP4 192.0.2.9 10.0.0.1 4711 443"), "203.0.113.9", 403),
        // The header names a proxy that is trusted in its turn.
        (line("TCP4 198.51.100.7 10.0.0.1 4711 443"), "203.0.113.9", 200),
        (line("TCP4 198.51.100.7 10.0.0.1 4711 443"), "203.0.113.9, 192.0.2.9", 403),
        // Nobody is named: whoever wrote the request is not to be believed.
        (line("UNKNOWN"), "203.0.113.9", 403),
        (line("UNKNOWN"), "", 403),
        (v2(0x20, 0, &[]), "203.0.113.9", 403),
        (v2(0x21, 0x11, &four), "", 200),
        (v2(0x21, 0x11, &outside), "", 403),
        (v2(0x21, 0x11, &tlvs), "", 200),
        (v2(0x21, 0x21, &six), "", 200),
        (v2(0x21, 0x31, &[0; 216]), "", 403),
    ] {
        let request = get("/v1/a", &format!("x-forwarded-for: {forwarded}\r\n"));
        for secure in [false, true] {
            let mut raw = if secure {
                let mut tcp = Wire::tcp(app.https_addr()).await;
                tcp.write_all(&header).await.unwrap();
                Raw::over(tls.over(tcp, "relay.test").await.unwrap())
            } else {
                let mut raw = app.raw().await;
                raw.send(&header).await;
                raw
            };
            raw.send(&request).await;
            let answer = raw.answer().await;
            let shown = String::from_utf8_lossy(&header).into_owned();
            assert_eq!(answer.status, expected, "{shown:?} {forwarded:?}: {}", answer.text());
        }
        served += if expected == 200 { 2 } else { 0 };
    }
    // In one piece with the request, and byte by byte.
    let whole = [line("TCP4 203.0.113.9 10.0.0.1 4711 443"), get("/v1/a", "").into_bytes()].concat();
    let mut raw = app.raw().await;
    raw.send(&whole).await;
    assert_eq!(raw.answer().await.status, 200);
    let mut raw = app.raw().await;
    for byte in &whole {
        raw.send([*byte]).await;
    }
    assert_eq!(raw.answer().await.status, 200);
    assert_eq!(upstream.received().len(), served + 2);
    let logged = app.logged("the address", |line| line["ip"] == "203.0.113.9").await;
    assert_eq!(logged["status"], 200);
    app.finish().await;
}

#[tokio::test]
async fn what_is_no_header_is_no_connection() {
    let upstream = RawUpstream::recording().await;
    let app = crate::relay().config(behind_a_proxy("127.0.0.1")).upstream(&upstream).start().await;
    let mut turned_away = 0.0;
    for beginning in [
        get("/v1/a", "").into_bytes(),
        b"PROXY TCP4 203.0.113.9 10.0.0.1 4711\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443 \r\n".to_vec(),
        b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\n".to_vec(),
        format!("PROXY UNKNOWN {}", "x".repeat(100)).into_bytes(),
        v2(0x11, 0x11, &[0; 12]),
        v2(0x21, 0x11, &[0; 11]),
        v2(0x21, 0x11, &[0; 5000]),
        // Nothing more comes: the time for a head is over.
        b"PROXY TCP4 203".to_vec(),
        V2.to_vec(),
        Vec::new(),
    ] {
        let mut raw = app.raw().await;
        let whole =
            [&beginning[..], if beginning.len() > 50 { b"GET /v1/smuggled HTTP/1.1\r\n\r\n" } else { b"" }]
                .concat();
        raw.send(&whole).await;
        assert_eq!(raw.rest().await, "", "{:?}", String::from_utf8_lossy(&beginning));
        turned_away += 1.0;
        app.metric_is("aiproxy_connections_turned_away_total{reason=\"proxy_header\"}", turned_away).await;
    }
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_header_of_somebody_else_is_refused() {
    let upstream = RawUpstream::recording().await;
    // The tests' own address is not among the trusted ones.
    let app = crate::relay().config(behind_a_proxy("10.9.9.9")).upstream(&upstream).start().await;
    for beginning in ["PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n", ""] {
        let mut raw = app.raw().await;
        raw.send(format!("{beginning}{}", get("/v1/a", ""))).await;
        assert_eq!(raw.rest().await, "");
    }
    assert_eq!(upstream.connections(), 0);
    app.metric_is("aiproxy_connections_turned_away_total{reason=\"proxy_header\"}", 2.0).await;
    app.finish().await;
}
