//! One source at a time, and what serves when the database is away.

use aiproxy_testkit::{PROXY_KEY, until, within};
use serde_json::{Value, json};

use super::{Api, PASSWORD, administered, aiproxy, called, code, heard, python, text, two_users};
use crate::relay;

#[tokio::test]
async fn what_the_file_manages_is_shown_and_not_edited() {
    let app = relay().env("AIPROXY_ADMIN_PASSWORD", PASSWORD).start().await;
    let api = Api::sign_in(&app).await;
    let users = api.get("/users").await;
    assert_eq!((&users["total"], &users["items"][0]["name"]), (&json!(1), &json!("张三")), "{users}");
    assert_eq!(api.get("/channels/main").await["api_key"], "***");
    let key = api.get("/keys").await["items"][0]["id"].as_str().unwrap().to_owned();
    let edits = [
        ("POST", "/users".to_owned(), json!({"id": "x"})),
        ("PATCH", "/users/user1".to_owned(), json!({"name": "x"})),
        ("DELETE", "/users/user1".to_owned(), Value::Null),
        ("POST", "/users/user1/disable".to_owned(), Value::Null),
        ("PUT", "/users/user1/mapping".to_owned(), json!([])),
        ("POST", "/users/user1/keys".to_owned(), json!({})),
        ("POST", "/users/bulk".to_owned(), json!({"ids": ["user1"], "action": "disable"})),
        ("POST", "/groups".to_owned(), json!({"id": "g"})),
        ("POST", "/channels".to_owned(), json!({"id": "c", "api_key": "k", "base_url": "https://a.example"})),
        ("PATCH", "/channels/main".to_owned(), json!({"name": "x"})),
        ("POST", "/channels/main/disable".to_owned(), Value::Null),
        ("POST", "/channels/main/drain".to_owned(), Value::Null),
        ("DELETE", "/channels/main".to_owned(), Value::Null),
        ("POST", format!("/keys/{key}/rotate"), json!({})),
        ("POST", "/users/user1/enable".to_owned(), Value::Null),
        ("PATCH", "/groups/g".to_owned(), json!({"name": "x"})),
        ("DELETE", "/groups/g".to_owned(), Value::Null),
        ("POST", "/channels/main/enable".to_owned(), Value::Null),
        ("POST", "/channels/bulk".to_owned(), json!({"ids": ["main"], "action": "disable"})),
        ("PATCH", format!("/keys/{key}"), json!({"name": "x"})),
    ];
    // All that the API's document has: but for a call to the platform, and for what is a denial here.
    let mut all = Vec::new();
    for (path, operations) in api.get("/openapi.json").await["paths"].as_object().unwrap() {
        let path = path.strip_prefix("/api/v1").unwrap_or(path);
        let entities = ["/users", "/groups", "/keys", "/channels"].iter().any(|area| path.starts_with(area));
        let denials = ["revoke", "enable", "disable"].map(|it| format!("/keys/{{id}}/{it}"));
        let elsewhere = ["/channels/{id}/test", "/users/{id}/offboard"].contains(&path)
            || denials.iter().any(|it| it == path);
        if entities && !elsewhere {
            all.extend(
                operations
                    .as_object()
                    .unwrap()
                    .keys()
                    .filter(|it| *it != "get")
                    .map(|it| (it.to_uppercase(), path.to_owned())),
            );
        }
    }
    let mut tried: Vec<(String, String)> = edits
        .iter()
        .map(|(method, path, _)| {
            let parts: Vec<&str> = path.split('/').collect();
            let path = match parts[..] {
                [_, area, "bulk" | "import"] => format!("/{area}/{}", parts[2]),
                [_, area, _] => format!("/{area}/{{id}}"),
                [_, area, _, action] => format!("/{area}/{{id}}/{action}"),
                _ => path.clone(),
            };
            ((*method).to_owned(), path)
        })
        .collect();
    tried.push(("POST".to_owned(), "/users/import".to_owned()));
    for sorted in [&mut all, &mut tried] {
        sorted.sort();
        sorted.dedup();
    }
    assert_eq!(tried, all);
    let table = api.ask("POST", "/users/import").header("content-type", "text/csv").body("id,name\nneu,x\n");
    let (status, body) = heard(table.send().await).await;
    assert_eq!((status, code(&body)), (409, "managed_by_file"), "{body}");
    for (method, path, body) in edits {
        let (status, body) = api.call(method, &path, &body).await;
        assert_eq!(
            (status, body["error"]["code"].as_str()),
            (409, Some("managed_by_file")),
            "{method} {path} {body}"
        );
    }
    // What is denied is not the file's business.
    for (action, status) in [("disable", 403), ("enable", 200), ("revoke", 403)] {
        api.done("POST", &format!("/keys/{key}/{action}"), &Value::Null).await;
        assert_eq!(called(&app, PROXY_KEY, "/v1/models").await.0, status, "{action}");
    }
    // Even for who is denied: the file has them still.
    api.done("POST", "/denials", &json!({"user": "user1", "reason": "x"})).await;
    assert_eq!(called(&app, PROXY_KEY, "/v1/models").await, (403, "user_disabled".to_owned()));
    app.finish().await;
}

#[tokio::test]
async fn while_the_database_is_away_the_last_good_state_serves() {
    let (mut app, api, key, _) = two_users(administered()).await;
    let data = app.dir().join("data");
    api.done("POST", "/denials", &json!({"user": "other", "reason": "x"})).await;
    // The last good state is written within moments.
    let good = data.join("last-good.json");
    until("the last good state", || {
        let text = std::fs::read_to_string(&good).ok()?;
        (text.contains("zhangsan") && text.contains("\"reason\"")).then_some(())
    })
    .await;
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&good).unwrap().permissions()) & 0o777,
        0o600
    );
    for spoil in ["gone", "garbage"] {
        let kept = data.join("kept.db");
        for (suffix, garbage) in [("", true), ("-wal", false), ("-shm", false)] {
            let file = data.join(format!("aiproxy.db{suffix}"));
            let _ = std::fs::copy(&file, data.join(format!("kept.db{suffix}")));
            match (spoil, garbage) {
                ("garbage", true) => std::fs::write(&file, "garbage ".repeat(1000)).unwrap(),
                _ => drop(std::fs::remove_file(&file)),
            }
        }
        app.restart_after("KILL").await;
        assert_eq!(called(&app, &key, "/v1/models").await.0, 200, "{spoil}");
        let (status, body) = heard(app.admin("/readyz").await).await;
        assert_eq!((status, &body["details"]["database"]["state"]), (200, &json!("away")), "{spoil}: {body}");
        let api = api.clone().after(&app);
        let (status, body) = api.call("GET", "/users", &Value::Null).await;
        assert_eq!(
            (status, body["error"]["code"].as_str()),
            (503, Some("database_unavailable")),
            "{spoil}: {body}"
        );
        // It comes back by itself.
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(data.join(format!("aiproxy.db{suffix}")));
        }
        assert!(kept.exists());
        for suffix in ["-wal", "-shm", ""] {
            let _ = std::fs::rename(
                data.join(format!("kept.db{suffix}")),
                data.join(format!("aiproxy.db{suffix}")),
            );
        }
        until("the database", || app.process().stderr().contains("the database is back").then_some(())).await;
        assert_eq!(api.get("/users?limit=1").await["total"], 2, "{spoil}");
        api.done("PATCH", "/users/zhangsan", &json!({"notes": spoil})).await;
    }
    app.finish().await;
}

#[tokio::test]
async fn what_another_process_writes_is_noticed() {
    let (mut app, api, key, other) = two_users(administered()).await;
    let more = json!({
        "users": {"neu": {"name": "新人", "proxy_key": "pk_neu_0123456789abcdef", "channels": ["main"]}},
        "channels": {"main": {"platform": "custom", "ownership": "off", "base_url": format!("http://{}", app.platform().addr()), "api_key": aiproxy_testkit::CHANNEL_KEY}},
    });
    std::fs::write(app.dir().join("more.yaml"), more.to_string()).unwrap();
    let folder = app.dir().to_owned();
    let arguments = ["import", "more.yaml", "--config", "aiproxy.yaml", "--merge"];
    let output = tokio::task::spawn_blocking(move || aiproxy(&folder, &arguments)).await.unwrap();
    assert!(output.status.success(), "{}", text(&output));
    api.proxy_keys.add("the key of neu", "pk_neu_0123456789abcdef");
    let began = std::time::Instant::now();
    within("the new user", async {
        while called(&app, "pk_neu_0123456789abcdef", "/v1/models").await.0 != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    println!("what another process has written was in effect {:?} after it had ended", began.elapsed());
    assert_eq!(called(&app, &key, "/v1/models").await.0, 200);
    // A row that cannot be used takes nobody else's access, nor does one of somebody who had some.
    python(
        app.dir(),
        concat!(
            "import sqlite3; db = sqlite3.connect('data/aiproxy.db', timeout=10)\n",
            "db.execute(\"insert into users (id, status, layout, created_at, updated_at, revision) select 'bad', 'nonsense', '[\\\"status\\\"]', 0, 0, max(value) + 1 from meta where name = 'revision'\")\n",
            "db.execute(\"update users set status = 'nonsense', revision = (select value + 1 from meta where name = 'revision') where id = 'other'\")\n",
            "db.execute(\"update meta set value = value + 1 where name = 'revision'\"); db.commit()",
        ),
    );
    until("the bad row", || app.process().stderr().contains("cannot be used").then_some(())).await;
    assert_eq!(called(&app, &key, "/v1/models").await.0, 200);
    assert_eq!(called(&app, "pk_neu_0123456789abcdef", "/v1/models").await.0, 200);
    assert_ne!(called(&app, &other, "/v1/models").await.0, 200, "what cannot be read allows nothing");
    let after = api.user("nach", json!({"name": "后来", "channels": ["main"]})).await;
    assert_eq!(called(&app, &after, "/v1/models").await.0, 200);
    app.restart_after("KILL").await;
    for key in [&key, &after] {
        assert_eq!(called(&app, key, "/v1/models").await.0, 200, "after a restart as well");
    }
    assert_ne!(called(&app, &other, "/v1/models").await.0, 200);
    // And it can be set right.
    let api = api.after(&app);
    api.done("PATCH", "/users/other", &json!({"status": "active"})).await;
    assert_eq!(called(&app, &other, "/v1/models").await.0, 200);
    app.finish().await;
}
