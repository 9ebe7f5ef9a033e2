//! What goes in and never comes out, and what is typed to do harm.

use aiproxy_testkit::Authority;
use serde_json::{Value, json};

use super::{administered, aiproxy, called, heard, text, two_users};

const SECRETS: [&str; 3] = ["sk-very-hidden-1", "pw-very-hidden-2", "org-very-hidden-3"];

#[tokio::test]
async fn no_answer_holds_a_secret() {
    let (app, api, key, _) = two_users(administered()).await;
    let base = format!("http://{}", app.platform().addr());
    let private = Authority::new("ca").issue(&["client.example"]);
    let channel = json!({
        "id": "full", "platform": "custom", "base_url": base, "api_key": SECRETS[0],
        "egress_proxy": format!("http://user:{}@127.0.0.1:9", SECRETS[1]),
        "headers": {"set": {"x-org": SECRETS[2]}}, "ca": Authority::new("ca").pem(),
        "client_certificate": {"chain": private.cert, "private_key": private.key},
    });
    api.done("POST", "/channels", &channel).await;
    api.done("PATCH", "/channels/full", &json!({"name": "全", "api_key": "***"})).await;
    let _ =
        api.call("PATCH", "/channels/full", &json!({"base_url": "nonsense", "api_key": SECRETS[0]})).await;
    let _ = api
        .call("POST", "/channels", &json!({"id": "x y", "api_key": SECRETS[0], "base_url": SECRETS[1]}))
        .await;
    let _ =
        api.call("POST", "/channels", &json!({"id": "full2", "api_key": SECRETS[0], "base_urll": "x"})).await;
    let document = api.get("/openapi.json").await;
    let mut seen = String::new();
    let key_id = api.get("/keys?user=zhangsan").await["items"][0]["id"].as_str().unwrap().to_owned();
    for path in document["paths"].as_object().unwrap().keys() {
        let path = path.trim_start_matches("/api/v1");
        for (kind, id) in
            [("users", "zhangsan"), ("channels", "full"), ("keys", &*key_id), ("groups", "none")]
        {
            let asked = if path.starts_with(&format!("/{kind}/")) {
                path.replace("{id}", id)
            } else {
                path.to_owned()
            };
            let (_, body) = api.call("GET", &asked, &Value::Null).await;
            seen.push_str(&body.to_string());
        }
    }
    seen.push_str(&api.get("/audit?limit=500").await.to_string());
    seen.push_str(&api.call("POST", "/channels/full/test", &Value::Null).await.1.to_string());
    let private_line = private.key.lines().nth(1).unwrap().to_owned();
    for secret in SECRETS.into_iter().chain([&*private_line, &*key, &*api.token]) {
        assert!(!seen.contains(secret), "{} of {} characters", &secret[..4], secret.len());
    }
    assert!(seen.contains("\"api_key\":\"***\""));
    assert!(!app.process().stderr().contains("very-hidden"));
    app.finish().await;
}

#[tokio::test]
async fn nobody_leads_a_key_elsewhere_without_knowing_it() {
    let (app, api, key, _) = two_users(administered()).await;
    let elsewhere = format!("http://localhost:{}", app.platform().addr().port());
    for change in [
        json!({"base_url": elsewhere}),
        json!({"base_url": elsewhere, "api_key": "***"}),
        json!({"egress_proxy": "http://127.0.0.1:9"}),
        json!({"ca": Authority::new("ca").pem()}),
        json!({"key_placement": {"query": "key"}}),
        json!({"platform": "openai"}),
        json!({"resolve": {"127.0.0.1": ["127.0.0.2"]}}),
    ] {
        let (status, body) = api.call("PATCH", "/channels/main", &change).await;
        assert_eq!((status, body["error"]["code"].as_str()), (422, Some("key_required")), "{change}: {body}");
    }
    assert_eq!(called(&app, &key, "/v1/models").await.0, 200, "and nothing has changed");
    let right = json!({"base_url": elsewhere, "api_key": aiproxy_testkit::CHANNEL_KEY});
    api.done("PATCH", "/channels/main", &right).await;
    assert_eq!(called(&app, &key, "/v1/models").await.0, 200);
    app.finish().await;
}

#[tokio::test]
async fn values_are_what_they_are() {
    let (app, api, ..) = two_users(administered()).await;
    let odd = [
        "${HOME}",
        "file:/etc/passwd",
        "$${X}",
        "'; DROP TABLE users; --",
        "\" OR 1=1 --",
        "100%",
        "a_b",
        "back\\slash",
        "😀 表情",
        "\u{202e}rtl",
        "<script>alert(1)</script>",
        "=cmd|' /C calc'!A0",
        "null",
        "***",
    ];
    for (n, text) in odd.iter().enumerate() {
        let id = format!("odd{n}");
        let user = json!({"id": id, "name": text, "department": text, "notes": text, "email": text, "phone": text, "employee_number": text});
        api.done("POST", "/users", &user).await;
        let shown = api.get(&format!("/users/{id}")).await;
        for field in ["name", "department", "notes", "email", "phone", "employee_number"] {
            assert_eq!(shown[field], *text, "{field}");
        }
        let quoted: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for query in [format!("q={quoted}"), format!("email={quoted}"), format!("department={quoted}")] {
            let found = api.get(&format!("/users?{query}")).await;
            let ids: Vec<&str> =
                found["items"].as_array().unwrap().iter().filter_map(|it| it["id"].as_str()).collect();
            assert_eq!(ids, [&*id], "{query}: wildcards are ordinary characters");
        }
    }
    // Of a channel, too.
    let base = format!("http://{}", app.platform().addr());
    api.done("POST", "/channels", &json!({"id": "odd", "name": "${HOME}", "platform": "custom", "base_url": base, "api_key": "file:/etc/passwd"})).await;
    assert_eq!(api.get("/channels/odd").await["name"], "${HOME}");
    let (_, answer) = api.call("POST", "/channels/odd/test", &Value::Null).await;
    assert_eq!(answer["verdict"], "key_rejected", "the text itself went to the platform: {answer}");
    // None of it is a way past what is asked for.
    for path in [
        "/users?sort=name;drop",
        "/users?limit=0",
        "/users?limit=501",
        "/users?offset=-1",
        "/users?nonsense=1",
        "/audit?limit=x",
    ] {
        let (status, body) = api.call("GET", path, &Value::Null).await;
        assert_eq!(status, 400, "{path}: {body}");
    }
    let (status, _) = api.call("POST", "/users", &json!({"id": "nul", "name": "a\u{0}b"})).await;
    assert_eq!(status, 422);
    let (status, body) = heard(
        api.ask("POST", "/users")
            .body("{\"id\": \"x\", ")
            .header("content-type", "application/json")
            .send()
            .await,
    )
    .await;
    assert_eq!(status, 400, "{body}");
    // Out and in again.
    let folder = app.dir().to_owned();
    let exported = tokio::task::spawn_blocking(move || {
        let out = aiproxy(&folder, &["export", "--config", "aiproxy.yaml", "--with-secrets"]);
        std::fs::write(folder.join("again.yaml"), &out.stdout).unwrap();
        aiproxy(&folder, &["import", "again.yaml", "--config", "aiproxy.yaml", "--dry-run"])
    });
    let output = exported.await.unwrap();
    assert!(text(&output).contains("already holds these"), "{}", text(&output));
    app.finish().await;
}
