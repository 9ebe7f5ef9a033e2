//! A client that signs in, for the tests of the API.

use aiproxy_core::Secret;
use serde_json::{Value, json};

use super::*;

pub(super) const PASSWORD: &str = "correct horse battery";

/// Who asks: what goes with each request.
#[derive(Debug, Clone, Default)]
pub(super) struct Login {
    /// `name: value` lines.
    pub(super) fields: Vec<String>,
}

impl Login {
    pub(super) fn token(token: &str) -> Self {
        Self { fields: vec![format!("authorization: Bearer {token}")] }
    }

    pub(super) fn and(&self, field: &str) -> Self {
        let mut fields = self.fields.clone();
        fields.push(field.into());
        Self { fields }
    }

    /// The session without its token against forged requests.
    pub(super) fn cookie_alone(&self) -> Self {
        Self { fields: self.fields.iter().filter(|field| field.starts_with("cookie")).cloned().collect() }
    }
}

impl Bed {
    /// With the administrator `admin`, whose password is [`PASSWORD`].
    pub(super) async fn administered() -> Self {
        let bed = Self::new().await;
        let given = Some(Secret::new(PASSWORD.into()));
        first::ensure(&bed.store(), bed.folder.path(), given).await.unwrap();
        bed
    }

    pub(super) fn store(&self) -> aiproxy_store::Store {
        self.state.control.store().unwrap()
    }

    pub(super) async fn call(&self, login: &Login, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut fields = login.fields.clone();
        let body = body.map_or_else(String::new, |body| body.to_string());
        if !body.is_empty() {
            fields.push("content-type: application/json".into());
        }
        self.send(&fields, method, path, &body).await
    }

    pub(super) async fn send(&self, fields: &[String], method: &str, path: &str, body: &str) -> Answer {
        let address = self.admin.addresses()[0];
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let length = body.len();
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n{fields}\r\n{body}"
        ))
        .await
    }

    pub(super) async fn try_login(&self, name: &str, password: &str) -> Answer {
        let body = json!({"name": name, "password": password});
        self.call(&Login::default(), "POST", "/api/v1/login", Some(body)).await
    }

    pub(super) async fn login(&self, name: &str, password: &str) -> Login {
        let answer = self.try_login(name, password).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let csrf = answer.json()["csrf_token"].as_str().unwrap().to_owned();
        Login { fields: vec![format!("cookie: {cookie}"), format!("x-csrf-token: {csrf}")] }
    }

    pub(super) async fn admin(&self) -> Login {
        self.login("admin", PASSWORD).await
    }

    /// Makes somebody whose password is [`PASSWORD`], and signs them in; their id too.
    pub(super) async fn somebody(&self, by: &Login, name: &str, role: &str) -> (String, Login) {
        let body = json!({"name": name, "role": role, "password": format!("first {PASSWORD}")});
        let made = self.call(by, "POST", "/api/v1/administrators", Some(body)).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let id = made.json()["administrator"]["id"].as_str().unwrap().to_owned();
        let login = self.login(name, &format!("first {PASSWORD}")).await;
        let body = json!({"current": format!("first {PASSWORD}"), "new": PASSWORD});
        let changed = self.call(&login, "POST", "/api/v1/password", Some(body)).await;
        assert_eq!(changed.status, 204, "{}", changed.body);
        (id, login)
    }

    /// Makes a token; its id and text.
    pub(super) async fn token(&self, by: &Login, role: &str, scopes: &[&str]) -> (String, Login) {
        let body = json!({"name": "a program", "role": role, "scopes": scopes});
        let made = self.call(by, "POST", "/api/v1/tokens", Some(body)).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let made = made.json();
        (made["details"]["id"].as_str().unwrap().into(), Login::token(made["token"].as_str().unwrap()))
    }

    /// The audit records that a query finds: action and outcome.
    pub(super) async fn audit(&self, by: &Login, query: &str) -> Vec<(String, String)> {
        let page = self.call(by, "GET", &format!("/api/v1/audit?{query}"), None).await.json();
        let text = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| (text(item, "action"), text(item, "outcome")))
            .collect()
    }
}

pub(super) fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

pub(super) fn is(answer: &Answer, status: u16, expected: &str) {
    assert_eq!(code(answer), (status, expected.to_owned()), "{}", answer.body);
}
