//! Administration from outside: the built program, its API and its command line.

#![allow(clippy::print_stdout, reason = "figures for whoever runs them")]

mod cli;
mod cutting;
mod editors;
mod import;
mod permissions;
mod round_trip;
mod secrecy;
mod source;
mod values;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use aiproxy_testkit::{Answer, App, Ask, Builder, CHANNEL_KEY, Needles};
use serde_json::{Value, json};

use crate::{BINARY, relay};

/// The administrator's password in these tests.
pub(crate) const PASSWORD: &str = "correct horse battery 9";

/// A relay whose users and channels come from the database.
pub(crate) fn administered() -> Builder {
    relay().env("AIPROXY_ADMIN_PASSWORD", PASSWORD).config(|c| {
        let sections = c.as_object_mut().unwrap();
        sections.remove("users");
        sections.remove("channels");
    })
}

/// Somebody who may do everything, by a token. What they make is guarded like what is configured.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) at: SocketAddr,
    pub(crate) token: String,
    proxy_keys: Needles,
    channel_keys: Needles,
}

impl Api {
    pub(crate) async fn sign_in(app: &App) -> Self {
        let at = app.admin_addr();
        let login = json!({"name": "admin", "password": PASSWORD});
        let mut answer = Ask::new(at, "", "POST", "/api/v1/login").no_key().json(&login).send().await;
        assert_eq!(answer.status, 200);
        let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let csrf = answer.json().await["csrf_token"].as_str().unwrap().to_owned();
        let wanted = json!({"name": "tests", "role": "administrator", "scopes": ["*"]});
        let mut answer = Ask::new(at, "", "POST", "/api/v1/tokens")
            .no_key()
            .header("cookie", &cookie)
            .header("x-csrf-token", &csrf)
            .json(&wanted)
            .send()
            .await;
        assert_eq!(answer.status, 201);
        let token = answer.json().await["token"].as_str().unwrap().to_owned();
        app.channel_keys().add("an admin token", &token);
        app.channel_keys().add("the administrator's password", PASSWORD);
        Self { at, token, proxy_keys: app.proxy_keys().clone(), channel_keys: app.channel_keys().clone() }
    }

    /// The same after a restart, which has other ports.
    fn after(self, app: &App) -> Self {
        Self { at: app.admin_addr(), ..self }
    }

    fn ask(&self, method: &str, path: &str) -> Ask {
        Ask::new(self.at, "", method, &format!("/api/v1{path}"))
            .no_key()
            .header("authorization", &format!("Bearer {}", self.token))
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let ask = self.ask(method, path).header("if-match", "*");
        let ask = if body.is_null() { ask } else { ask.json(body) };
        heard(ask.send().await).await
    }

    /// What has to go well.
    pub(crate) async fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.done("GET", path, &Value::Null).await
    }

    /// A channel in front of the test's platform.
    pub(crate) async fn channel(&self, app: &App, id: &str) {
        let base = format!("http://{}", app.platform().addr());
        self.channel_keys.add("the API key", CHANNEL_KEY);
        let channel = json!({"id": id, "platform": "custom", "base_url": base, "api_key": CHANNEL_KEY, "ownership": "off"});
        self.done("POST", "/channels", &channel).await;
    }

    /// A user with these fields and a key, which is returned.
    pub(crate) async fn user(&self, id: &str, fields: Value) -> String {
        let mut user = fields;
        user["id"] = id.into();
        self.done("POST", "/users", &user).await;
        self.key(id, json!({})).await
    }

    async fn key(&self, user: &str, fields: Value) -> String {
        let made = self.done("POST", &format!("/users/{user}/keys"), &fields).await;
        let key = made["proxy_key"].as_str().unwrap().to_owned();
        self.proxy_keys.add(&format!("a key of {user}"), &key);
        key
    }
}

pub(crate) async fn heard(mut answer: Answer) -> (u16, Value) {
    let status = answer.status.as_u16();
    let text = answer.text().await;
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Status and code that a caller hears.
async fn called(app: &App, key: &str, path: &str) -> (u16, String) {
    let (status, body) = heard(app.get(path).key(key).send().await).await;
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// A relay with the channel `main`, the users `zhangsan` and `other`, and their keys.
async fn two_users(builder: Builder) -> (App, Api, String, String) {
    let app = builder.start().await;
    let api = Api::sign_in(&app).await;
    api.channel(&app, "main").await;
    let mine = api.user("zhangsan", json!({"name": "张三", "channels": ["main"]})).await;
    let theirs = api.user("other", json!({"channels": ["main"]})).await;
    (app, api, mine, theirs)
}

/// The error's code.
fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or_default()
}

/// Every byte percent-encoded.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Runs a line of Python in a folder.
fn python(folder: &Path, line: &str) {
    let output = Command::new("python3").args(["-c", line]).current_dir(folder).output().expect("python3");
    assert!(output.status.success(), "{}", text(&output));
}

/// Runs the program in a folder.
fn aiproxy(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).current_dir(folder).env_clear().output().expect("the program runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
