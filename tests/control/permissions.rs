//! What a caller may do: by group, user and key. The narrowest counts.

use aiproxy_testkit::{App, Ask, Builder, CHANNEL_KEY, sandbox, within};
use serde_json::{Value, json};

use super::{Api, administered, called, code, heard, two_users};
use crate::chat;
use crate::sockets::echoing;

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

/// Changes what is allowed at one of the three places.
struct Limited {
    app: App,
    api: Api,
    key: String,
    places: [(&'static str, String); 3],
}

impl Limited {
    /// A user of a group with a key; `main` leads to the platform.
    async fn start(builder: Builder) -> Self {
        let app = builder.start().await;
        let api = Api::sign_in(&app).await;
        api.channel(&app, "main").await;
        api.done("POST", "/groups", &json!({"id": "g"})).await;
        let key = api.user("u", json!({"channels": ["main"], "groups": ["g"]})).await;
        let id = api.get("/keys").await["items"][0]["id"].as_str().unwrap().to_owned();
        let places = [
            ("group", "/groups/g".to_owned()),
            ("user", "/users/u".to_owned()),
            ("key", format!("/keys/{id}")),
        ];
        Self { app, api, key, places }
    }

    async fn put(&self, place: usize, patch: &Value) {
        self.api.done("PATCH", &self.places[place].1, patch).await;
    }
}

#[tokio::test]
async fn addresses_are_looked_at_in_group_user_and_key() {
    let proxied = administered().config(|c| c["system"]["trusted_proxies"] = json!(["127.0.0.1"]));
    let it = Limited::start(proxied).await;
    let from = async |address: &str| {
        let ask = it.app.get("/v1/models").key(&it.key).header("x-forwarded-for", address);
        let (status, body) = heard(ask.send().await).await;
        (status == 200).then_some(()).ok_or_else(|| (status, code(&body).to_owned()))
    };
    let lists = [
        json!(["10.0.0.0/8", "2001:db8::/32"]),
        json!(["10.1.0.0/16", "2001:db8:1::/48"]),
        json!(["10.1.2.0/24", "2001:db8:1:2::/64"]),
    ];
    let no = || Err((403, "ip_not_allowed".to_owned()));
    // Each address, and how many of the lists hold it.
    let addresses = [
        ("192.0.2.1", 0),
        ("10.2.0.1", 1),
        ("10.1.3.1", 2),
        ("10.1.2.3", 3),
        ("::ffff:10.1.2.3", 3),
        ("2001:db9::1", 0),
        ("2001:db8:2::1", 1),
        ("2001:db8:1:3::1", 2),
        ("2001:db8:1:2::9", 3),
    ];
    for places in 0..=3 {
        if places > 0 {
            it.put(places - 1, &json!({"allow_ips": lists[places - 1]})).await;
        }
        for (address, within) in addresses {
            let expected = if within >= places { Ok(()) } else { no() };
            assert_eq!(from(address).await, expected, "{address}, {places} lists");
        }
    }
    // The wider ones count where the narrowest is gone.
    it.put(2, &json!({"allow_ips": null})).await;
    assert_eq!((from("10.1.3.1").await, from("10.2.0.1").await), (Ok(()), no()));
    // Over a WebSocket as well.
    let opening =
        it.app.socket("/v1/realtime?model=gpt-realtime").key(&it.key).header("x-forwarded-for", "10.2.0.1");
    assert_eq!(opening.refusal().await, (403, "ip_not_allowed".to_owned()));
    it.app.finish().await;
}

#[tokio::test]
async fn a_time_counts_in_group_user_and_key() {
    let it = Limited::start(administered()).await;
    let socket = "/v1/realtime?model=gpt-realtime";
    for (place, (name, _)) in it.places.iter().enumerate() {
        for (patch, refused) in [
            (json!({"valid_from": "2099-01-01"}), Some("key_not_yet_valid")),
            (json!({"valid_from": "2020-01-01", "expires_at": "2021-01-01"}), Some("key_expired")),
            (json!({"valid_from": "2020-01-01", "expires_at": "2099-01-01"}), None),
            (json!({"valid_from": null, "expires_at": null}), None),
        ] {
            it.put(place, &patch).await;
            let (status, code) = called(&it.app, &it.key, "/v1/models").await;
            match refused {
                Some(refused) => {
                    assert_eq!((status, &*code), (403, refused), "{name} {patch}");
                    assert_eq!(it.app.socket(socket).key(&it.key).refusal().await, (403, refused.to_owned()));
                }
                None => assert_eq!(status, 200, "{name} {patch}: {code}"),
            }
        }
        // What is under way ends as well.
        let mut open = it.app.socket(socket).key(&it.key).open().await;
        open.event().await;
        it.put(place, &json!({"expires_at": "2021-01-01"})).await;
        assert_eq!(within("the socket's end", open.closed()).await, (4001, "revoked".to_owned()), "{name}");
        it.put(place, &json!({"expires_at": null})).await;
    }
    it.app.finish().await;
}

#[tokio::test]
async fn models_and_endpoints_count_in_group_user_and_key() {
    let it = Limited::start(administered()).await;
    for (place, (name, _)) in it.places.iter().enumerate() {
        let limits = json!({"models": ["gpt-4o*", "gpt-realtime"], "endpoints": ["/v1/chat/**", "/v1/realtime", "/v1/models/*"]});
        it.put(place, &limits).await;
        for (path, model, refused) in [
            (CHAT, "gpt-4o-mini", ""),
            (CHAT, "o3", "model_not_allowed"),
            ("/v1/embeddings", "gpt-4o", "endpoint_not_allowed"),
            ("/v1/responses", "gpt-4o", "endpoint_not_allowed"),
            ("/v1/chatter", "gpt-4o", "endpoint_not_allowed"),
        ] {
            let (status, body) = heard(it.app.post(path, &chat(model, "hi")).key(&it.key).send().await).await;
            let expected = if refused.is_empty() { 200 } else { 403 };
            assert_eq!((status, code(&body)), (expected, refused), "{name} {path} {model}");
        }
        // A model in the path.
        assert_eq!(
            called(&it.app, &it.key, "/v1/models").await,
            (403, "endpoint_not_allowed".to_owned()),
            "{name}"
        );
        assert_eq!(called(&it.app, &it.key, "/v1/models/gpt-4o").await.0, 200, "{name}");
        // Over WebSockets.
        let opening = |target: &str| it.app.socket(target).key(&it.key);
        let mut open = opening("/v1/realtime?model=gpt-realtime").open().await;
        open.event().await;
        drop(open);
        let refusal = opening("/v1/realtime?model=gpt-5-realtime").refusal().await;
        assert_eq!(refusal, (403, "model_not_allowed".to_owned()), "{name}");
        it.put(place, &json!({"endpoints": ["/v1/chat/**"]})).await;
        let refusal = opening("/v1/realtime?model=gpt-realtime").refusal().await;
        assert_eq!(refusal, (403, "endpoint_not_allowed".to_owned()), "{name}");
        it.put(place, &json!({"models": null, "endpoints": null})).await;
    }
    // Of channels, those that all allow.
    it.api.channel(&it.app, "spare").await;
    it.put(2, &json!({"channels": ["spare"]})).await;
    assert_eq!(called(&it.app, &it.key, "/v1/models").await.1, "no_channel");
    it.put(0, &json!({"channels": ["spare"]})).await;
    assert_eq!(
        called(&it.app, &it.key, "/v1/models").await.0,
        200,
        "the group's channels come after the user's"
    );
    assert_eq!(called(&it.app, &it.key, "/@spare/v1/models").await.0, 200);
    assert_eq!(called(&it.app, &it.key, "/@main/v1/models").await, (403, "channel_not_allowed".to_owned()));
    it.app.finish().await;
}

#[tokio::test]
async fn client_secrets_obey_the_limits_of_their_key_and_end_with_it() {
    let upstream = echoing().await;
    let it = Limited::start(administered().upstream(&upstream)).await;
    let (app, api) = (&it.app, &it.api);
    api.done("PATCH", "/channels/main", &json!({"platform": "openai", "api_key": CHANNEL_KEY})).await;
    it.put(2, &json!({"models": ["gpt-realtime*"]})).await;
    let mint = async |key: &str, model: &str| {
        let wanted = json!({"session": {"type": "realtime", "model": model}});
        heard(app.post("/v1/realtime/client_secrets", &wanted).key(key).send().await).await
    };
    let minted = async |key: &str| {
        let (status, body) = mint(key, "gpt-realtime").await;
        assert_eq!(status, 200, "{body}");
        let value = body["value"].as_str().unwrap().to_owned();
        app.hide_from_platform("a client secret", &value);
        value
    };
    let refusal = async |value: &str| app.socket("/v1/realtime").key(value).refusal().await;
    assert_eq!(mint(&it.key, "gpt-4o").await.0, 403);
    let value = minted(&it.key).await;
    let socket = app.socket("/v1/realtime").key(&value).open().await;
    drop(socket);
    // Limits that are set afterwards hold for it too.
    for (place, patch, code) in [
        (2, json!({"models": ["gpt-4o"]}), "model_not_allowed"),
        (1, json!({"endpoints": ["/v1/chat/**"]}), "endpoint_not_allowed"),
        (0, json!({"allow_ips": ["10.0.0.0/8"]}), "ip_not_allowed"),
        (0, json!({"expires_at": "2021-01-01"}), "key_expired"),
    ] {
        it.put(place, &patch).await;
        assert_eq!(refusal(&value).await, (403, code.to_owned()), "{patch}");
        let back: serde_json::Map<_, _> =
            patch.as_object().unwrap().keys().map(|name| (name.clone(), Value::Null)).collect();
        it.put(place, &back.into()).await;
    }
    // It ends with its key: what is under way, and what would begin.
    let mut socket = app.socket("/v1/realtime").key(&value).open().await;
    let rotated = api.done("POST", &format!("{}/rotate", it.places[2].1), &json!({"grace": 0})).await;
    assert_eq!(within("the socket's end", socket.closed()).await.0, 4001);
    let (_, code) = refusal(&value).await;
    assert!(matches!(&*code, "key_disabled" | "key_expired" | "secret_orphaned"), "{code}");
    let fresh = rotated["proxy_key"].as_str().unwrap().to_owned();
    api.proxy_keys.add("the new key", &fresh);
    let value = minted(&fresh).await;
    let mut socket = app.socket("/v1/realtime").key(&value).open().await;
    let id = rotated["key"]["id"].as_str().unwrap();
    let answer = api.done("POST", &format!("/keys/{id}/revoke"), &Value::Null).await;
    assert_eq!(answer["cut"].as_array().unwrap().len(), 1, "{answer}");
    assert_eq!(within("the socket's end", socket.closed()).await.0, 4001);
    assert_eq!(refusal(&value).await, (403, "key_disabled".to_owned()));
    it.app.finish().await;
}

/// Which one is drawn is chance: of 200, one in four falls within these bounds but once in ten million times.
#[tokio::test]
async fn channels_of_one_order_share_by_their_weights() {
    let other = sandbox(CHANNEL_KEY).await;
    let (app, api, key, _) = two_users(administered().also("other", other.addr())).await;
    let base = format!("http://{}", app.other("other").addr());
    let spare = json!({"id": "spare", "platform": "custom", "base_url": base, "api_key": CHANNEL_KEY, "ownership": "off"});
    api.done("POST", "/channels", &spare).await;
    let map = async |mapping: Value| {
        api.done("PUT", "/users/zhangsan/mapping", &mapping).await;
        let before = (app.sandbox().requests().len(), other.requests().len());
        let mut client = app.client().await;
        for _ in 0..200 {
            let answer =
                client.send(Ask::new(app.addr(), &key, "GET", "/v1/models/gpt-4o")).await.bytes().await;
            assert!(!answer.is_empty());
        }
        (app.sandbox().requests().len() - before.0, other.requests().len() - before.1)
    };
    let (main, spare) = map(
        json!([{"channel": "main", "order": 1, "weight": 3}, {"channel": "spare", "order": 1, "weight": 1}]),
    )
    .await;
    println!("weights 3 and 1: {main} and {spare} of 200");
    assert_eq!(main + spare, 200);
    assert!((18..=82).contains(&spare), "{main}, {spare}");
    // The order comes first.
    assert_eq!(
        map(json!([{"channel": "main", "order": 2, "weight": 9}, {"channel": "spare", "order": 1}])).await,
        (0, 200)
    );
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
