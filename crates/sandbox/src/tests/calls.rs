//! Calls, with a caller of our own; foreign ones are in the integration tests.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;
use webrtc::data_channel::{DataChannel, DataChannelEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCSessionDescription, SettingEngineBuilder,
};

use super::sockets::{event, open};
use super::*;
use crate::SeenCall;

const SDP: (&str, &str) = ("content-type", "application/sdp");
const KEY: (&str, &str) = ("authorization", "Bearer sk-test-0123456789");

struct Told {
    gathered: watch::Sender<bool>,
    channels: mpsc::Sender<Arc<dyn DataChannel>>,
}

#[async_trait]
impl PeerConnectionEventHandler for Told {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        self.gathered.send_replace(state == RTCIceGatheringState::Complete);
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        self.channels.try_send(channel).unwrap();
    }
}

/// A caller with a data channel of this label.
struct Caller {
    connection: Arc<dyn PeerConnection>,
    channel: Arc<dyn DataChannel>,
    offer: String,
    opened_there: mpsc::Receiver<Arc<dyn DataChannel>>,
}

impl Caller {
    async fn new(label: &str) -> Caller {
        let (gathered, mut all) = watch::channel(false);
        let (channels, opened_there) = mpsc::channel(8);
        let settings = SettingEngineBuilder::new().with_include_loopback_candidate(true).build();
        let builder = PeerConnectionBuilder::new()
            .with_setting_engine(settings)
            .with_handler(Arc::new(Told { gathered, channels }))
            .with_udp_addrs(vec!["127.0.0.1:0"]);
        let connection: Arc<dyn PeerConnection> = Arc::new(Box::pin(builder.build()).await.unwrap());
        let channel = connection.create_data_channel(label, None).await.unwrap();
        let offer = connection.create_offer(None).await.unwrap();
        connection.set_local_description(offer).await.unwrap();
        all.wait_for(|all| *all).await.unwrap();
        let offer = connection.local_description().await.unwrap().sdp;
        Caller { connection, channel, offer, opened_there }
    }

    /// Sends the offer; the call's path.
    async fn call(&self, sandbox: &Sandbox, path: &str) -> String {
        let reply = call(sandbox, "POST", path, &[SDP], self.offer.clone()).await;
        assert!(reply.status.is_success(), "{}", reply.text());
        assert_eq!(reply.headers["content-type"], "application/sdp");
        let answer = RTCSessionDescription::answer(reply.text().to_owned()).unwrap();
        self.connection.set_remote_description(answer).await.unwrap();
        let location = reply.headers.get("location").map(|value| value.to_str().unwrap().to_owned());
        location.unwrap_or_default()
    }

    async fn say(&self, event: Value) {
        self.channel.send_text(&event.to_string()).await.unwrap();
    }

    async fn hear(&self) -> String {
        text(&self.channel).await
    }

    /// Events up to one of this type.
    async fn until(&self, kind: &str) -> Value {
        loop {
            let event: Value = serde_json::from_str(&self.hear().await).unwrap();
            if event["type"] == kind {
                return event;
            }
        }
    }
}

async fn text(channel: &Arc<dyn DataChannel>) -> String {
    loop {
        match channel.poll().await.expect("an open channel") {
            DataChannelEvent::OnMessage(message) => return String::from_utf8(message.data.to_vec()).unwrap(),
            DataChannelEvent::OnClose => panic!("closed"),
            _ => {}
        }
    }
}

/// The last call, once `ready` holds of it.
async fn seen_call(sandbox: &Sandbox, ready: impl Fn(&SeenCall) -> bool) -> SeenCall {
    for _ in 0..1500 {
        if let Some(last) = sandbox.calls().pop()
            && ready(&last)
        {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never seen; have {:?}", sandbox.calls().pop());
}

#[tokio::test]
async fn a_call_speaks_events_says_the_rest_back_and_ends_by_hangup() {
    let sandbox = sandbox().await;
    let caller = Caller::new("oai-events").await;
    let location = caller.call(&sandbox, "/v1/realtime/calls?model=gpt-realtime").await;
    let id = location.strip_prefix("/v1/realtime/calls/").unwrap();
    assert!(id.starts_with("rtc_"), "{location}");
    let created = caller.until("session.created").await;
    assert_eq!(created["session"]["model"], "gpt-realtime");
    for other in ["no JSON", r#"{"type":"of-mine"}"#, "[1]"] {
        caller.channel.send_text(other).await.unwrap();
        assert_eq!(caller.hear().await, other);
    }

    // One who joins hears the same, and is heard.
    let side = format!("/v1/realtime?call_id={id}");
    let (mut side, _) = open(&sandbox, &side, KEY).await.unwrap();
    assert_eq!(event(&mut side).await["type"], "session.created");
    let content = json!([{"type": "input_text", "text": "one two"}]);
    let item = json!({"type": "message", "role": "user", "content": content});
    caller.say(json!({"type": "conversation.item.create", "item": item})).await;
    assert_eq!(event(&mut side).await["type"], "conversation.item.added");
    side.send(Message::text(json!({"type": "response.create"}).to_string())).await.unwrap();
    let done = caller.until("response.done").await;
    assert_eq!(done["response"]["usage"]["total_tokens"], 4);
    let mut heard = event(&mut side).await;
    while heard["type"] != "response.done" {
        heard = event(&mut side).await;
    }
    assert_eq!(heard, done);

    // More events at once than a listener may be behind.
    let words = "many ".repeat(1000);
    let item = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": words}]});
    side.send(Message::text(json!({"type": "conversation.item.create", "item": item}).to_string()))
        .await
        .unwrap();
    side.send(Message::text(json!({"type": "response.create"}).to_string())).await.unwrap();
    caller.until("response.done").await;
    while event(&mut side).await["type"] != "response.done" {}

    let refer = format!("{location}/refer");
    assert_eq!(call(&sandbox, "POST", &refer, &[], r#"{"target_uri":"tel:+1"}"#).await.status, 200);
    assert_eq!(call(&sandbox, "POST", &refer, &[], "{}").await.status, 400);
    let hangup = format!("{location}/hangup");
    assert_eq!(keyless(&sandbox, "POST", &hangup, &[], "").await.status, 401);
    assert_eq!(call(&sandbox, "POST", &hangup, &[], "").await.status, 200);
    while let Some(event) = caller.channel.poll().await {
        if matches!(event, DataChannelEvent::OnClose) {
            break;
        }
    }
    let Some(Ok(Message::Close(Some(close)))) = side.next().await else { panic!("no close frame") };
    assert_eq!(u16::from(close.code), 1000);
    let seen = seen_call(&sandbox, |call| call.state == "ended").await;
    assert_eq!((seen.ended, seen.messages), (Some("hangup"), 4));
    assert_eq!(seen.channels, [("oai-events".to_owned(), String::new(), true)]);
    for gone in [&hangup, &refer] {
        let reply = call(&sandbox, "POST", gone, &[], r#"{"target_uri":"tel:+1"}"#).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["error"]["code"]),
            (404, &json!("call_id_not_found"))
        );
    }
    caller.connection.close().await.unwrap();
}

#[tokio::test]
async fn aliyuns_path_opens_the_channel_itself_and_a_caller_who_leaves_ends_the_call() {
    let sandbox = sandbox().await;
    let mut caller = Caller::new("mine").await;
    assert_eq!(caller.call(&sandbox, "/api/v1/webrtc/realtime?model=qwen3-omni").await, "");
    let channel = caller.opened_there.recv().await.unwrap();
    assert_eq!(channel.label().await.unwrap(), "txt");
    let created: Value = serde_json::from_str(&text(&channel).await).unwrap();
    assert_eq!(
        (&created["type"], &created["session"]["model"]),
        (&json!("session.created"), &json!("qwen3-omni"))
    );
    // A channel of another label is not spoken on.
    caller.say(json!({"type": "response.create"})).await;
    assert_eq!(caller.hear().await, r#"{"type":"response.create"}"#);
    caller.connection.close().await.unwrap();
    assert_eq!(seen_call(&sandbox, |call| call.state == "ended").await.ended, Some("peer"));
}

#[tokio::test]
async fn a_call_ends_at_its_limit_and_with_the_sandbox() {
    let api_key = "sk-test-0123456789".to_owned();
    let options = Options { api_key, max_call: Duration::from_millis(1), ..Options::default() };
    let short = Sandbox::start(options).await.unwrap();
    let caller = Caller::new("a").await;
    caller.call(&short, "/v1/realtime?model=m").await;
    assert_eq!(seen_call(&short, |call| call.state == "ended").await.ended, Some("limit"));

    let sandbox = sandbox().await;
    let caller = Caller::new("a").await;
    let location = caller.call(&sandbox, "/openai/v1/realtime/calls?model=m&webrtcfilter=on").await;
    assert!(location.starts_with("/openai/v1/realtime/calls/rtc_"), "{location}");
    let state = Arc::clone(&sandbox.state);
    sandbox.shutdown().await;
    let calls = state.calls.snapshot();
    assert_eq!((calls.len(), calls[0].ended), (1, Some("shutdown")));
}

#[tokio::test]
async fn forms_hold_the_offer_and_the_session_in_any_order() {
    let sandbox = sandbox().await;
    let form = ("content-type", "multipart/form-data; boundary=x");
    let part = |name: &str, text: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
    };
    let session = r#"{"type":"realtime","model":"gpt-realtime","instructions":"你好"}"#;
    for sdp_first in [true, false] {
        let caller = Caller::new("oai-events").await;
        let (sdp, session) = (part("sdp", &caller.offer), part("session", session));
        let body =
            if sdp_first { format!("{sdp}{session}--x--\r\n") } else { format!("{session}{sdp}--x--\r\n") };
        let reply = call(&sandbox, "POST", "/v1/realtime/calls", &[form], body).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        let answer = RTCSessionDescription::answer(reply.text().to_owned()).unwrap();
        caller.connection.set_remote_description(answer).await.unwrap();
        let created = caller.until("session.created").await;
        assert_eq!(created["session"]["instructions"], "你好");
    }
    let refused = async |parts: &[String], param: &str| {
        let body = format!("{}--x--\r\n", parts.concat());
        let reply = call(&sandbox, "POST", "/v1/realtime/calls", &[form], body).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["error"]["param"]),
            (400, &json!(param)),
            "{}",
            reply.text()
        );
    };
    refused(&[part("session", session)], "sdp").await;
    refused(&[part("sdp", "v=0")], "session").await;
    refused(&[part("sdp", "v=0"), part("session", "{")], "session").await;
    refused(&[part("sdp", "v=0"), part("session", r#"{"model":"m"}"#)], "session.type").await;
    refused(&[part("sdp", "v=0"), part("session", r#"{"type":"realtime"}"#)], "session.model").await;
    refused(&[part("sdp", "v=0"), part("session", session)], "sdp").await;
}

#[tokio::test]
async fn what_is_no_offer_is_refused_and_leaves_nothing() {
    let sandbox = sandbox().await;
    let path = "/v1/realtime/calls?model=gpt-realtime";
    let offer = Caller::new("a").await.offer;
    let without = |begin: &str| {
        let lines = offer.split_inclusive("\r\n").filter(|line| !line.starts_with(begin));
        lines.collect::<String>()
    };
    for bad in
        ["hello", "v=0\r\n", &without("a=fingerprint"), &without("a=ice-ufrag"), &offer[..offer.len() / 2]]
    {
        let reply = call(&sandbox, "POST", path, &[SDP], bad.to_owned()).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["error"]["code"]),
            (400, &json!("invalid_offer")),
            "{bad}"
        );
    }
    for (path, header, code) in [
        ("/v1/realtime/calls", SDP, "missing_required_parameter"),
        (path, ("content-type", "text/plain"), "unsupported_content_type"),
        (
            "/v1/realtime?model=m",
            ("content-type", "multipart/form-data; boundary=x"),
            "unsupported_content_type",
        ),
    ] {
        let reply = call(&sandbox, "POST", path, &[header], offer.clone()).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (400, &json!(code)));
    }
    assert_eq!(keyless(&sandbox, "POST", path, &[SDP], offer.clone()).await.status, 401);
    let upgrade = [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-key", "x")];
    let reply = call(&sandbox, "GET", "/v1/realtime?call_id=rtc_none", &upgrade, "").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (404, &json!("call_id_not_found")));
    assert!(sandbox.calls().iter().all(|call| call.ended == Some("refused") && call.state == "ended"));
}
