//! Explanations say what the relay would do.

use aiproxy_routing::{Plan, Target, admit};
use serde_json::json;

use super::api::is;
use super::*;

#[tokio::test]
async fn an_explanation_agrees_with_the_relay() {
    let (bed, admin) = Bed::peopled().await;
    let limits = json!({"models": ["gpt-4o*"], "endpoints": ["/v1/**"], "allow_ips": ["10.0.0.0/8"]});
    let made = bed.make(&admin, "users/u/keys", limits).await;
    let key = made["proxy_key"].as_str().unwrap();
    for (path, model, ip, code) in [
        ("/v1/chat/completions", Some("gpt-4o"), "10.1.2.3", None),
        ("/@openai/v1/chat/completions", Some("gpt-4o-mini"), "10.1.2.3", None),
        ("/v1/chat/completions", Some("o3"), "10.1.2.3", Some("model_not_allowed")),
        ("/v1/chat/completions", None, "10.1.2.3", Some("model_not_allowed")),
        ("/v1/chat/completions", Some("gpt-4o"), "192.168.0.1", Some("ip_not_allowed")),
        ("/other", Some("gpt-4o"), "10.1.2.3", Some("endpoint_not_allowed")),
        ("/@aliyun/v1/models", None, "10.1.2.3", Some("channel_not_allowed")),
        ("/v1/organization/users", Some("gpt-4o"), "10.1.2.3", Some("path_forbidden")),
        ("/v1/../x", None, "10.1.2.3", Some("bad_request")),
        ("/v1/messages", Some("gpt-4o"), "10.1.2.3", Some("no_channel")),
    ] {
        let question = json!({"proxy_key": key, "path": path, "model": model, "ip": ip});
        let answer = bed.post(&admin, "explain", question).await;
        let told = answer.json();
        assert_eq!(
            (told["allowed"].as_bool(), told["code"].as_str()),
            (Some(code.is_none()), code),
            "{path}: {}",
            answer.body
        );
        assert!(!answer.body.contains(key));
        // What the relay decides by.
        let snapshot = bed.state.registry.snapshot();
        let headers = http::HeaderMap::new();
        let decided = admit::authenticate(&snapshot, key).map_err(Into::into).and_then(|user| {
            admit::check(user, crate::api::caller::now())?;
            admit::address(user, ip.parse().unwrap())?;
            let target = Target::parse(path, &headers)?;
            admit::endpoint(user, &target.normal)?;
            let plan = Plan::for_path(user, &target)?;
            admit::model(user, model, true)?;
            plan.for_model(model)
        });
        assert_eq!(decided.err().map(|refusal| refusal.kind.code()), code, "{path}");
    }
}

#[tokio::test]
async fn the_steps_tell_where_it_ends_and_which_channels_are_tried() {
    let (bed, admin) = Bed::peopled().await;
    let other = json!({"id": "second", "platform": "openai", "api_key": "sk_0123456789", "base_url": "https://b.example", "models": ["gpt-*"]});
    bed.make(&admin, "channels", other).await;
    bed.patch(&admin, "users/u", "*", json!({"channels": ["second", "openai"]})).await;
    let id = bed.make(&admin, "users/u/keys", json!({})).await["key"]["id"].clone();
    let ask = |more: Value| {
        let mut question = json!({"path": "/v1/chat/completions", "model": "gpt-4o"});
        question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        question
    };
    let told = bed.make(&admin, "explain", ask(json!({"key_id": id}))).await;
    let steps = told["steps"].as_array().unwrap().iter();
    let steps: Vec<_> =
        steps.map(|it| (it["step"].as_str().unwrap(), it["outcome"].as_str().unwrap())).collect();
    let expected = [
        ("authenticate", "pass"),
        ("user", "pass"),
        ("key", "pass"),
        ("validity", "pass"),
        ("address", "skip"),
        ("origin", "skip"),
        ("endpoint", "pass"),
        ("channels", "pass"),
        ("model", "pass"),
        ("plan", "pass"),
        ("breaker", "pass"),
    ];
    assert_eq!(steps, expected);
    let turns: Vec<_> = told["channels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["id"].clone(), it["would_be_tried"].clone()))
        .collect();
    assert_eq!(turns, [(json!("second"), json!(1)), (json!("openai"), json!(2))]);

    bed.state.registry.health.get(&"second".into()).rest(Duration::from_secs(60), std::time::Instant::now());
    let told = bed.make(&admin, "explain", ask(json!({"user": "u"}))).await;
    assert_eq!(told["channels"][0]["would_be_tried"], 2, "a last resort: {told}");

    bed.make(&admin, "users/u/disable", json!({})).await;
    let told = bed.make(&admin, "explain", ask(json!({"user": "u"}))).await;
    assert_eq!((&told["code"], &told["status"]), (&json!("user_disabled"), &json!(403)));
    assert_eq!(told["steps"][1]["outcome"], "refuse");
    bed.make(&admin, "users/u/enable", json!({})).await;
    bed.make(&admin, "denials", json!({"key": id})).await;
    assert_eq!(bed.make(&admin, "explain", ask(json!({"key_id": id}))).await["code"], "key_disabled");

    let unknown = bed.make(&admin, "explain", ask(json!({"proxy_key": "pk_nobody_0123456789"}))).await;
    assert_eq!(unknown["code"], "invalid_key");
    for wrong in [
        json!({}),
        json!({"user": "u", "key_id": id}),
        json!({"user": "u", "ip": "x"}),
        json!({"user": "u", "method": "a b"}),
    ] {
        is(&bed.post(&admin, "explain", ask(wrong)).await, 422, "invalid");
    }
    let origin = bed.make(&admin, "explain", ask(json!({"user": "u", "origin": "https://a.example"}))).await;
    assert_eq!(origin["allowed"], false);
}
