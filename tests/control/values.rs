//! What is typed, be it to do harm: it stands for itself.

use serde_json::{Value, json};

use super::{Api, administered, aiproxy, code, encoded, heard, python, text, two_users};

const ODD: [&str; 16] = [
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
    "~",
    "'",
];

#[tokio::test]
async fn values_are_what_they_are() {
    let (app, api, ..) = two_users(administered()).await;
    let base = format!("http://{}", app.platform().addr());
    for (n, text) in ODD.iter().enumerate() {
        let id = format!("odd{n}");
        let user = json!({"id": id, "name": text, "department": text, "notes": text, "email": text, "phone": text, "employee_number": text, "models": [text]});
        let group = json!({"id": id, "name": text, "notes": text, "models": [text]});
        let channel = json!({"id": id, "name": text, "platform": "custom", "base_url": base, "api_key": "file:/etc/passwd",
            "models": [text], "headers": {"set": {"x-a": "${HOME}"}}});
        for (kind, document) in [("users", &user), ("groups", &group), ("channels", &channel)] {
            api.done("POST", &format!("/{kind}"), document).await;
            let shown = api.get(&format!("/{kind}/{id}")).await;
            for field in
                document.as_object().unwrap().keys().filter(|it| !matches!(&***it, "api_key" | "headers"))
            {
                assert_eq!(shown[field], document[field], "{kind}.{field}");
            }
        }
        // Wildcards are ordinary characters.
        let quoted = encoded(text);
        for query in ["q", "email", "department"] {
            let found = api.get(&format!("/users?{query}={quoted}")).await;
            let ids: Vec<&str> =
                found["items"].as_array().unwrap().iter().filter_map(|it| it["id"].as_str()).collect();
            match *text {
                // It is within another.
                "'" if query == "q" => assert!(ids.contains(&&*id) && ids.len() < ODD.len(), "{ids:?}"),
                _ => assert_eq!(ids, [&*id], "{query}={text}"),
            }
        }
    }
    let (_, answer) = api.call("POST", "/channels/odd0/test", &Value::Null).await;
    assert_eq!(answer["verdict"], "key_rejected", "the text itself went to the platform: {answer}");
    let seen = app.seen("the test's request", |it| it.headers.contains_key("x-a")).await;
    assert_eq!(seen.headers["x-a"], "${HOME}");
    // Out, elsewhere in, and out again.
    let folder = app.dir().to_owned();
    let work = tokio::task::spawn_blocking(move || {
        let other = tempfile::tempdir().unwrap();
        let out = |folder: &std::path::Path| {
            let output = aiproxy(folder, &["export", "--config", "aiproxy.yaml", "--with-secrets"]);
            assert!(output.status.success(), "{}", text(&output));
            String::from_utf8(output.stdout).unwrap()
        };
        let first = out(&folder);
        assert!(first.contains("${HOME}") && first.contains("file:/etc/passwd") && !first.contains("root:"));
        std::fs::write(other.path().join("aiproxy.yaml"), &first).unwrap();
        let into = aiproxy(other.path(), &["import", "aiproxy.yaml"]);
        assert!(into.status.success(), "{}", text(&into));
        assert_eq!(out(other.path()), first);
        python(
            &folder,
            "import sqlite3; assert sqlite3.connect('data/aiproxy.db').execute('select count(*) from users').fetchone()[0] == 18",
        );
    });
    work.await.unwrap();
    app.finish().await;
}

/// Texts that are not even names.
fn hostile() -> Vec<String> {
    let mut all: Vec<String> = ODD.iter().map(|&text| text.to_owned()).collect();
    all.extend(
        ["%", "_", "\\", "\0", "a\0b", "\u{fffd}\u{feff}", "../../users", "//", "id;drop", "-", "--", "."]
            .map(str::to_owned),
    );
    all.push("x".repeat(10_000));
    all.push("表".repeat(3_000));
    all
}

/// Every parameter of every way of asking, and every id in every path, with everything that is hostile.
#[tokio::test]
async fn no_text_is_a_way_past_what_is_asked_for() {
    let (app, api, ..) = two_users(administered()).await;
    let document = api.get("/openapi.json").await;
    let (mut asked, mut refused) = (0, 0);
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = path.strip_prefix("/api/v1").unwrap_or(path);
        let empty = Vec::new();
        for (method, operation) in operations.as_object().unwrap() {
            if matches!(path, "/logout" | "/login" | "/password") {
                continue;
            }
            let parameters = operation["parameters"].as_array().unwrap_or(&empty);
            let names = |place: &str| -> Vec<&str> {
                parameters
                    .iter()
                    .filter(|it| it["in"] == place)
                    .filter_map(|it| it["name"].as_str())
                    .collect()
            };
            let tries: Vec<(String, bool)> = hostile()
                .iter()
                .flat_map(|text| {
                    let in_path = names("path")
                        .into_iter()
                        .map(|name| path.replace(&format!("{{{name}}}"), &encoded(text)));
                    let in_path =
                        in_path.map(|it| (it.replace("{kind}", "user").replace("{subject}", "x"), true));
                    let in_query = names("query").into_iter().filter(|_| method == "get");
                    let in_query = in_query.map(|name| (format!("{path}?{name}={}", encoded(text)), false));
                    in_path.chain(in_query).collect::<Vec<_>>()
                })
                .collect();
            for (target, in_path) in tries {
                let ask = api.ask(&method.to_uppercase(), &target).header("if-match", "*");
                let ask = if operation.get("requestBody").is_some() { ask.json(&json!({})) } else { ask };
                let (status, body) = heard(ask.send().await).await;
                let shown: String = target.chars().take(120).collect();
                let known: &[u16] = if in_path { &[400, 404, 422, 414, 431] } else { &[200, 400, 414, 431] };
                assert!(known.contains(&status), "{method} {shown}: {status} {body}");
                asked += 1;
                refused += usize::from(status != 200);
            }
        }
    }
    println!("{asked} requests, {refused} refused");
    still_whole(&api).await;
    app.finish().await;
}

async fn still_whole(api: &Api) {
    let users = api.get("/users").await;
    let ids: Vec<&str> =
        users["items"].as_array().unwrap().iter().filter_map(|it| it["id"].as_str()).collect();
    assert_eq!(ids, ["other", "zhangsan"]);
    assert_eq!(api.get("/channels").await["total"], 1);
    assert_eq!(api.get("/keys").await["total"], 2);
}

/// In ids and fields of what is made.
#[tokio::test]
async fn what_is_made_has_a_name_or_is_refused() {
    let (app, api, ..) = two_users(administered()).await;
    for text in hostile() {
        for (kind, extra) in [
            ("users", json!({})),
            ("groups", json!({})),
            ("channels", json!({"api_key": "sk-some-key-0123", "base_url": "https://a.example"})),
        ] {
            let mut document = extra;
            document["id"] = text.clone().into();
            let (status, body) = api.call("POST", &format!("/{kind}"), &document).await;
            let shown: String = text.chars().take(40).collect();
            match status {
                201 => {
                    let path = format!("/{kind}/{}", encoded(&text));
                    assert_eq!(api.get(&path).await["id"], text, "{kind} {shown}");
                    api.done("DELETE", &path, &Value::Null).await;
                }
                _ => assert!(
                    matches!((status, code(&body)), (422, "invalid") | (400, "bad_request")),
                    "{kind} {shown}: {status} {body}"
                ),
            }
        }
        // As a name it is taken or refused, and never something else.
        let (status, body) = api.call("PATCH", "/users/other", &json!({"name": text})).await;
        match status {
            200 => assert_eq!(api.get("/users/other").await["name"], text),
            _ => assert_eq!((status, code(&body)), (422, "invalid"), "{body}"),
        }
        // What it refers to is looked for by this very name.
        for body in [json!({"channels": [text]}), json!({"groups": [text]})] {
            let (status, body) = api.call("PATCH", "/users/other", &body).await;
            assert_eq!((status, code(&body)), (422, "invalid"), "{body}");
        }
    }
    still_whole(&api).await;
    app.finish().await;
}

#[tokio::test]
async fn what_is_out_of_bounds_is_refused() {
    let (app, api, ..) = two_users(administered()).await;
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
    let ask = api.ask("POST", "/users").body("{\"id\": \"x\", ").header("content-type", "application/json");
    let (status, body) = heard(ask.send().await).await;
    assert_eq!(status, 400, "{body}");
    app.finish().await;
}
