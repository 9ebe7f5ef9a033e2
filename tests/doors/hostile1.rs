//! Hostile HTTP/1.1: the answer or the close that `docs/status-codes.md` promises, nothing of it at
//! the platform, and everybody else still served.

use aiproxy_testkit::{App, PROXY_KEY, RawUpstream};
use serde_json::Value;

use super::get;
use crate::relay;

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Refused with this status and code, and the connection ends.
    Ends(u16, &'static str),
    /// Refused with this status and code; the connection may go on.
    Refused(u16, &'static str),
    /// Relayed, in a clean form.
    Relayed,
}
use Fate::{Ends, Refused, Relayed};

/// Before there is a request.
const BAD: Fate = Ends(400, "bad_request");
/// When there is one, whose body breaks.
const BROKEN: Fate = Refused(400, "bad_request");

fn post(framing: &str, body: &str) -> String {
    format!(
        "POST /v1/hostile HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {PROXY_KEY}\r\n{framing}\r\n\r\n{body}"
    )
}

fn line(line: &str) -> String {
    format!("{line}\r\nhost: relay\r\nauthorization: Bearer {PROXY_KEY}\r\n\r\n")
}

fn with(field: &str) -> String {
    get("/v1/hostile", &format!("{field}\r\n"))
}

/// Sends it, followed by a request that must never be served as one of its own where framing is in
/// doubt.
async fn fate(app: &App, bytes: &str) -> Fate {
    let mut raw = app.raw().await;
    raw.send(bytes).await;
    let answer = raw.answer().await;
    if answer.status == 200 {
        return Relayed;
    }
    let body: Value =
        serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{bytes:?}: {}", answer.text()));
    let code = body["error"]["code"].as_str().unwrap_or_default().to_owned();
    let code: &'static str = Box::leak(code.into_boxed_str());
    let ends = answer.head.get("connection").as_deref() == Some("close");
    if ends || bytes.contains("/v1/smuggled") {
        assert_eq!(raw.rest().await, "", "{bytes:?}: nothing after the last answer");
    }
    if ends {
        return Ends(answer.status, code);
    }
    Refused(answer.status, code)
}

#[tokio::test]
async fn hostile_heads_and_bodies_meet_their_fate() {
    let upstream = RawUpstream::recording().await;
    let app = relay()
        .config(|c| {
            c["channels"]["main"]["deny_paths"] = serde_json::json!(["/v1/secret/**", "/v1/secret"]);
            c["channels"]["main"]["allow_paths"] = serde_json::json!(["/v1/**"]);
        })
        .upstream(&upstream)
        .start()
        .await;
    let smuggled = get("/v1/smuggled", "");
    let behind = |text: String| text + &smuggled;
    let rows: Vec<(&str, String, Fate)> = vec![
        // Framing (RFC 9112, section 6.3).
        ("two lengths", behind(post("content-length: 4\r\ncontent-length: 5", "body")), BAD),
        ("a list of lengths", behind(post("content-length: 4, 4", "body")), BAD),
        ("two equal lengths", post("content-length: 4\r\ncontent-length: 4", "body"), Relayed),
        (
            "a length and chunks",
            post("content-length: 3\r\ntransfer-encoding: chunked", "4\r\nbody\r\n0\r\n\r\n"),
            Relayed,
        ),
        (
            "chunks and a length",
            post("transfer-encoding: chunked\r\ncontent-length: 3", "4\r\nbody\r\n0\r\n\r\n"),
            Relayed,
        ),
        ("a signed length", behind(post("content-length: +4", "body")), BAD),
        ("an endless length", behind(post("content-length: 99999999999999999999", "body")), BAD),
        ("an unknown coding", behind(post("transfer-encoding: gzip", "body")), BAD),
        ("chunked not last", behind(post("transfer-encoding: chunked, gzip", "0\r\n\r\n")), BAD),
        ("a coding with a tab", behind(post("transfer-encoding:\x0bchunked", "0\r\n\r\n")), BAD),
        ("a space before the colon", behind(post("transfer-encoding : chunked", "0\r\n\r\n")), BAD),
        (
            "chunks in HTTP/1.0",
            post("transfer-encoding: chunked", "0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0"),
            BAD,
        ),
        (
            "a length that is too large",
            post("content-length: 2147483648", ""),
            Refused(413, "body_too_large"),
        ),
        // Chunks (RFC 9112, section 7.1).
        (
            "a size that is no number",
            behind(post("transfer-encoding: chunked", "zz\r\nbody\r\n0\r\n\r\n")),
            BROKEN,
        ),
        ("a size with a sign", behind(post("transfer-encoding: chunked", "+4\r\nbody\r\n0\r\n\r\n")), BROKEN),
        ("a size with 0x", behind(post("transfer-encoding: chunked", "0x4\r\nbody\r\n0\r\n\r\n")), BROKEN),
        (
            "a size with an underscore",
            behind(post("transfer-encoding: chunked", "1_0\r\nbody\r\n0\r\n\r\n")),
            BROKEN,
        ),
        (
            "a size beyond 64 bits",
            behind(post("transfer-encoding: chunked", "ffffffffffffffffff\r\nbody")),
            BROKEN,
        ),
        (
            "a chunk longer than its size",
            behind(post("transfer-encoding: chunked", "4\r\nbodyX\r\n0\r\n\r\n")),
            BROKEN,
        ),
        (
            "no line end after a size",
            behind(post("transfer-encoding: chunked", "4\rbody\r\n0\r\n\r\n")),
            BROKEN,
        ),
        (
            "a bare line feed in an extension",
            behind(post("transfer-encoding: chunked", "4;a\nbody\r\n0\r\n\r\n")),
            BROKEN,
        ),
        (
            "chunk extensions",
            post("transfer-encoding: chunked", "4;name=\"value\"\r\nbody\r\n0\r\n\r\n"),
            Relayed,
        ),
        // Heads (RFC 9112, sections 2 and 5).
        ("a folded line", behind(with("x-a: b\r\n c")), BAD),
        ("a folded first line", behind(with(" x-a: b")), BAD),
        ("a NUL in a value", behind(with("x-a: b\0c")), BAD),
        ("a NUL in a name", behind(with("x\0a: b")), BAD),
        ("a control character in a value", behind(with("x-a: b\x01c")), BAD),
        ("a DEL in a value", behind(with("x-a: b\x7fc")), BAD),
        ("a control character in a name", behind(with("x\x01a: b")), BAD),
        ("a carriage return in a value", behind(with("x-a: b\rc")), BAD),
        ("a space in a name", behind(with("x a: b")), BAD),
        ("a field without a name", behind(with(": b")), BAD),
        ("a field without a colon", behind(with("x-a")), BAD),
        ("bare line feeds", get("/v1/fine", "").replace("\r\n", "\n"), Relayed),
        ("two hosts", get("/v1/hostile", "host: elsewhere\r\n"), Refused(400, "bad_request")),
        // Request lines (RFC 9112, section 3).
        ("no version", behind(line("GET /v1/hostile")), BAD),
        ("an unknown version", behind(line("GET /v1/hostile HTTP/3.0")), BAD),
        ("two spaces", behind(line("GET  /v1/hostile HTTP/1.1")), BAD),
        ("a control character in a target", behind(line("GET /v1/hos\x01tile HTTP/1.1")), BAD),
        ("a method that is none", behind(line("G@T( /v1/hostile HTTP/1.1")), BAD),
        ("an absolute target", line("GET http://elsewhere/v1/hostile HTTP/1.1"), Refused(400, "bad_request")),
        (
            "an absolute target of ours",
            line("GET http://relay/v1/hostile HTTP/1.1"),
            Refused(400, "bad_request"),
        ),
        ("an authority", line("GET elsewhere:80 HTTP/1.1"), Refused(400, "bad_request")),
        ("an asterisk", line("OPTIONS * HTTP/1.1"), Refused(400, "bad_request")),
        ("CONNECT", line("CONNECT elsewhere:443 HTTP/1.1"), Refused(400, "bad_request")),
        ("CONNECT of a path", line("CONNECT /v1/hostile HTTP/1.1"), Refused(405, "method_not_allowed")),
        ("TRACE", line("TRACE /v1/hostile HTTP/1.1"), Refused(405, "method_not_allowed")),
        // Paths that lead out of what the channel may be used for.
        ("two slashes", line("GET //elsewhere/v1/hostile HTTP/1.1"), Refused(400, "bad_request")),
        ("two slashes inside", line("GET /v1//secret HTTP/1.1"), Refused(400, "bad_request")),
        ("dots", line("GET /v1/a/../secret HTTP/1.1"), Refused(400, "bad_request")),
        ("encoded dots", line("GET /v1/a/%2e%2E/secret HTTP/1.1"), Refused(400, "bad_request")),
        ("half-encoded dots", line("GET /v1/a/.%2e/secret HTTP/1.1"), Refused(400, "bad_request")),
        ("an encoded slash", line("GET /v1%2fsecret HTTP/1.1"), Refused(400, "bad_request")),
        ("an encoded backslash", line("GET /v1/a%5c..%5csecret HTTP/1.1"), Refused(400, "bad_request")),
        ("a backslash", line("GET /v1/a\\..\\secret HTTP/1.1"), Refused(400, "bad_request")),
        ("an encoded NUL", line("GET /v1/secret%00 HTTP/1.1"), Refused(400, "bad_request")),
        ("encoded letters", line("GET /v1/%73ecret HTTP/1.1"), Refused(403, "path_forbidden")),
        ("capitals", line("GET /v1/SECRET HTTP/1.1"), Refused(403, "path_forbidden")),
        ("a forbidden path", line("GET /v1/secret/a HTTP/1.1"), Refused(403, "path_forbidden")),
        ("a path that is not allowed", line("GET /v2/hostile HTTP/1.1"), Refused(403, "path_forbidden")),
        // Upgrades (RFC 9110, section 7.8).
        (
            "an upgrade to HTTP/2 with a request behind it",
            get(
                "/v1/fine",
                "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
            ),
            Relayed,
        ),
        (
            "an upgrade to a socket",
            get("/v1/hostile", "connection: upgrade\r\nupgrade: websocket\r\n"),
            Refused(426, "websocket_version"),
        ),
        ("the preface in the middle", line("PRI * HTTP/2.0"), BAD),
    ];
    let mut relayed = 0;
    for (name, bytes, expected) in rows {
        assert_eq!(fate(&app, &bytes).await, expected, "{name}");
        relayed += usize::from(expected == Relayed);
        assert_eq!(upstream.received().len(), relayed, "{name}: what the platform has seen");
    }
    for seen in upstream.received() {
        let framings =
            ["content-length", "transfer-encoding"].map(|name| usize::from(seen.header(name).is_some()));
        assert!(framings.iter().sum::<usize>() <= 1, "one framing: {:?}", seen.head);
        assert!(seen.header("upgrade").is_none() && !seen.target().contains("smuggled"), "{:?}", seen.head);
        assert!(seen.body.is_empty() || seen.body == "body", "{:?}", seen.body);
    }
    for connection in 0..upstream.connections() {
        let bytes = upstream.bytes(connection);
        let text = String::from_utf8_lossy(&bytes).replace("\r\n", "");
        assert!(!text.contains(['\n', '\r', '\0']), "clean lines: {text:?}");
    }
    assert_eq!(app.get("/v1/fine").send().await.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn huge_and_endless_input_takes_no_memory() {
    let upstream = RawUpstream::recording().await;
    let app = relay().config(|c| c["system"]["log_level"] = "info".into()).upstream(&upstream).start().await;
    let mut well = app.client().await;
    assert_eq!(well.send(app.get("/v1/fine")).await.status, 200);
    let before = app.process().resident_bytes();
    let megabyte = "x".repeat(1 << 20);
    let mut open = Vec::new();
    for beginning in [
        // A request line, a name, a value and a number of fields without an end.
        "GET /".to_owned(),
        "GET /v1/hostile HTTP/1.1\r\n".to_owned(),
        "GET /v1/hostile HTTP/1.1\r\nx: ".to_owned(),
        // A chunk's extension and trailers without an end.
        post("transfer-encoding: chunked", "4;"),
        post("transfer-encoding: chunked", "0\r\nx: "),
        // Chunks of one byte.
        post("transfer-encoding: chunked", &"1\r\nx\r\n".repeat(30_000)),
    ] {
        for _ in 0..4 {
            let mut raw = app.raw().await;
            raw.send(&beginning).await;
            raw.send(&megabyte).await;
            open.push(raw);
        }
    }
    let grown = app.process().resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes for 24 MiB of nonsense");
    assert_eq!(well.send(app.get("/v1/fine")).await.status, 200);
    assert!(upstream.received().iter().all(|seen| seen.target() == "/v1/fine"));
    drop(open);
    app.metric_is("aiproxy_live_requests", 0.0).await;
    app.finish().await;
}
