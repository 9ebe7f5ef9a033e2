//! What goes in and never comes out.

use aiproxy_testkit::{App, Authority, RawUpstream};
use serde_json::{Value, json};

use super::{Api, administered, called, code, encoded, heard, two_users};
use crate::chat_stream;

/// A channel with every secret that there is, all of which are guarded.
fn full(app: &App, id: &str) -> Value {
    let client = Authority::new("ca").issue(&["client.example"]);
    let secret = |what: &str| {
        let secret = format!("{what}-hidden-{id}-0123456789");
        app.channel_keys().add(&format!("{what} of {id}"), &secret);
        secret
    };
    // A private key is recognized by any of its lines.
    for (n, line) in client.key.lines().filter(|line| !line.starts_with('-')).enumerate() {
        app.channel_keys().add(&format!("line {n} of the private key of {id}"), line);
    }
    json!({
        "id": id, "platform": "custom", "base_url": format!("http://{}", app.platform().addr()),
        "api_key": secret("sk"), "ca": Authority::new("ca").pem(),
        "egress_proxy": format!("http://user:{}@127.0.0.1:9", secret("pw")),
        "headers": {"set": {"x-org": secret("org"), "x-team": secret("team")}},
        "client_certificate": {"chain": client.cert, "private_key": client.key},
    })
}

/// Mistakes, each with a secret of the channel in the wrong place.
fn mistakes(channel: &Value) -> Vec<Value> {
    let secret = channel["api_key"].as_str().unwrap();
    let private = channel["client_certificate"]["private_key"].as_str().unwrap();
    let mut all: Vec<Value> = [
        ("base_url", json!(secret)),
        ("base_url", json!(format!("https://user:{secret}@host.example"))),
        ("egress_proxy", json!(format!("no url {secret}"))),
        ("egress_proxy", json!([secret])),
        ("api_key", json!([secret])),
        ("api_key", json!({"value": secret})),
        ("api_key", json!(format!("{secret}\n{secret}"))),
        ("api_keys", json!(secret)),
        ("headers", json!({"set": [secret]})),
        ("headers", json!({"set": {"no name": secret}})),
        ("headers", json!({"set": {"authorization": secret}})),
        ("headers", json!({"set": {"x-org": format!("{secret}\r\nx: y")}})),
        ("client_certificate", json!({"chain": "nothing", "private_key": private})),
        ("client_certificate", json!({"chain": private, "private_key": private})),
        ("ca", json!(private)),
        ("key_placement", json!({"header": "x-key", "api_key": secret})),
    ]
    .into_iter()
    .map(|(field, value)| {
        let mut bad = channel.clone();
        bad[field] = value;
        bad
    })
    .collect();
    all.push(json!([secret]));
    all.push(json!(secret));
    all
}

/// Every way of asking without changing that the API's document has, with every id that there is.
async fn every_get(api: &Api, live: &str) -> usize {
    let document = api.get("/openapi.json").await;
    let mut asked = 0;
    let mut ids = std::collections::HashMap::new();
    for list in ["users", "groups", "keys", "channels", "administrators"] {
        let items = api.get(&format!("/{list}")).await["items"].clone();
        let names: Vec<String> =
            items.as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect();
        ids.insert(list.to_owned(), names);
    }
    ids.insert("sessions".to_owned(), vec![live.to_owned()]);
    for (path, operations) in document["paths"].as_object().unwrap() {
        if operations.get("get").is_none() {
            continue;
        }
        let path = path.strip_prefix("/api/v1").unwrap_or(path);
        let area = path.split('/').nth(1).unwrap_or_default();
        let some = vec![String::new()];
        for id in if path.contains("{id}") { &ids[area] } else { &some } {
            let path = path.replace("{id}", id);
            let (status, body) = heard(api.ask("GET", &path).send().await).await;
            assert_eq!(status, 200, "{path}: {body}");
            asked += 1;
        }
    }
    asked
}

/// The guard searches every byte that administrators and callers get, and all that is logged.
#[tokio::test]
async fn no_answer_holds_a_secret() {
    let (app, api, key, _) = two_users(administered()).await;
    let channels = [full(&app, "full"), full(&app, "more")];
    for channel in &channels {
        let shown = api.done("POST", "/channels", channel).await;
        for secret in ["/api_key", "/egress_proxy", "/headers/set/x-org", "/client_certificate/private_key"] {
            assert_eq!(shown.pointer(secret), Some(&json!("***")), "{secret}");
        }
    }
    api.done("POST", "/groups", &json!({"id": "g", "channels": ["full", "more"]})).await;
    // A secret that is said as `***` stays.
    let same = json!({"name": "全", "api_key": "***", "headers": {"set": {"x-org": "***"}}});
    api.done("PATCH", "/channels/full", &same).await;
    for bad in mistakes(&channels[0]) {
        for (method, path) in
            [("POST", "/channels"), ("PATCH", "/channels/more"), ("POST", "/users"), ("POST", "/explain")]
        {
            let mut bad = bad.clone();
            if method == "POST" && bad.is_object() {
                bad["id"] = "again".into();
            }
            let (status, body) = api.call(method, path, &bad).await;
            assert!(matches!(status, 400 | 422), "{method} {path} {bad}: {status} {body}");
        }
    }
    // JSON that breaks off behind a key.
    let torn = channels[0].to_string();
    let torn = &torn[..torn.find("0123456789").unwrap() + 10];
    let ask = api.ask("POST", "/channels").header("content-type", "application/json").body(torn.to_owned());
    assert_eq!(heard(ask.send().await).await.0, 400);
    // Whoever looks a Proxy-Key up in a wrong way.
    api.get(&format!("/keys?q={}", encoded(&key))).await;
    for bad in [json!({"proxy_key": [key]}), json!({"proxy_key": key, "path": key, "models": key})] {
        assert_eq!(api.call("POST", "/explain", &bad).await.0, 400);
    }
    let wrong = json!({"name": "x", "proxy_key": key});
    assert_eq!(api.call("POST", "/users/other/keys", &wrong).await.0, 409);
    let id = api.get("/keys?user=other").await["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(api.call("PATCH", &format!("/keys/{id}"), &wrong).await.0, 422);
    // Something under way, and what asks the platform.
    let ask = app.post("/v1/chat/completions", &chat_stream("gpt-4o", "one two")).key(&key).sandbox("hold=g");
    let mut stream = ask.send().await;
    stream.piece().await.unwrap().unwrap();
    let live = stream.header("x-aiproxy-request-id").unwrap().to_owned();
    for channel in ["main", "full", "more"] {
        let tested = api.done("POST", &format!("/channels/{channel}/test"), &Value::Null).await;
        assert!(tested["verdict"].is_string(), "{tested}");
    }
    let rotated = api.done("POST", &format!("/keys/{id}/rotate"), &json!({"grace": 60})).await;
    api.proxy_keys.add("a key that was rotated", rotated["proxy_key"].as_str().unwrap());
    let asked = every_get(&api, &live).await;
    assert!(asked >= 25, "{asked}");
    let audit = api.get("/audit?limit=500").await;
    assert!(audit.to_string().contains("\"api_key\":\"***\""), "what was changed is told, without the key");
    app.sandbox().release("g");
    stream.text().await;
    api.done("DELETE", "/groups/g", &Value::Null).await;
    api.done("DELETE", "/channels/full", &Value::Null).await;
    app.finish().await;
}

#[tokio::test]
async fn nobody_leads_a_key_elsewhere_without_knowing_it() {
    let there = RawUpstream::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    let (app, api, key, _) = two_users(administered().also("there", there.addr())).await;
    let there_url = format!("http://{}", app.other("there").addr());
    let new = "sk-new-key-of-the-channel-0123";
    app.channel_keys().add("the new key", new);
    api.done("PATCH", "/channels/main", &json!({"headers": {"set": {"x-org": "org-of-ours-0123"}}})).await;
    let client = Authority::new("ca").issue(&["client.example"]);
    for change in [
        json!({"base_url": there_url}),
        json!({"egress_proxy": there_url}),
        json!({"ca": Authority::new("ca").pem()}),
        json!({"key_placement": {"query": "key"}}),
        json!({"platform": "openai"}),
        json!({"resolve": {"127.0.0.1": ["127.0.0.2"]}}),
        json!({"client_certificate": {"chain": client.cert, "private_key": client.key}}),
    ] {
        for given in [
            json!({}),
            json!({"api_key": "***"}),
            json!({"api_key": new}),
            json!({"api_key": new, "headers": {"set": {"x-org": "***"}}}),
            json!({"headers": {"set": {"x-org": "org-2"}}}),
        ] {
            let mut patch = given;
            patch.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let (status, body) = api.call("PATCH", "/channels/main", &patch).await;
            assert_eq!((status, code(&body)), (422, "key_required"), "{patch}: {body}");
        }
    }
    assert_eq!(called(&app, &key, "/v1/models").await.0, 200, "and nothing has changed");
    assert_eq!(there.connections(), 0);
    // With all of them it is done, and the next request goes there.
    let right = json!({"base_url": there_url, "api_key": new, "headers": {"set": {"x-org": "org-2"}}});
    api.done("PATCH", "/channels/main", &right).await;
    assert_eq!(called(&app, &key, "/v1/models").await.0, 200);
    let request = there.request(0).await;
    assert_eq!(request.header("authorization"), Some(format!("Bearer {new}")));
    assert_eq!(request.header("x-org").as_deref(), Some("org-2"));
    // A secret that is taken out goes nowhere either.
    let placed = json!({"key_placement": {"query": "key"}, "api_key": new, "headers": null});
    api.done("PATCH", "/channels/main", &placed).await;
    assert_eq!(called(&app, &key, "/v1/models").await.0, 200);
    let request = there.request(1).await;
    assert!(
        request.target().contains("key=sk-new-key") || request.target().contains("key=sk%2D"),
        "{}",
        request.target()
    );
    assert_eq!((request.header("authorization"), request.header("x-org")), (None, None));
    app.finish().await;
}
