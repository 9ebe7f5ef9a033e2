//! Sockets whose first message says who calls, or which model is wanted.

use std::time::Duration;

use aiproxy_testkit::ws::{Socket, closing, frame, opcode, part};
use aiproxy_testkit::{App, CHANNEL_KEY, PROXY_KEY, RawUpstream};
use serde_json::{Value, json};

use super::echoing;
use crate::relay;

const SPEECH: &str = "/v1/text-to-speech/voice1/stream-input?model_id=eleven_flash_v2_5";
const TASKS: &str = "/api-ws/v1/inference";
const OTHER_KEY: &str = "pk_other_5Gd8Ws2Kx9Lm3";
const SECOND_KEY: &str = "sk-second-8Yt3Nq6Bm1Zc";

/// A relay in front of a channel that takes its key in this place.
async fn placed(upstream: &RawUpstream, platform: &str, placement: Value) -> App {
    relay()
        .upstream(upstream)
        .config(|c| {
            c["channels"]["main"]["platform"] = platform.into();
            if !placement.is_null() {
                c["channels"]["main"]["key_placement"] = placement;
            }
            c["users"]["other"] = json!({"proxy_key": OTHER_KEY, "status": "disabled", "channels": ["main"]});
            c["system"]["limits"] = json!({"header_timeout": "2s", "peek_bytes": "64KiB"});
        })
        .start()
        .await
}

/// What comes back of a message from a platform that sends everything back.
async fn echoed(socket: &mut Socket, message: &Value) -> Value {
    socket.json(message).await;
    socket.event().await
}

fn run_task(model: &str) -> Value {
    json!({"header": {"action": "run-task", "task_id": "t1", "streaming": "duplex"},
        "payload": {"model": model, "task": "tts", "input": {"text": "你好"}}})
}

#[tokio::test]
async fn the_caller_s_key_goes_and_the_channel_s_comes() {
    let in_message = json!({"first_message": "/xi_api_key"});
    for (platform, placement, header, member) in [
        ("elevenlabs", in_message.clone(), None, Some(CHANNEL_KEY)),
        ("elevenlabs", Value::Null, Some(CHANNEL_KEY), None),
        ("custom", in_message, None, Some(CHANNEL_KEY)),
    ] {
        for (in_header, given) in [
            (false, json!({"xi_api_key": PROXY_KEY})),
            (false, json!({"authorization": format!("Bearer {PROXY_KEY}")})),
            (true, json!({})),
            (true, json!({"xi_api_key": PROXY_KEY})),
        ] {
            let upstream = echoing().await;
            let app = placed(&upstream, platform, placement.clone()).await;
            let target = if platform == "custom" { format!("/@main{SPEECH}") } else { SPEECH.to_owned() };
            let opening = app.socket(&target);
            let mut socket = if in_header { opening.open().await } else { opening.no_key().open().await };
            assert!(in_header || upstream.connections() == 0, "nobody is asked before it is known who calls");
            let mut first = given.clone();
            first["text"] = " ".into();
            first["voice_settings"] = json!({"stability": 0.50});
            let heard = echoed(&mut socket, &first).await;
            let mut expected = json!({"text": " ", "voice_settings": {"stability": 0.50}});
            if let Some(key) = member {
                expected["xi_api_key"] = key.into();
            }
            // The platform has it; the caller would never hear of it from a real one.
            assert_eq!(heard, expected, "{given}");
            let request = upstream.request(0).await;
            assert_eq!(request.target(), SPEECH);
            assert_eq!(request.header("xi-api-key").as_deref(), header, "{platform}");
            // Contexts of one socket may repeat the key.
            let later = json!({"text": "你好", "context_id": "c2", "xi_api_key": PROXY_KEY});
            assert_eq!(echoed(&mut socket, &later).await, json!({"text": "你好", "context_id": "c2"}));
            socket.send(opcode::CLOSE, closing(1000, "")).await;
            assert_eq!(socket.closed().await.0, 1000);
            let line = app.logged("the line", |line| line["status"] == 101).await;
            assert_eq!((&line["user"], &line["outcome"]), (&json!("user1"), &json!("complete")));
            // An echo shows the channel's key to the caller, which is this test's doing.
            let found = app.end().await;
            let own = "the callers' side: the API key of main coming down";
            assert!(found.iter().all(|found| found == own), "{found:?}");
        }
    }
}

#[tokio::test]
async fn messages_come_in_any_pieces() {
    let upstream = echoing().await;
    let app = placed(&upstream, "elevenlabs", Value::Null).await;
    let text = json!({"text": "你好".repeat(200), "xi_api_key": PROXY_KEY}).to_string();
    let (begin, end) = text.as_bytes().split_at(700);
    let mut bytes = part(opcode::TEXT, begin, true);
    bytes.extend(frame(opcode::PING, "a", true));
    bytes.extend(part(0x80, end, true));
    bytes.extend(frame(opcode::PING, "b", true));
    bytes.extend(frame(opcode::BINARY, [1, 2, 3], true));
    for step in [1, 600, bytes.len()] {
        let mut socket = app.socket(SPEECH).no_key().behind(&bytes[..step - 1]).open().await;
        for piece in bytes[step - 1..].chunks(step) {
            socket.bytes(piece).await;
        }
        let pong = socket.next().await.unwrap();
        assert_eq!((pong.opcode, pong.text()), (opcode::PONG, "a".to_owned()), "answered by the relay");
        assert_eq!(socket.event().await, json!({"text": "你好".repeat(200)}));
        let pong = socket.next().await.unwrap();
        assert_eq!((pong.opcode, pong.text()), (opcode::PONG, "b".to_owned()), "answered by the platform");
        assert_eq!(&*socket.next().await.unwrap().payload, [1, 2, 3]);
        drop(socket);
    }
    app.finish().await;
}

#[tokio::test]
async fn refusals_are_close_codes_and_nobody_is_asked() {
    let upstream = RawUpstream::recording().await;
    let app = placed(&upstream, "elevenlabs", Value::Null).await;
    let key = |key: &str| frame(opcode::TEXT, json!({"text": " ", "xi_api_key": key}).to_string(), true);
    let two = json!({"xi_api_key": PROXY_KEY, "authorization": OTHER_KEY}).to_string();
    for (bytes, code, error, outcome) in [
        (key("pk_unknown_1234567890"), 4401, "invalid_key", "refused"),
        (key(OTHER_KEY), 4403, "user_disabled", "refused"),
        (frame(opcode::TEXT, r#"{"text":" "}"#, true), 4401, "missing_key", "refused"),
        (frame(opcode::TEXT, "no JSON", true), 4401, "missing_key", "refused"),
        (frame(opcode::BINARY, [0xff, 0xfe], true), 4401, "missing_key", "refused"),
        (frame(opcode::TEXT, two, true), 4401, "conflicting_keys", "refused"),
        (Vec::new(), 4408, "request_timeout", "refused"),
        (key(PROXY_KEY)[..20].to_vec(), 4408, "request_timeout", "refused"),
        (frame(opcode::TEXT, "x".repeat(70_000), true), 1009, "body_too_large", "refused"),
        (frame(opcode::TEXT, "not masked", false), 1002, "bad_request", "refused"),
        (frame(opcode::CLOSE, closing(1001, "bye"), true), 1001, "", "complete"),
    ] {
        let mut socket = app.socket(SPEECH).no_key().open().await;
        socket.bytes(&bytes).await;
        let (told, reason) = socket.closed().await;
        assert_eq!(told, code, "{error}: {reason}");
        assert!(code < 4400 || reason.starts_with(error), "{reason}");
        let id = socket.id();
        assert_eq!(socket.rest().await, "", "{error}");
        let line = app.logged("the line", |line| line["request_id"] == id.as_str()).await;
        assert_eq!((&line["status"], &line["outcome"]), (&json!(101), &json!(outcome)), "{line}");
        assert_eq!(line["error"].as_str().unwrap_or_default(), error);
        assert_eq!(line["close_code"], code);
    }
    let socket = app.socket(SPEECH).no_key().open().await;
    let id = socket.id();
    socket.reset();
    let line = app.logged("the line", |line| line["request_id"] == id.as_str()).await;
    assert_eq!(line["outcome"], "caller_left");
    // Where no platform takes keys in messages there is nothing to wait for.
    assert_eq!(app.socket("/v1/realtime?model=m").no_key().refusal().await, (401, "missing_key".into()));
    assert_eq!(upstream.connections(), 0);
    app.metric_is("aiproxy_live_requests", 0.0).await;
    app.finish().await;
}

#[tokio::test]
async fn a_second_key_in_a_later_message_ends_the_socket() {
    let upstream = echoing().await;
    let app = placed(&upstream, "elevenlabs", Value::Null).await;
    let mut socket = app.socket(SPEECH).open().await;
    assert_eq!(echoed(&mut socket, &json!({"text": "a"})).await, json!({"text": "a"}));
    socket.json(&json!({"text": "b", "xi_api_key": OTHER_KEY})).await;
    assert_eq!(socket.closed().await, (4401, "conflicting_keys".to_owned()));
    app.finish().await;
}

#[tokio::test]
async fn a_message_without_a_place_for_the_channel_s_key_is_refused() {
    let upstream = echoing().await;
    let app = placed(&upstream, "custom", json!({"first_message": "/auth/token"})).await;
    let mut socket = app.socket("/@main/socket").open().await;
    socket.send(opcode::TEXT, "[1]").await;
    assert_eq!(socket.closed().await, (4400, "bad_request".to_owned()));
    app.finish().await;
}

/// Two channels for tasks, each with models of its own.
fn two_channels(c: &mut Value) {
    c["channels"] = json!({
        "a": {"platform": "dashscope", "api_key": CHANNEL_KEY, "models": ["qwen-*"]},
        "b": {"platform": "dashscope", "api_key": SECOND_KEY, "models": ["cosyvoice-*"], "base_url": "@b"},
    });
    c["users"]["user1"]["channels"] = json!(["a", "b"]);
    c["system"]["limits"] = json!({"header_timeout": "1s"});
}

#[tokio::test]
async fn the_model_in_the_first_message_chooses_the_channel() {
    let (a, b) = (echoing().await, echoing().await);
    let app = relay().upstream(&a).also("b", b.addr()).config(two_channels).start().await;
    for (model, chosen, other, channel) in [("qwen-tts", &a, &b, "a"), ("cosyvoice-v2", &b, &a, "b")] {
        let before = other.connections();
        let mut socket = app.socket(TASKS).protocols("x, y").open().await;
        assert_eq!(socket.protocol().as_deref(), Some("x"));
        // Who is known has time; nothing of what it says is changed, fragments neither.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let text = run_task(model).to_string();
        let (begin, end) = text.as_bytes().split_at(40);
        socket.bytes([part(opcode::TEXT, begin, true), part(0x80, end, true)].concat()).await;
        let (first, second) = (socket.next().await.unwrap(), socket.next().await.unwrap());
        assert_eq!([&*first.payload, &second.payload].concat(), text.as_bytes());
        let request = chosen.request(0).await;
        assert_eq!(
            request.header("sec-websocket-protocol").as_deref(),
            Some("x"),
            "what the caller was told"
        );
        assert_eq!(other.connections(), before);
        socket.send(opcode::CLOSE, closing(1000, "")).await;
        socket.closed().await;
        let line = app.logged("the line", |line| line["request_id"] == socket.id().as_str()).await;
        assert_eq!((&line["channel"], &line["model"]), (&json!(channel), &json!(model)));
        assert!(line["own_us"].as_u64().unwrap() < line["total_us"].as_u64().unwrap(), "{line}");
    }
    let mut socket = app.socket(TASKS).open().await;
    socket.json(&run_task("gpt-5")).await;
    let (code, reason) = socket.closed().await;
    assert_eq!((code, reason.starts_with("no_channel: ")), (4404, true), "{reason}");
    app.finish().await;
}

#[tokio::test]
async fn a_model_that_may_not_be_used_is_refused_before_anybody_is_asked() {
    let upstream = echoing().await;
    let app = relay()
        .upstream(&upstream)
        .config(|c| c["users"]["user1"]["models"] = json!(["gpt-*", "gemini-*"]))
        .start()
        .await;
    for (target, message) in [
        (TASKS, run_task("qwen-tts")),
        ("/v1/responses", json!({"type": "response.create", "model": "o3"})),
        ("/v1/live/sessions", json!({"type": "session.start", "session": {"model": "o3"}})),
        (
            "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
            json!({"setup": {"model": "models/veo-3"}}),
        ),
    ] {
        let mut socket = app.socket(target).open().await;
        socket.json(&message).await;
        let (code, reason) = socket.closed().await;
        assert_eq!((code, reason.starts_with("model_not_allowed: ")), (4403, true), "{target} {reason}");
    }
    assert_eq!(upstream.connections(), 0);
    let mut socket = app.socket("/ws/x").open().await;
    let setup = json!({"setup": {"model": "models/gemini-2.5-flash-live"}});
    assert_eq!(echoed(&mut socket, &setup).await, setup);
    app.finish().await;
}

#[tokio::test]
async fn what_the_platform_says_to_a_late_handshake_is_a_close_code() {
    for (answer, code, error) in [
        ("401 Unauthorized", 4502, "channel_key_rejected"),
        ("404 Not Found", 4404, ""),
        ("302 Found\r\nlocation: /elsewhere", 4502, "upstream_protocol"),
    ] {
        let refusing =
            RawUpstream::answering(format!("HTTP/1.1 {answer}\r\ncontent-length: 2\r\n\r\n{{}}")).await;
        let app = placed(&refusing, "elevenlabs", Value::Null).await;
        let mut socket = app.socket(SPEECH).no_key().open().await;
        socket.json(&json!({"text": " ", "xi_api_key": PROXY_KEY})).await;
        let (told, reason) = socket.closed().await;
        assert_eq!(told, code, "{reason}");
        let line = app.logged("the line", |line| line["request_id"] == socket.id().as_str()).await;
        assert_eq!(line["error"].as_str().unwrap_or_default(), error, "{line}");
        app.finish().await;
    }
}

#[tokio::test]
async fn the_next_channel_is_tried_where_one_cannot_be_reached() {
    let (a, b) =
        (RawUpstream::answering("HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n").await, echoing().await);
    let config = |c: &mut Value| {
        two_channels(c);
        c["channels"]["b"]["models"] = json!(["qwen-*"]);
    };
    let app = relay().upstream(&a).also("b", b.addr()).config(config).start().await;
    let mut socket = app.socket(TASKS).open().await;
    assert_eq!(echoed(&mut socket, &run_task("qwen-tts")).await, run_task("qwen-tts"));
    drop(socket);
    let line = app.logged("the line", |line| line["status"] == 101).await;
    assert_eq!((&line["channel"], &line["passed_over"]), (&json!("b"), &json!(["a: 503"])));
    app.finish().await;
}

#[tokio::test]
async fn who_is_waited_for_is_cut_and_drained_like_all_others() {
    let upstream = echoing().await;
    let mut app = relay()
        .upstream(&upstream)
        .config(|c| {
            c["users"]["user1"]["models"] = json!(["gpt-*"]);
            c["users"]["other"] = json!({"proxy_key": OTHER_KEY, "models": ["gpt-*"], "channels": ["main"]});
            c["system"]["drain"] = json!({"timeout": "1s"});
        })
        .start()
        .await;
    let mut revoked = app.socket("/v1/responses").open().await;
    let mut other = app.socket("/v1/responses").key(OTHER_KEY).open().await;
    app.metric_is("aiproxy_live_requests", 2.0).await;
    assert!(app.change(|c| c["users"]["user1"]["status"] = "disabled".into()).await);
    assert_eq!(revoked.closed().await, (4001, "revoked".to_owned()));
    let line = app.logged("the line", |line| line["request_id"] == revoked.id().as_str()).await;
    assert_eq!((&line["outcome"], &line["error"]), (&json!("cut"), &json!("user_disabled")));
    app.process().signal("TERM");
    assert_eq!(other.closed().await.0, 1001);
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}
