//! Which channel serves a request.

use aiproxy_testkit::{App, Ask, CHANNEL_KEY, RawUpstream};
use serde_json::{Value, json};

use crate::{chat, relay};

/// Channels `a`, `b`, … whose base paths say in the platform's log which one was used.
async fn with_channels(list: &[(&str, Value)]) -> (App, RawUpstream) {
    let upstream = RawUpstream::recording().await;
    let app = relay()
        .config(|c| {
            let mut channels = serde_json::Map::new();
            let mut names = Vec::new();
            for (id, extra) in list {
                let mut channel = json!({"platform": "custom", "api_key": format!("{CHANNEL_KEY}{id}"), "base_url": format!("/{id}")});
                for (field, value) in extra.as_object().unwrap() {
                    channel[field] = value.clone();
                }
                names.push(*id);
                channels.insert(id.to_string(), channel);
            }
            c["channels"] = channels.into();
            c["users"]["user1"]["channels"] = json!(names);
            c["users"]["other"] = json!({"proxy_key": "pk_other_6Fh3Kd8Sn2", "channels": [names.last()]});
        })
        .upstream(&upstream)
        .start()
        .await;
    (app, upstream)
}

/// The channel that the request went to, or the code of its refusal.
async fn route(upstream: &RawUpstream, ask: Ask) -> String {
    let before = upstream.received().len();
    let mut answer = ask.send().await;
    let body = answer.json().await;
    if answer.status != 200 {
        assert_eq!(upstream.received().len(), before, "a refusal reaches no platform");
        return body["error"]["code"].as_str().unwrap().to_owned();
    }
    let target = upstream.request(before).await.target().to_owned();
    target.split('/').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn a_channel_is_named_by_path_or_header() {
    let (app, upstream) = with_channels(&[("a", json!({})), ("b", json!({})), ("c-1", json!({}))]).await;
    assert_eq!(route(&upstream, app.get("/v1/things")).await, "a");
    assert_eq!(route(&upstream, app.get("/@b/v1/things")).await, "b");
    assert_eq!(upstream.received()[1].target(), "/b/v1/things");
    assert_eq!(route(&upstream, app.get("/@%62/v1/things")).await, "b");
    assert_eq!(route(&upstream, app.get("/@c%2D1/v1/things")).await, "c-1");
    assert_eq!(route(&upstream, app.get("/@%E7%A0%94%E5%8F%91/v1/things")).await, "channel_not_allowed");
    assert_eq!(route(&upstream, app.get("/v1/things").header("x-aiproxy-channel", "b")).await, "b");
    let unknown = app.get("/v1/things").header("x-aiproxy-channel", "研发");
    assert_eq!(route(&upstream, unknown).await, "channel_not_allowed");
    assert_eq!(route(&upstream, app.get("/@b/v1/things").header("x-aiproxy-channel", "b")).await, "b");
    assert_eq!(
        route(&upstream, app.get("/@b/v1/things").header("x-aiproxy-channel", "a")).await,
        "bad_request"
    );
    app.finish().await;
}

#[tokio::test]
async fn a_channel_that_is_not_ones_own_looks_like_one_that_does_not_exist() {
    let (app, upstream) = with_channels(&[("a", json!({})), ("b", json!({}))]).await;
    let other = "pk_other_6Fh3Kd8Sn2";
    let mut messages = Vec::new();
    for name in ["a", "nothing", "B"] {
        let mut answer = app.get(&format!("/@{name}/v1/things")).key(other).send().await;
        assert_eq!(answer.status, 403, "{name}");
        messages.push(answer.json().await["error"].clone());
    }
    assert_eq!(messages[0], messages[1]);
    assert_eq!(messages[0]["code"], "channel_not_allowed");
    assert_eq!(route(&upstream, app.get("/@b/v1/things").key(other)).await, "b");
    app.finish().await;
}

#[tokio::test]
async fn the_first_channel_of_the_list_that_claims_the_model_serves_it() {
    let (app, upstream) = with_channels(&[
        ("openai", json!({"platform": "openai"})),
        ("aliyun", json!({"platform": "dashscope"})),
        ("special", json!({"models": ["special-*", "Gpt-Own"]})),
        ("late", json!({"platform": "openai"})),
    ])
    .await;
    let chat = |model: &str| app.post("/v1/chat/completions", &chat(model, "hi"));
    assert_eq!(route(&upstream, chat("gpt-4o")).await, "openai");
    assert_eq!(route(&upstream, chat("qwen-plus")).await, "aliyun");
    assert_eq!(route(&upstream, chat("QWEN-PLUS")).await, "aliyun");
    assert_eq!(route(&upstream, chat("special-1")).await, "special");
    // Claimed by the platform's patterns, first in the list.
    assert_eq!(route(&upstream, chat("gpt-own")).await, "openai");
    // Nobody claims it: the first without a list of its own, and the platform will say.
    assert_eq!(route(&upstream, chat("unheard-of")).await, "openai");
    assert_eq!(route(&upstream, app.get("/v1/things")).await, "openai");
    assert_eq!(route(&upstream, app.get("/v1/realtime?model=qwen-omni")).await, "aliyun");
    // A named channel serves what it is asked for.
    let named = app.post("/@aliyun/v1/chat/completions", &crate::chat("gpt-4o", "hi"));
    assert_eq!(route(&upstream, named).await, "aliyun");
    app.finish().await;
}

#[tokio::test]
async fn a_model_that_no_list_has_is_refused_where_every_channel_has_a_list() {
    let (app, upstream) =
        with_channels(&[("a", json!({"models": ["m1"]})), ("b", json!({"models": ["m2*"]}))]).await;
    assert_eq!(route(&upstream, app.post("/v1/chat/completions", &chat("m1", ""))).await, "a");
    assert_eq!(route(&upstream, app.post("/v1/chat/completions", &chat("m2-x", ""))).await, "b");
    let mut answer = app.post("/v1/chat/completions", &chat("m3", "")).send().await;
    assert_eq!(answer.status, 404);
    let error = answer.json().await["error"].clone();
    assert_eq!(error["code"], "no_channel");
    assert!(error["message"].as_str().unwrap().contains("m3"));
    assert_eq!(route(&upstream, app.post("/@a/v1/chat/completions", &chat("m2", ""))).await, "no_channel");
    app.finish().await;
}

#[tokio::test]
async fn a_channel_that_is_switched_off_is_passed_over() {
    let (app, upstream) = with_channels(&[("a", json!({"status": "disabled"})), ("b", json!({}))]).await;
    assert_eq!(route(&upstream, app.get("/v1/things")).await, "b");
    let mut answer = app.get("/@a/v1/things").send().await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.header("x-should-retry"), None);
    assert_eq!(answer.json().await["error"]["code"], "channel_unavailable");
    // What is forbidden is not made to look like an outage.
    let forbidden = app.ask("POST", "/@a/v1/realtime/sessions").send().await;
    assert_eq!(forbidden.status, 403);
    app.finish().await;
}

#[tokio::test]
async fn a_user_without_channels_gets_none() {
    let upstream = RawUpstream::recording().await;
    let app =
        relay().config(|c| c["users"]["user1"]["channels"] = json!([])).upstream(&upstream).start().await;
    assert_eq!(app.get("/v1/things").send().await.status, 404);
    assert_eq!(app.get("/@main/v1/things").send().await.status, 403);
    app.finish().await;
}
