//! The admin API against its own document: schemathesis asks whatever the document allows, and much that it
//! does not, and holds every answer against it. And who may do what, from outside.

#![allow(clippy::print_stdout, reason = "figures for whoever runs them")]

use std::path::Path;
use std::process::Command;

use aiproxy_testkit::{App, Ask, PROXY_KEY};
use serde_json::{Value, json};

use crate::control::{Api, PASSWORD, administered, heard};
use crate::relay;

/// No answer of 500 and above, no status, type, header or body that the document does not have.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance";

struct Run<'a> {
    token: &'a str,
    phases: &'a str,
    examples: u32,
    more: &'a [&'a str],
}

/// Has the document tried. `logout` would end the run's own login: the browser below uses it, and the tests of the crate.
async fn tried(app: &App, run: Run<'_>) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/schemathesis");
    let mut command = Command::new(program);
    command
        .arg("run")
        .arg(format!("http://{}/api/v1/openapi.json", app.admin_addr()))
        .args(["--header", &format!("Authorization: Bearer {}", run.token)])
        .args(["--checks", CHECKS, "--phases", run.phases])
        .args(["--max-examples", &run.examples.to_string(), "--generation-deterministic"])
        .args(["--exclude-operation-id", "logout", "--no-color", "--no-shrink", "--request-timeout", "30"])
        .args(run.more)
        .current_dir(app.dir());
    let output = tokio::task::spawn_blocking(move || command.output().expect("schemathesis runs")).await;
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for line in said.lines().filter(|line| line.contains("generated") || line.contains("Tested:")) {
        println!("{}", line.trim());
    }
}

fn soak() -> bool {
    std::env::var_os("AIPROXY_SOAK").is_some()
}

/// A relay with something of each kind.
async fn furnished() -> (App, Api) {
    let app = administered().config(|c| c["system"]["log_level"] = "info".into()).start().await;
    let api = Api::sign_in(&app).await;
    api.channel(&app, "main").await;
    api.done("POST", "/groups", &json!({"id": "g", "channels": ["main"]})).await;
    let key = api.user("u", json!({"name": "张三", "groups": ["g"]})).await;
    app.hide_from_platform("the key of u", &key);
    (app, api)
}

#[tokio::test]
async fn the_document_holds_for_an_administrator() {
    let (app, api) = furnished().await;
    let examples = if soak() { 200 } else { 8 };
    let more = ["--generation-with-security-parameters", "false"];
    tried(&app, Run { token: &api.token, phases: "examples,coverage,fuzzing", examples, more: &more }).await;
    app.finish().await;
}

#[tokio::test]
async fn the_document_holds_for_an_auditor_and_for_strangers() {
    let (app, api) = furnished().await;
    let auditor = json!({"name": "auditor", "role": "auditor", "scopes": ["*"]});
    let token = api.done("POST", "/tokens", &auditor).await["token"].as_str().unwrap().to_owned();
    let examples = if soak() { 50 } else { 2 };
    // What it makes up of tokens and cookies are strangers.
    tried(&app, Run { token: &token, phases: "coverage,fuzzing", examples, more: &[] }).await;
    app.finish().await;
}

#[tokio::test]
async fn the_document_holds_where_the_file_manages_users() {
    let builder = relay().env("AIPROXY_ADMIN_PASSWORD", PASSWORD);
    let app = builder.config(|c| c["system"]["log_level"] = "info".into()).start().await;
    let api = Api::sign_in(&app).await;
    let more = ["--generation-with-security-parameters", "false"];
    tried(&app, Run { token: &api.token, phases: "examples,coverage", examples: 2, more: &more }).await;
    app.finish().await;
}

/// What somebody hears who asks for an operation: the status, reduced to what the role decides.
async fn outcome(app: &App, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
    let mut ask = Ask::new(app.admin_addr(), "", method, path).no_key();
    for (name, value) in headers {
        ask = ask.header(name, value);
    }
    let (status, body) = heard(ask.send().await).await;
    match (status, body["error"]["code"].as_str()) {
        (401, Some("wrong_login")) => 200,
        (401, _) => 401,
        (403, Some("forbidden")) => 403,
        (403, Some(code @ ("csrf" | "wrong_origin"))) => panic!("{method} {path}: {code}"),
        _ => 200,
    }
}

#[tokio::test]
async fn who_may_do_what() {
    let (app, api) = furnished().await;
    let token = async |fields: Value| {
        let mut wanted = json!({"name": "t", "role": "administrator", "scopes": ["*"]});
        fields.as_object().unwrap().iter().for_each(|(name, value)| wanted[name] = value.clone());
        let made = api.done("POST", "/tokens", &wanted).await;
        (made["token"].as_str().unwrap().to_owned(), made["details"]["id"].as_str().unwrap().to_owned())
    };
    let (auditor, _) = token(json!({"role": "auditor"})).await;
    let (narrow, _) = token(json!({"scopes": ["groups:read"]})).await;
    let document = api.get("/openapi.json").await;
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/admin-api.md")).unwrap();
    let rows: Vec<Vec<&str>> = guide
        .lines()
        .filter(|line| {
            line.starts_with("| GET `/") || line.starts_with("| P") || line.starts_with("| DELETE `/")
        })
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let expected = |text: &str| match text {
        "401" => 401,
        "403" => 403,
        _ => 200,
    };
    let bearer = |token: &str| format!("Bearer {token}");
    let mut rows_seen = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            // What would end the ones who ask.
            if path.ends_with("/logout") {
                continue;
            }
            let row = rows.iter().find(|row| row[0] == format!("{method} `{path}`"));
            let row = row.unwrap_or_else(|| panic!("{method} {path} is not in the guide"));
            let asked =
                path.replace("{id}", "nobody").replace("{kind}", "user").replace("{subject}", "nobody");
            let scope = row[4].trim_matches('`');
            let narrow_may = !scope.contains(':') || scope.starts_with("groups:read");
            let nobody = expected(row[1]);
            for (who, headers, wanted) in [
                ("nobody", vec![], nobody),
                ("garbage", vec![("authorization", bearer("at_garbage"))], nobody),
                ("a caller", vec![("authorization", bearer(PROXY_KEY))], nobody),
                ("a made-up session", vec![("cookie", "aiproxy_session=00".to_owned())], nobody),
                ("an auditor", vec![("authorization", bearer(&auditor))], expected(row[2])),
                (
                    "another area",
                    vec![("authorization", bearer(&narrow))],
                    if narrow_may { expected(row[3]) } else { 403 },
                ),
                ("an administrator", vec![("authorization", bearer(&api.token))], expected(row[3])),
            ] {
                let headers: Vec<(&str, &str)> =
                    headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let got = outcome(&app, &method, &asked, &headers).await;
                assert_eq!(got, wanted, "{method} {path} by {who}");
            }
            rows_seen += 1;
        }
    }
    assert!(rows_seen > 50, "{rows_seen}");
    println!("{rows_seen} operations, 7 kinds of callers each");
    // Tokens end: by their time, by revocation, with their maker.
    let (short, id) = token(json!({})).await;
    let me = [("authorization", bearer(&short))];
    let headers = [(me[0].0, me[0].1.as_str())];
    assert_eq!(outcome(&app, "GET", "/api/v1/users", &headers).await, 200);
    api.done("DELETE", &format!("/tokens/{id}"), &Value::Null).await;
    assert_eq!(outcome(&app, "GET", "/api/v1/users", &headers).await, 401);
    app.finish().await;
}

#[tokio::test]
async fn a_page_of_somebody_else_changes_nothing() {
    let (app, _) = furnished().await;
    let at = app.admin_addr();
    let login = json!({"name": "admin", "password": PASSWORD});
    let mut answer = Ask::new(at, "", "POST", "/api/v1/login").no_key().json(&login).send().await;
    let cookie = answer.header("set-cookie").unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let csrf = answer.json().await["csrf_token"].as_str().unwrap().to_owned();
    let own = format!("http://{at}");
    for (headers, code) in [
        (vec![], Some("csrf")),
        (vec![("x-csrf-token", "00")], Some("csrf")),
        (vec![("x-csrf-token", &*csrf), ("origin", "http://evil.example")], Some("wrong_origin")),
        (vec![("x-csrf-token", &*csrf), ("origin", "null")], Some("wrong_origin")),
        (vec![("x-csrf-token", &*csrf), ("sec-fetch-site", "cross-site")], Some("wrong_origin")),
        (vec![("x-csrf-token", &*csrf), ("origin", &*own), ("sec-fetch-site", "same-origin")], None),
    ] {
        let ask = Ask::new(at, "", "POST", "/api/v1/groups").no_key().header("cookie", &cookie);
        let ask = headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value));
        let (status, body) =
            heard(ask.json(&json!({"id": format!("g{}", headers.len())})).send().await).await;
        match code {
            Some(code) => {
                assert_eq!((status, body["error"]["code"].as_str()), (403, Some(code)), "{headers:?}");
            }
            None => assert_eq!(status, 201, "{body}"),
        }
    }
    // A login from another page neither.
    let forged = Ask::new(at, "", "POST", "/api/v1/login").no_key().header("origin", "http://evil.example");
    let (status, body) = heard(forged.json(&login).send().await).await;
    assert_eq!((status, body["error"]["code"].as_str()), (403, Some("wrong_origin")));
    app.finish().await;
}

#[tokio::test]
async fn the_page_works_in_a_browser_and_asks_nobody_else() {
    let (app, _) = furnished().await;
    let mut script = Command::new("node");
    script
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/node/admin_page.mjs"))
        .env("ADMIN_URL", format!("http://{}", app.admin_addr()))
        .env("ADMIN_PASSWORD", PASSWORD)
        .env("WORK_DIR", app.dir());
    let finished = aiproxy_testkit::run(script, std::time::Duration::from_secs(90)).await;
    assert_eq!(finished.code, Some(0), "{}\n{}", finished.stdout, finished.stderr);
    app.finish().await;
}
