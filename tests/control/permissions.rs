//! What a caller may do: by group, user and key. The narrowest counts.

use serde_json::{Value, json};

use super::{administered, called, heard, two_users};
use crate::chat;

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn the_narrowest_of_group_user_and_key_counts() {
    let (app, api, ..) = two_users(administered()).await;
    api.done(
        "POST",
        "/groups",
        &json!({"id": "g", "models": ["gpt-*", "claude-*"], "allow_ips": ["127.0.0.0/8", "::1"]}),
    )
    .await;
    let user = json!({"channels": ["main"], "groups": ["g"], "models": ["gpt-4*", "qwen*"]});
    api.done("POST", "/users", &{
        let mut it = user;
        it["id"] = "limited".into();
        it
    })
    .await;
    let key =
        api.key("limited", json!({"models": ["gpt-4o*"], "endpoints": ["/v1/chat/**", "/v1/models"]})).await;
    app.hide_from_platform("the key of limited", &key);
    for (model, status, code) in [
        ("gpt-4o", 200, ""),
        ("gpt-4-turbo", 403, "model_not_allowed"), // the key's own list
        ("qwen-max", 403, "model_not_allowed"),    // the group's
        ("claude-3", 403, "model_not_allowed"),    // the user's
    ] {
        let (heard_status, body) = heard(app.post(CHAT, &chat(model, "hi")).key(&key).send().await).await;
        assert_eq!(
            (heard_status, body["error"]["code"].as_str().unwrap_or_default()),
            (status, code),
            "{model}"
        );
    }
    assert_eq!(called(&app, &key, "/v1/files").await, (403, "endpoint_not_allowed".to_owned()));
    assert_eq!(called(&app, &key, "/aiproxy/me").await.0, 200, "whoever may call may look at itself");
    let refused = app.socket("/v1/realtime?model=gpt-4o").key(&key).refusal().await;
    assert_eq!(refused, (403, "endpoint_not_allowed".to_owned()));
    // An address that the group allows and the key does not.
    let id = api.get("/keys?user=limited").await["items"][0]["id"].as_str().unwrap().to_owned();
    let patch = |body: Value| {
        let (api, id) = (&api, &id);
        async move { api.done("PATCH", &format!("/keys/{id}"), &body).await }
    };
    patch(json!({"allow_ips": ["10.0.0.0/8", "2001:db8::/32"]})).await;
    assert_eq!(called(&app, &key, "/v1/models").await, (403, "ip_not_allowed".to_owned()));
    patch(json!({"allow_ips": null, "valid_from": "2099-01-01"})).await;
    assert_eq!(called(&app, &key, "/v1/models").await, (403, "key_not_yet_valid".to_owned()));
    patch(json!({"valid_from": null, "expires_at": "2020-01-01"})).await;
    assert_eq!(called(&app, &key, "/v1/models").await, (403, "key_expired".to_owned()));
    patch(json!({"expires_at": null})).await;
    assert_eq!(called(&app, &key, "/v1/models").await.0, 200);
    // A key that may use another channel only.
    api.channel(&app, "spare").await;
    patch(json!({"channels": ["spare"]})).await;
    assert_eq!(called(&app, &key, "/v1/models").await.1, "no_channel");
    app.finish().await;
}

#[tokio::test]
async fn explain_says_what_the_relay_does() {
    let (app, api, key, _) = two_users(administered()).await;
    api.done("PATCH", "/users/zhangsan", &json!({"models": ["gpt-4o*"], "endpoints": ["/v1/chat/**"]})).await;
    for (path, model) in
        [(CHAT, "gpt-4o"), (CHAT, "o3"), ("/v1/embeddings", "gpt-4o"), ("/nothing/here", "gpt-4o")]
    {
        let asked =
            json!({"proxy_key": key, "method": "POST", "path": path, "model": model, "ip": "127.0.0.1"});
        let said = api.done("POST", "/explain", &asked).await;
        let (status, body) = heard(app.post(path, &chat(model, "hi")).key(&key).send().await).await;
        match said["allowed"].as_bool().unwrap() {
            true => assert_eq!(status, 200, "{path} {model}: {said}"),
            false => assert_eq!(body["error"]["code"], said["code"], "{path} {model}: {said}"),
        }
        assert!(!said.to_string().contains(&key));
    }
    let audit = api.get("/audit?limit=500").await;
    assert!(!audit.to_string().contains(&key));
    app.finish().await;
}

#[tokio::test]
async fn a_caller_sees_itself_and_nobody_else() {
    let (app, _api, key, other) = two_users(administered()).await;
    assert_eq!(called(&app, &key, "/v1/models").await.0, 200);
    let (status, me) = heard(app.get("/aiproxy/me").key(&key).send().await).await;
    assert_eq!((status, &me["user"]["id"], &me["user"]["name"]), (200, &json!("zhangsan"), &json!("张三")));
    assert_eq!(me["key"]["status"], "active");
    assert_eq!(me["channels"][0]["id"], "main");
    assert!(!me.to_string().contains("other") && !me.to_string().contains(&key), "{me}");
    let (_, them) = heard(app.get("/aiproxy/me").key(&other).send().await).await;
    assert_eq!(them["user"]["id"], "other");
    assert_eq!(app.get("/aiproxy/me").no_key().send().await.status, 401);
    assert_eq!(app.post("/aiproxy/me", &json!({})).key(&key).send().await.status, 405);
    // What was used is there once the journal has it.
    let total = &me["usage"]["total"];
    assert!(total["requests"].as_u64().is_some(), "{me}");
    app.finish().await;
}
