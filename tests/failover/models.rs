//! `GET /v1/models` of several channels.

use aiproxy_testkit::{App, Gate, RawUpstream, refusing, within};
use serde_json::{Value, json};

use super::{answer, line_of, pair};
use crate::chat;

/// A platform that lists these models and says where they come from.
async fn listing(owner: &str, ids: &[&str]) -> RawUpstream {
    let data: Vec<Value> =
        ids.iter().map(|id| json!({"id": id, "object": "model", "owned_by": owner})).collect();
    RawUpstream::answering(answer("200 OK", "", &json!({"object": "list", "data": data}).to_string())).await
}

async fn models(app: &App, path: &str) -> Vec<(String, String)> {
    let mut got = app.get(path).send().await;
    assert_eq!(got.status, 200);
    assert_eq!(got.header("content-type"), Some("application/json"));
    let list = got.json().await;
    assert_eq!(list["object"], "list");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |model: &Value| (text(&model["id"]), text(&model["owned_by"]));
    list["data"].as_array().unwrap().iter().map(of).collect()
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(id, owner)| ((*id).to_owned(), (*owner).to_owned())).collect()
}

#[tokio::test]
async fn the_list_is_the_union_in_the_order_of_the_channels_each_model_once() {
    let (a, b) = (listing("a", &["m-1", "m-2"]).await, listing("b", &["m-3", "m-2"]).await);
    let app = pair(&a, &b, |_| ()).await;
    assert_eq!(models(&app, "/v1/models").await, owned(&[("m-1", "a"), ("m-2", "a"), ("m-3", "b")]));
    // A named channel is asked alone.
    assert_eq!(models(&app, "/@b/v1/models").await, owned(&[("m-3", "b"), ("m-2", "b")]));
    assert_eq!(a.received().len(), 1);
    // Only the list is made up of several.
    app.get("/v1/models/m-3").send().await;
    assert_eq!((a.received().len(), b.received().len()), (2, 2));
    app.finish().await;
}

#[tokio::test]
async fn the_list_holds_what_user_and_channel_allow() {
    let all = &["gpt-4o", "gpt-5", "qwen-plus", "other"];
    let (a, b) = (listing("a", all).await, listing("b", all).await);
    let app = pair(&a, &b, |c| {
        c["users"]["user1"]["models"] = json!(["GPT-*", "qwen-*"]);
        c["channels"]["a"]["models"] = json!(["gpt-4*"]);
    })
    .await;
    let expected = owned(&[("gpt-4o", "a"), ("gpt-5", "b"), ("qwen-plus", "b")]);
    assert_eq!(models(&app, "/v1/models").await, expected);
    // The limits hold for one channel as well.
    assert_eq!(models(&app, "/@a/v1/models").await, owned(&[("gpt-4o", "a")]));
    // What is listed is what is served.
    for (model, status) in [("gpt-5", 200), ("other", 403)] {
        let got = app.post("/v1/chat/completions", &chat(model, "hi")).send().await;
        assert_eq!(got.status, status, "{model}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_channel_that_fails_is_left_out() {
    let (addr, _socket) = refusing();
    for bad in [
        answer("500 Oops", "", "{}"),
        answer("401 Who", "", "{}"),
        answer("200 OK", "", "not JSON"),
        answer("200 OK", "", "{\"data\":7}"),
        answer("404 No", "", "{}"),
        String::new(),
    ] {
        let (a, b) = (RawUpstream::answering(&bad).await, listing("b", &["m-1"]).await);
        let app = pair(&a, &b, |c| {
            if bad.is_empty() {
                c["channels"]["a"]["base_url"] = format!("http://{addr}").into();
            }
        })
        .await;
        assert_eq!(models(&app, "/v1/models").await, owned(&[("m-1", "b")]), "{bad}");
        app.finish().await;
    }
}

#[tokio::test]
async fn when_all_fail_there_is_no_list() {
    let a = RawUpstream::answering(answer("500 Oops", "", "{}")).await;
    let b = RawUpstream::answering(answer("401 Who", "", "{}")).await;
    let app = pair(&a, &b, |_| ()).await;
    let mut got = app.get("/v1/models").send().await;
    assert_eq!(got.status, 503);
    assert_eq!(got.header("retry-after"), Some("1"));
    assert_eq!(got.json().await["error"]["code"], "channel_unavailable");
    let line = line_of(&app, &got).await;
    assert_eq!((&line["error"], &line["outcome"]), (&json!("channel_unavailable"), &json!("refused")));
    // Failures count as in every request.
    assert_eq!(app.metric("aiproxy_channel_rejected{channel=\"b\"}").await, 1.0);
    app.finish().await;
}

#[tokio::test]
async fn a_list_in_anthropics_shape_stays_one() {
    let (a, b) = (listing("a", &["claude-1"]).await, listing("b", &["claude-2"]).await);
    let app = pair(&a, &b, |_| ()).await;
    let list = app.get("/v1/models").header("anthropic-version", "2023-06-01").send().await.json().await;
    assert_eq!((&list["first_id"], &list["last_id"]), (&json!("claude-1"), &json!("claude-2")));
    assert_eq!(list["has_more"], false);
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    assert!(a.request(0).await.header("anthropic-version").is_some());
    app.finish().await;
}

#[tokio::test]
async fn a_list_that_is_awaited_is_refused_once_the_key_is_gone() {
    let never = Gate::new("never");
    let held = never.clone();
    let a = RawUpstream::start(move |mut conn| {
        let held = held.clone();
        async move {
            conn.request().await;
            tokio::select! {
                () = conn.closed() => held.open(),
                () = std::future::pending() => {}
            }
        }
    })
    .await;
    let b = listing("b", &["m-1"]).await;
    let mut app = pair(&a, &b, |_| ()).await;
    let asking = tokio::spawn(app.get("/v1/models").send());
    a.request(0).await;
    assert!(app.change(|c| c["users"]["user1"]["status"] = "disabled".into()).await);
    let mut got = within("the refusal", asking).await.unwrap();
    assert_eq!(got.status, 403);
    assert_eq!(got.json().await["error"]["code"], "user_disabled");
    never.passed().await;
    app.finish().await;
}
