//! How sockets open, and how they behave.

use aiproxy_testkit::ws::{closing, frame, opcode};
use aiproxy_testkit::{
    App, Authority, CHANNEL_KEY, Hosts, PROXY_KEY, Proxy, Raw, RawUpstream, TestCa, Tls, TlsFront,
};
use serde_json::json;

use super::{REALTIME, echoing};
use crate::relay;

/// A key that may stand in a subprotocol.
const PLAIN_KEY: &str = "sk-channel-5Hs0Jg7Kp2Md9Nf4Qb8Rv1Xz";

async fn start(upstream: &RawUpstream) -> App {
    relay().upstream(upstream).start().await
}

#[tokio::test]
async fn b01_one_of_model_call_id_and_intent_goes_up_and_the_rest_of_the_query_survives() {
    let upstream = echoing().await;
    let app = start(&upstream).await;
    for (number, (query, expected)) in [
        ("model=m&api-version=1&webrtcfilter=on", "model=m&api-version=1&webrtcfilter=on"),
        ("model=m&call_id=rtc_1&x=%20y", "call_id=rtc_1&x=%20y"),
        ("intent=transcription&model=m", "intent=transcription"),
        ("model=m&model=m2", "model=m"),
        (&format!("model=m&key={PROXY_KEY}&z"), "model=m&z"),
    ]
    .into_iter()
    .enumerate()
    {
        drop(app.socket(&format!("/v1/realtime?{query}")).open().await);
        assert_eq!(upstream.request(number).await.target(), format!("/v1/realtime?{expected}"));
    }
    app.finish().await;
}

#[tokio::test]
async fn b02_the_key_is_found_in_every_place_and_two_keys_are_refused() {
    let upstream = echoing().await;
    let app = start(&upstream).await;
    let key = PROXY_KEY;
    for opening in [
        app.socket(REALTIME),
        app.socket(REALTIME).no_key().header("api-key", key),
        app.socket(REALTIME).no_key().header("x-goog-api-key", key),
        app.socket(REALTIME).no_key().header("authorization", &format!("Token {key}")),
        app.socket(&format!("{REALTIME}&api-key={key}")).no_key(),
        app.socket(REALTIME).no_key().protocols(&format!("realtime, openai-insecure-api-key.{key}")),
        app.socket(REALTIME).no_key().protocols(&format!("token, {key}")),
        app.socket(REALTIME).no_key().protocols(&format!("bearer,{key}")),
        app.socket(REALTIME).no_key().protocols(&format!("xai-client-secret.{key}")),
        app.socket(REALTIME).protocols(&format!("realtime,openai-insecure-api-key.{key}")),
    ] {
        let mut socket = opening.open().await;
        socket.send(opcode::TEXT, "hello").await;
        assert_eq!(socket.next().await.unwrap().text(), "hello");
    }
    let opened = upstream.connections();
    for (opening, expected) in [
        (app.socket(REALTIME).no_key(), (401, "missing_key")),
        (app.socket(REALTIME).key("pk_unknown_1234567890"), (401, "invalid_key")),
        (
            app.socket(REALTIME).protocols("realtime, openai-insecure-api-key.pk_other_1234567890"),
            (401, "conflicting_keys"),
        ),
        (app.socket(&format!("{REALTIME}&key=pk_other_1234567890")), (401, "conflicting_keys")),
    ] {
        assert_eq!(opening.refusal().await, (expected.0, expected.1.to_owned()));
    }
    assert_eq!(upstream.connections(), opened, "nobody was asked");
    app.finish().await;
}

#[tokio::test]
async fn b03_callers_and_channels_place_their_keys_independently() {
    for (placement, header, query, protocols) in [
        (json!("bearer"), Some(("authorization", format!("Bearer {PLAIN_KEY}"))), "", None),
        (json!({"header": "api-key"}), Some(("api-key", PLAIN_KEY.to_owned())), "", None),
        (json!({"query": "key"}), None, &*format!("&key={PLAIN_KEY}"), None),
        (
            json!({"subprotocol_prefix": "openai-insecure-api-key."}),
            None,
            "",
            Some(format!("openai-insecure-api-key.{PLAIN_KEY}")),
        ),
        (json!({"subprotocol_pair": "token"}), None, "", Some(format!("token, {PLAIN_KEY}"))),
    ] {
        let upstream = echoing().await;
        let app = relay()
            .upstream(&upstream)
            .config(|c| {
                c["channels"]["main"]["api_key"] = PLAIN_KEY.into();
                c["channels"]["main"]["key_placement"] = placement.clone();
            })
            .start()
            .await;
        let in_protocol = format!("realtime, openai-insecure-api-key.{PROXY_KEY}");
        for (number, opening) in [
            app.socket(REALTIME),
            app.socket(REALTIME).no_key().protocols(&in_protocol),
            app.socket(REALTIME).no_key().protocols(&format!("realtime, token, {PROXY_KEY}")),
        ]
        .into_iter()
        .enumerate()
        {
            drop(opening.open().await);
            let request = upstream.request(number).await;
            assert_eq!(request.target(), format!("{REALTIME}{query}"), "{placement}");
            if let Some((name, value)) = &header {
                assert_eq!(request.header(name).as_ref(), Some(value), "{placement}");
            }
            if number > 0 || protocols.is_some() {
                // Beside its key a platform gets a protocol that it can take up.
                let offered: Vec<_> = ["realtime"].into_iter().chain(protocols.as_deref()).collect();
                assert_eq!(request.header("sec-websocket-protocol"), Some(offered.join(", ")), "{placement}");
            } else {
                assert_eq!(request.header("sec-websocket-protocol"), None, "{placement}");
            }
        }
        app.finish().await;
    }
}

#[tokio::test]
async fn b04_one_offered_subprotocol_that_is_no_secret_is_echoed() {
    for (chosen, offered, echoed) in [
        ("realtime", "realtime, KEY", Some("realtime")),
        ("", "realtime, KEY", Some("realtime")),
        ("second", "realtime, second, KEY", Some("second")),
        // A platform that takes up what nobody offered, or its own key.
        ("other", "realtime, KEY", Some("realtime")),
        (CHANNEL_KEY, "realtime, KEY", Some("realtime")),
        ("", "KEY", None),
        ("", "", None),
        ("other", "", None),
        ("", "token, PLAIN", Some("token")),
    ] {
        let upstream = RawUpstream::start(move |mut conn| async move {
            let line = match chosen {
                "" => String::new(),
                chosen => format!("sec-websocket-protocol: {chosen}\r\n"),
            };
            conn.accept(&line, "").await;
            conn.closed().await;
        })
        .await;
        let app = start(&upstream).await;
        let mut opening = app.socket(REALTIME);
        if !offered.is_empty() {
            let offered = offered
                .replace("KEY", &format!("openai-insecure-api-key.{PROXY_KEY}"))
                .replace("PLAIN", PROXY_KEY);
            opening = opening.no_key().protocols(&offered);
        }
        let socket = opening.open().await;
        assert_eq!(socket.protocol().as_deref(), echoed, "{chosen} of {offered}");
        drop(socket);
        app.finish().await;
    }
}

#[tokio::test]
async fn b05_the_beta_is_taken_out_where_the_channel_says_so() {
    for (platform, setting, stripped) in [
        ("openai", None, true),
        ("openai", Some("pass"), false),
        ("custom", None, false),
        ("custom", Some("strip"), true),
    ] {
        let upstream = echoing().await;
        let app = relay()
            .upstream(&upstream)
            .config(|c| {
                c["channels"]["main"]["platform"] = platform.into();
                if let Some(setting) = setting {
                    c["channels"]["main"]["websocket"] = json!({"beta": setting});
                }
            })
            .start()
            .await;
        let socket = app
            .socket(REALTIME)
            .header("openai-beta", "realtime=v1")
            .header("openai-organization", "org-1")
            .header("openai-safety-identifier", "u1")
            .protocols("realtime, openai-beta.realtime-v1, openai-organization.org-1, openai-agents-sdk.1")
            .open()
            .await;
        assert_eq!(socket.protocol().as_deref(), Some("realtime"));
        let request = upstream.request(0).await;
        assert_eq!(request.header("openai-beta").is_none(), stripped, "{platform} {setting:?}");
        let offered = request.header("sec-websocket-protocol").unwrap();
        assert_eq!(!offered.contains("openai-beta"), stripped, "{offered}");
        assert!(!offered.contains("openai-organization"), "the account's business: {offered}");
        assert!(offered.contains("openai-agents-sdk.1"), "{offered}");
        assert_eq!(request.header("openai-organization"), None);
        assert_eq!(request.header("openai-safety-identifier").as_deref(), Some("u1"));
        drop(socket);
        app.finish().await;
    }
}

fn answering(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nset-cookie: a=b\r\nx-request-id: req_theirs\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn b06_a_refusal_of_the_platform_is_an_answer_and_one_of_our_account_is_ours() {
    for (answer, status, expected) in [
        (answering("404 Not Found", r#"{"error":{"code":"call_id_not_found"}}"#), 404, "call_id_not_found"),
        (answering("400 Bad Request", r#"{"error":{"code":"bad_model"}}"#), 400, "bad_model"),
        (answering("429 Too Many", r#"{"error":{"code":"slow_down"}}"#), 429, "slow_down"),
        (answering("500 Oops", r#"{"error":{"code":"server_error"}}"#), 500, "server_error"),
        (answering("401 Unauthorized", r#"{"error":{"code":"invalid_api_key"}}"#), 502, "channel_key_rejected"),
        (
            answering("429 Too Many", r#"{"error":{"code":"insufficient_quota"}}"#),
            502,
            "channel_key_rejected",
        ),
        (answering("400 Bad", &format!(r#"{{"error":{{"message":"{CHANNEL_KEY}"}}}}"#)), 502, "channel_key_rejected"),
        (answering("200 OK", "{}"), 502, "upstream_protocol"),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: x\r\n\r\n".to_owned(), 502, "upstream_protocol"),
        ("nonsense\r\n\r\n".to_owned(), 502, "upstream_protocol"),
    ] {
        let upstream = RawUpstream::answering(&answer).await;
        let app = start(&upstream).await;
        let refused = app.socket(REALTIME).refused().await;
        let body: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
        assert_eq!((refused.status, body["error"]["code"].as_str()), (status, Some(expected)), "{answer}");
        assert_eq!(refused.head.get("set-cookie"), None);
        let line = app.logged("the line", |line| line["protocol"] == "websocket").await;
        assert_eq!((&line["status"], &line["channel"]), (&json!(status), &json!("main")), "{answer}");
        app.finish().await;
    }
}

#[tokio::test]
async fn b06_another_channel_is_tried_before_the_101() {
    let (refusing, _port) = aiproxy_testkit::refusing();
    let busy = RawUpstream::answering(answering("503 Busy", "{}")).await;
    let unpaid = RawUpstream::answering(answering("401 Unauthorized", "{}")).await;
    let upstream = echoing().await;
    let app = relay()
        .upstream(&upstream)
        .also("closed", refusing)
        .also("busy", busy.addr())
        .also("unpaid", unpaid.addr())
        .config(|c| {
            for name in ["closed", "busy", "unpaid"] {
                c["channels"][name] = c["channels"]["main"].clone();
                c["channels"][name]["base_url"] = format!("@{name}").into();
            }
            c["channels"]["closed"]["retry"] = json!({"attempts": 4});
            c["users"]["user1"]["channels"] = json!(["closed", "busy", "unpaid", "main"]);
        })
        .start()
        .await;
    let mut socket = app.socket(REALTIME).open().await;
    socket.send(opcode::TEXT, "x").await;
    assert_eq!(socket.next().await.unwrap().text(), "x");
    socket.send(opcode::CLOSE, closing(1000, "")).await;
    assert_eq!(socket.closed().await, (1000, String::new()));
    let line = app.logged("the line", |line| line["status"] == 101).await;
    assert_eq!(line["channel"], "main");
    assert_eq!(line["passed_over"].as_array().map(Vec::len), Some(3), "{line}");
    app.finish().await;
}

#[tokio::test]
async fn b07_close_codes_and_reasons_pass_verbatim_both_ways() {
    let reason = "r".repeat(123);
    for (code, reason) in [
        (1000, ""),
        (1001, "Your session hit the maximum duration of 60 minutes."),
        (4000, "beta"),
        (3000, &*reason),
    ] {
        let payload = closing(code, reason);
        let theirs = payload.clone();
        let upstream = RawUpstream::start(move |mut conn| {
            let theirs = theirs.clone();
            async move {
                conn.accept("", "").await;
                let Some(first) = conn.frame().await else { return };
                if first.opcode == opcode::TEXT {
                    conn.send(frame(opcode::CLOSE, &theirs, false)).await;
                    assert_eq!(conn.frame().await.unwrap().payload, theirs, "the caller's answer");
                } else {
                    assert_eq!(first.payload, theirs);
                    conn.send(frame(opcode::CLOSE, &theirs, false)).await;
                }
            }
        })
        .await;
        let app = start(&upstream).await;
        let mut closer = app.socket(REALTIME).open().await;
        closer.send(opcode::CLOSE, &payload).await;
        assert_eq!(closer.closed().await, (code, reason.to_owned()));
        assert_eq!(closer.rest().await, "", "the end follows");
        let mut closed = app.socket(REALTIME).open().await;
        closed.send(opcode::TEXT, "close").await;
        assert_eq!(closed.closed().await, (code, reason.to_owned()));
        closed.send(opcode::CLOSE, &payload).await;
        assert_eq!(closed.rest().await, "");
        aiproxy_testkit::until("both scripts at their end", || (upstream.ended() == 2).then_some(())).await;
        app.finish().await;
    }
}

#[tokio::test]
async fn b07_a_close_without_a_code_stays_one_without_a_code() {
    let upstream = echoing().await;
    let app = start(&upstream).await;
    let mut socket = app.socket(REALTIME).open().await;
    socket.send(opcode::CLOSE, "").await;
    assert_eq!(socket.closed().await, (1005, String::new()));
    let line = app.logged("the line", |line| line["status"] == 101).await;
    assert_eq!((&line["close_code"], &line["outcome"]), (&json!(1005), &json!("complete")));
    app.finish().await;
}

#[tokio::test]
async fn b08_what_cannot_be_cured_is_said_with_no_status_that_sdks_retry() {
    let upstream = echoing().await;
    let app = relay()
        .upstream(&upstream)
        .config(|c| {
            c["users"]["gone"] =
                json!({"proxy_key": "pk_gone_1234567890", "channels": ["main"], "status": "disabled"});
            c["users"]["user1"]["models"] = json!(["gpt-*"]);
        })
        .start()
        .await;
    for (opening, status, code) in [
        (app.socket(REALTIME).key("pk_gone_1234567890"), 403, "user_disabled"),
        (app.socket("/v1/realtime?model=other"), 403, "model_not_allowed"),
        (app.socket("/v1/realtime"), 403, "model_not_allowed"),
        (app.socket("/@none/v1/realtime?model=gpt-x"), 403, "channel_not_allowed"),
        (app.socket(REALTIME).header("origin", "https://evil.example"), 403, "origin_not_allowed"),
        (app.socket(REALTIME).header("sec-websocket-version", "8"), 426, "websocket_version"),
        (app.socket(REALTIME).header("sec-websocket-key", "short"), 400, "bad_request"),
        (app.socket(REALTIME).protocols("a b"), 400, "bad_request"),
    ] {
        let answer = opening.refused().await;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, body["error"]["code"].as_str()), (status, Some(code)));
        assert_eq!(answer.head.get("x-should-retry").as_deref(), Some("false"));
        assert!(![408, 429, 500, 502, 503, 504].contains(&answer.status));
    }
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}

#[tokio::test]
async fn b08_origins_are_those_of_the_configuration_or_none() {
    let upstream = echoing().await;
    let app = relay()
        .upstream(&upstream)
        .config(|c| c["system"]["cors"] = json!({"origins": ["https://app.example"]}))
        .start()
        .await;
    drop(app.socket(REALTIME).open().await);
    drop(app.socket(REALTIME).header("origin", "https://app.example").open().await);
    // As websocket-client sends it.
    drop(app.socket(REALTIME).header("origin", &app.url()).open().await);
    for origin in ["https://other.example", "null", "https://app.example.evil"] {
        let refusal = app.socket(REALTIME).header("origin", origin).refusal().await;
        assert_eq!(refusal, (403, "origin_not_allowed".to_owned()));
    }
    app.finish().await;
}

#[tokio::test]
async fn b09_pings_are_answered_while_the_other_side_is_silent() {
    let upstream = echoing().await;
    let app = start(&upstream).await;
    let mut socket = app.socket(REALTIME).open().await;
    for payload in ["", "1", &"x".repeat(125)] {
        socket.send(opcode::PING, payload).await;
        let pong = socket.next().await.unwrap();
        assert_eq!((pong.opcode, &*pong.text()), (opcode::PONG, payload));
    }
    drop(socket);
    app.finish().await;
}

#[tokio::test]
async fn b10_kind_order_and_bytes_are_kept_and_a_message_of_16_mib_passes() {
    let upstream = echoing().await;
    let app = start(&upstream).await;
    let mut socket = app.socket(REALTIME).open().await;
    socket.send(opcode::TEXT, "一").await;
    socket.send(opcode::BINARY, [0, 255, 1]).await;
    socket.send(opcode::TEXT, "").await;
    let seen: Vec<_> = [socket.next().await, socket.next().await, socket.next().await]
        .map(|frame| frame.map(|frame| (frame.opcode, frame.payload.to_vec())).unwrap())
        .into();
    assert_eq!(
        seen,
        [(opcode::TEXT, "一".into()), (opcode::BINARY, vec![0, 255, 1]), (opcode::TEXT, Vec::new())]
    );
    let large: Vec<u8> = (0..16u32 << 20).map(|at| (at * 7 + at / 251) as u8).collect();
    socket.send(opcode::BINARY, &large).await;
    let back = socket.next().await.unwrap();
    assert!(back.payload == large, "all bytes as they were");
    drop(socket);
    app.finish().await;
}

#[tokio::test]
async fn b11_compression_is_declined_on_both_hops() {
    let upstream = echoing().await;
    let app = start(&upstream).await;
    // `open` makes sure that none is accepted.
    let socket = app
        .socket(REALTIME)
        .header("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")
        .open()
        .await;
    assert_eq!(upstream.request(0).await.header("sec-websocket-extensions"), None);
    drop(socket);
    app.finish().await;
    let insisting = RawUpstream::start(|mut conn| async move {
        conn.accept("sec-websocket-extensions: permessage-deflate\r\n", "").await;
        conn.closed().await;
    })
    .await;
    let app = start(&insisting).await;
    assert_eq!(app.socket(REALTIME).refusal().await, (502, "upstream_protocol".to_owned()));
    app.finish().await;
}

#[tokio::test]
async fn b12_a_redirection_is_never_an_answer_to_an_upgrade() {
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let upstream = RawUpstream::answering(format!(
            "HTTP/1.1 {status}\r\nlocation: https://elsewhere.example/\r\ncontent-length: 0\r\n\r\n"
        ))
        .await;
        let app = start(&upstream).await;
        let refused = app.socket(REALTIME).refused().await;
        assert_eq!((refused.status, refused.head.get("location")), (502, None), "{status}");
        app.finish().await;
    }
}

#[tokio::test]
async fn a_socket_opens_over_tls_too() {
    let authority = Authority::default();
    let upstream = echoing().await;
    let app = crate::doors::secure(&authority, &["relay.test"]).upstream(&upstream).start().await;
    let tls = Tls::new(&authority, &["http/1.1"]);
    let wire = tls.connect(app.https_addr(), "relay.test").await.unwrap();
    let mut socket = app.socket(REALTIME).open_over(Raw::over(wire)).await;
    socket.send(opcode::TEXT, "over TLS").await;
    assert_eq!(socket.next().await.unwrap().text(), "over TLS");
    socket.send(opcode::CLOSE, closing(1000, "")).await;
    assert_eq!(socket.closed().await.0, 1000);
    assert_eq!(socket.rest().await, "");
    app.finish().await;
}

#[tokio::test]
async fn towards_a_platform_over_tls_the_callers_masks_pass_also_through_a_proxy() {
    let ca = TestCa::new();
    let upstream = RawUpstream::start(|mut conn| async move {
        conn.accept("", "").await;
        while let Some(next) = conn.frame().await {
            // What the test's callers mask with.
            assert_eq!(next.mask, Some([0x37, 0xfa, 0x21, 0x3d]));
            conn.send(frame(next.opcode, &next.payload, false)).await;
        }
    })
    .await;
    // HTTP/2 is offered, and sockets do not take it up.
    let front = TlsFront::start(upstream.addr(), ca.server(&["h2", "http/1.1"])).await;
    let hosts = Hosts::new("127.0.0.1 platform.test");
    let proxy = Proxy::http(None, &hosts).await;
    for egress in [None, Some(format!("http://{}", proxy.addr()))] {
        let app = relay()
            .upstream(&upstream)
            .config(|c| {
                let channel = &mut c["channels"]["main"];
                channel["ca"] = ca.path().to_str().unwrap().into();
                channel["base_url"] = match &egress {
                    None => format!("https://{}", front.addr()).into(),
                    Some(_) => format!("https://platform.test:{}", front.addr().port()).into(),
                };
                if let Some(egress) = &egress {
                    channel["egress_proxy"] = egress.as_str().into();
                }
            })
            .start()
            .await;
        let mut socket = app.socket(REALTIME).open().await;
        for text in ["over TLS", &"x".repeat(100_000)] {
            socket.send(opcode::TEXT, text).await;
            assert_eq!(socket.next().await.unwrap().text(), text, "{egress:?}");
        }
        socket.send(opcode::CLOSE, closing(1000, "")).await;
        assert_eq!(socket.closed().await.0, 1000);
        drop(socket);
        app.finish().await;
    }
}
