//! Several people at once, and those who ask twice.

use std::time::Duration;

use aiproxy_testkit::{App, Raw};
use serde_json::{Value, json};

use super::{Api, administered, called, code, heard, two_users};

#[tokio::test]
async fn of_two_editors_the_second_hears_of_it() {
    let (app, api, ..) = two_users(administered()).await;
    let read = || api.ask("GET", "/users/zhangsan").send();
    let (first, second) = (read().await, read().await);
    let (one, two) = (first.header("etag").unwrap().to_owned(), second.header("etag").unwrap().to_owned());
    assert_eq!(one, two);
    let change = |tag: &str, name: &str| {
        api.ask("PATCH", "/users/zhangsan").header("if-match", tag).json(&json!({"name": name})).send()
    };
    let (status, _) = heard(change(&one, "张三丰").await).await;
    assert_eq!(status, 200);
    let (status, body) = heard(change(&two, "张无忌").await).await;
    assert_eq!((status, body["error"]["code"].as_str()), (412, Some("changed_meanwhile")), "{body}");
    assert_eq!(api.get("/users/zhangsan").await["name"], "张三丰");
    let (status, body) =
        heard(api.ask("PATCH", "/users/zhangsan").json(&json!({"name": "x"})).send().await).await;
    assert_eq!((status, body["error"]["code"].as_str()), (428, Some("if_match_required")), "{body}");
    app.finish().await;
}

#[tokio::test]
async fn many_editors_at_once_lose_nothing() {
    let (app, api, ..) = two_users(administered()).await;
    let edits = (0..20).map(|n| {
        let api = &api;
        async move {
            let body = json!({"id": format!("u{n}"), "name": format!("用户{n}")});
            api.done("POST", "/users", &body).await["revision"].as_i64().unwrap()
        }
    });
    let mut revisions = futures_util::future::join_all(edits).await;
    revisions.sort_unstable();
    let first = revisions[0];
    assert_eq!(revisions, (first..first + 20).collect::<Vec<_>>(), "each has a revision of its own");
    assert_eq!(api.get("/users?limit=1").await["total"], 22);
    app.finish().await;
}

#[tokio::test]
async fn who_asks_twice_gets_one_thing_and_the_key_once() {
    let (app, api, ..) = two_users(administered()).await;
    api.done("POST", "/users", &json!({"id": "lisi", "name": "李四"})).await;
    let ask = |body: Value| {
        api.ask("POST", "/users/lisi/keys").header("idempotency-key", "order-1").json(&body).send()
    };
    let (status, first) = heard(ask(json!({})).await).await;
    assert_eq!(status, 201);
    assert!(first["proxy_key"].is_string());
    let again = ask(json!({})).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let (status, again) = heard(again).await;
    assert_eq!((status, &again["key"]["id"], &again["proxy_key"]), (201, &first["key"]["id"], &Value::Null));
    let (status, other) = heard(ask(json!({"name": "x"})).await).await;
    assert_eq!((status, other["error"]["code"].as_str()), (422, Some("idempotency_key_reused")));
    // At the same time.
    let both = (0..2).map(|_| {
        api.ask("POST", "/users").header("idempotency-key", "order-2").json(&json!({"name": "同时"})).send()
    });
    let both = futures_util::future::join_all(both).await;
    let statuses: Vec<u16> = both.iter().map(|answer| answer.status.as_u16()).collect();
    assert!(statuses.contains(&201) && statuses.iter().all(|it| matches!(it, 201 | 409)), "{statuses:?}");
    assert_eq!(api.get("/users?q=同时").await["total"], 1);
    app.finish().await;
}

/// Sends a request and goes away after a while, whatever becomes of it.
async fn ask_and_go(app: &App, api: &Api, path: &str, body: &Value, after: Duration) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut raw = Raw::connect(app.admin_addr()).await;
    let head = format!(
        "POST /api/v1{path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        api.token,
        body.len()
    );
    raw.send(head.as_bytes()).await;
    tokio::time::sleep(after).await;
    drop(raw);
}

#[tokio::test]
async fn who_goes_away_in_the_middle_leaves_all_or_nothing() {
    let (app, api, ..) = two_users(administered()).await;
    for n in 0..20 {
        let body = json!({"id": format!("gone{n}"), "name": "走了"});
        ask_and_go(&app, &api, "/users", &body, Duration::from_micros(300 * n)).await;
    }
    // Whatever was made is whole, and the relay goes on.
    let listed = api.get("/users?q=gone&limit=100").await;
    let audit = api.get("/audit?action=user.create&limit=100").await;
    let made = |items: &Value, field: &str| {
        let ids = items["items"].as_array().unwrap().iter().filter_map(|it| it[field].as_str());
        let mut ids: Vec<String> = ids.filter(|id| id.starts_with("gone")).map(str::to_owned).collect();
        ids.sort();
        ids
    };
    assert_eq!(made(&listed, "id"), made(&audit, "object_id"));
    app.finish().await;
}

#[tokio::test]
async fn what_was_written_for_who_went_away_is_in_effect() {
    let (app, api, ..) = two_users(administered()).await;
    let mut keys = Vec::new();
    for n in 0..12 {
        keys.push(api.user(&format!("w{n}"), json!({"channels": ["main"]})).await);
    }
    for n in 0..12 {
        let after = Duration::from_micros(1500 * n);
        ask_and_go(&app, &api, &format!("/users/w{n}/disable"), &Value::Null, after).await;
    }
    let mut disabled = 0;
    for (n, key) in keys.iter().enumerate() {
        let status = api.get(&format!("/users/w{n}")).await["status"].clone();
        let audited = api.get(&format!("/audit?action=user.disable&object_id=w{n}")).await;
        let audited = audited["items"].as_array().unwrap().len();
        match status.as_str() {
            Some("disabled") => {
                disabled += 1;
                assert_eq!(audited, 1, "w{n}");
                assert_eq!(called(&app, key, "/v1/models").await, (403, "user_disabled".to_owned()), "w{n}");
            }
            _ => {
                assert_eq!(audited, 0, "w{n}");
                assert_eq!(called(&app, key, "/v1/models").await.0, 200, "w{n}");
            }
        }
    }
    println!("{disabled} of 12 edits were made although nobody waited");
    app.finish().await;
}

#[tokio::test]
async fn an_order_that_comes_twice_at_once_makes_one_key() {
    let (app, api, ..) = two_users(administered()).await;
    for n in 0..5 {
        let user = format!("twice{n}");
        api.done("POST", "/users", &json!({"id": user, "channels": ["main"]})).await;
        let orders = (0..4).map(|_| {
            api.ask("POST", &format!("/users/{user}/keys"))
                .header("idempotency-key", &format!("order-{n}"))
                .json(&json!({}))
                .send()
        });
        let mut shown = 0;
        for answer in futures_util::future::join_all(orders).await {
            let (status, body) = heard(answer).await;
            match status {
                201 => shown += usize::from(body["proxy_key"].is_string()),
                _ => assert_eq!((status, code(&body)), (409, "idempotency_in_progress"), "{body}"),
            }
        }
        assert_eq!(shown, 1, "the key is shown to one of them");
        assert_eq!(api.get(&format!("/keys?user={user}")).await["total"], 1);
    }
    app.finish().await;
}
