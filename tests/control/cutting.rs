//! Who leaves is out in the same second.

use std::time::Instant;

use aiproxy_testkit::{App, Caller, Outcome, PROXY_KEY, within};
use serde_json::{Value, json};

use super::{Api, PASSWORD, administered, called, code, heard, two_users};
use crate::{chat, chat_stream, relay};

const CHAT: &str = "/v1/chat/completions";
/// Where the sandbox talks over a WebSocket.
const SOCKET: &str = "/v1/realtime?model=gpt-realtime";
const CALL: &str = "/v1/realtime/calls?model=gpt-realtime";

/// A stream, a socket and a call of somebody, who is offboarded in the middle; what the API answered.
async fn leave(app: &App, api: &Api, user: &str, key: &str, other: &str) -> Value {
    let open = |key: &str, gate: &str| {
        app.post(CHAT, &chat_stream("gpt-4o", "one two three"))
            .key(key)
            .sandbox(&format!("hold={gate}"))
            .send()
    };
    let (mut mine, mut theirs) = (open(key, "never").await, open(other, "theirs").await);
    mine.piece().await.unwrap().unwrap();
    theirs.piece().await.unwrap().unwrap();
    let mut socket = app.socket(SOCKET).key(key).open().await;
    socket.event().await;
    let mut call = Caller::place(app.addr(), CALL, key).await;
    assert_eq!(call.status, 201, "{}", call.answer);
    call.connected().await;
    call.talk(3).await;
    let sessions = api.get(&format!("/sessions?user={user}")).await;
    assert_eq!(sessions["total"], 3, "{sessions}");

    let began = Instant::now();
    let why = json!({"reason": "离职"});
    let path = format!("/users/{user}/offboard");
    let (answer, stream, closed, call) = tokio::join!(
        async { (api.done("POST", &path, &why).await, began.elapsed()) },
        async { (within("the stream's end", mine.try_bytes()).await, began.elapsed()) },
        async { (within("the socket's end", socket.closed()).await, began.elapsed()) },
        async {
            call.ended().await;
            began.elapsed()
        },
    );
    println!(
        "offboarding {user}: answered after {:?}; cut after {:?} (SSE), {:?} (WebSocket), {call:?} (WebRTC)",
        answer.1, stream.1, closed.1
    );
    assert!(stream.0.is_err(), "it is not a clean end");
    assert_eq!(closed.0, (4001, "revoked".to_owned()));
    app.seen("the platform losing its peer", |request| request.outcome == Outcome::Cut).await;
    let answer = answer.0;
    let cut = answer["cut"].as_array().unwrap();
    let mut kinds: Vec<&str> = cut.iter().filter_map(|it| it["kind"].as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["call", "http", "websocket"], "{answer}");
    assert!(cut.iter().all(|it| it["user"] == user && it["channel"] == "main"), "{answer}");
    within("the list to forget them", async {
        while api.get(&format!("/sessions?user={user}")).await["total"] != 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The other's stream goes on to its end.
    app.sandbox().release("theirs");
    assert!(theirs.text().await.ends_with("[DONE]\n\n"));
    answer
}

/// Whatever is asked with this key is refused.
async fn nothing_goes(app: &App, key: &str) {
    let refused = (403, "user_disabled".to_owned());
    for path in ["/v1/models", "/v1/files/file-1", "/@main/v1/models"] {
        assert_eq!(called(app, key, path).await, refused, "{path}");
    }
    for path in [CHAT, "/v1/realtime/client_secrets", CALL] {
        let (status, body) = heard(app.post(path, &chat("gpt-4o", "hi")).key(key).send().await).await;
        assert_eq!((status, code(&body)), (403, "user_disabled"), "{path}: {body}");
    }
    assert_eq!(app.socket(SOCKET).key(key).refusal().await, refused);
}

fn calls(config: &mut Value) {
    config["system"]["listen"]["media"] = json!("127.0.0.1:0");
}

#[tokio::test]
async fn offboarding_cuts_all_that_is_under_way_and_refuses_from_then_on() {
    let (mut app, api, key, other) = two_users(administered().config(calls)).await;
    let answer = Box::pin(leave(&app, &api, "zhangsan", &key, &other)).await;
    assert_eq!(answer["user"]["status"], "disabled");
    assert_eq!(answer["keys_revoked"].as_array().unwrap().len(), 1);
    nothing_goes(&app, &key).await;
    assert_eq!(called(&app, &other, "/v1/models").await.0, 200);
    let audit = api.get("/audit?action=user.offboard").await;
    assert_eq!(audit["items"].as_array().unwrap().len(), 1, "{audit}");
    assert_eq!(audit["items"][0]["detail"]["reason"], "离职", "{audit}");
    // Once more does no harm.
    let again = api.done("POST", "/users/zhangsan/offboard", &Value::Null).await;
    assert_eq!((&again["cut"], &again["keys_revoked"]), (&json!([]), &json!([])), "{again}");
    app.restart_after("KILL").await;
    nothing_goes(&app, &key).await;
    assert_eq!(called(&app, &other, "/v1/models").await.0, 200);
    app.finish().await;
}

#[tokio::test]
async fn so_it_does_where_the_file_manages_users() {
    const OTHER: &str = "pk_other_5Gd8Ws2Kx9Lm3Qp";
    let builder = relay().env("AIPROXY_ADMIN_PASSWORD", PASSWORD).config(calls).config(|c| {
        c["users"]["other"] = json!({"proxy_key": OTHER, "channels": ["main"]});
    });
    let mut app = builder.start().await;
    let api = Api::sign_in(&app).await;
    let answer = Box::pin(leave(&app, &api, "user1", PROXY_KEY, OTHER)).await;
    assert_eq!(answer["denied"], true, "{answer}");
    nothing_goes(&app, PROXY_KEY).await;
    // The file still says that the user is active, and is read again.
    assert!(app.change(|c| c["users"]["user1"]["name"] = "李四".into()).await);
    nothing_goes(&app, PROXY_KEY).await;
    app.restart_after("KILL").await;
    nothing_goes(&app, PROXY_KEY).await;
    assert_eq!(called(&app, OTHER, "/v1/models").await.0, 200);
    // A denial can be taken back.
    let api = api.after(&app);
    for denial in api.get("/denials").await["items"].as_array().unwrap() {
        let (kind, subject) = (denial["kind"].as_str().unwrap(), denial["subject"].as_str().unwrap());
        api.done("DELETE", &format!("/denials/{kind}/{subject}"), &Value::Null).await;
    }
    assert_eq!(called(&app, PROXY_KEY, "/v1/models").await.0, 200);
    app.finish().await;
}

#[tokio::test]
async fn a_revoked_key_a_drained_and_a_disabled_channel() {
    let (app, api, key, _) = two_users(administered()).await;
    let open = |gate: &'static str| {
        app.post(CHAT, &chat_stream("gpt-4o", "one two three"))
            .key(&key)
            .sandbox(&format!("hold={gate}"))
            .send()
    };
    // Draining lets go on what is under way.
    let mut stream = open("drained").await;
    stream.piece().await.unwrap().unwrap();
    api.done("POST", "/channels/main/drain", &Value::Null).await;
    assert_eq!(called(&app, &key, "/v1/models").await, (503, "channel_unavailable".to_owned()));
    app.sandbox().release("drained");
    assert!(stream.text().await.ends_with("[DONE]\n\n"));
    api.done("POST", "/channels/main/enable", &Value::Null).await;
    assert_eq!(called(&app, &key, "/v1/models").await.0, 200);
    // Disabling does not.
    let mut stream = open("never").await;
    stream.piece().await.unwrap().unwrap();
    api.done("POST", "/channels/main/disable", &Value::Null).await;
    assert!(within("the stream's end", stream.try_bytes()).await.is_err());
    api.done("POST", "/channels/main/enable", &Value::Null).await;
    // Nor does a key that is revoked.
    let mut stream = open("never").await;
    stream.piece().await.unwrap().unwrap();
    let keys = api.get("/keys?user=zhangsan").await;
    let id = keys["items"][0]["id"].as_str().unwrap();
    let answer = api.done("POST", &format!("/keys/{id}/revoke"), &Value::Null).await;
    assert_eq!(answer["cut"].as_array().unwrap().len(), 1, "{answer}");
    assert!(within("the stream's end", stream.try_bytes()).await.is_err());
    assert_eq!(called(&app, &key, "/v1/models").await, (403, "key_disabled".to_owned()));
    // One session, by its id.
    let fresh = api.key("zhangsan", json!({})).await;
    let ask = app.post(CHAT, &chat_stream("gpt-4o", "one two three")).key(&fresh).sandbox("hold=never");
    let mut stream = ask.send().await;
    stream.piece().await.unwrap().unwrap();
    let id = stream.header("x-aiproxy-request-id").unwrap().to_owned();
    api.done("DELETE", &format!("/sessions/{id}"), &Value::Null).await;
    assert!(within("the stream's end", stream.try_bytes()).await.is_err());
    assert_eq!(called(&app, &fresh, "/v1/models").await.0, 200);
    app.finish().await;
}
