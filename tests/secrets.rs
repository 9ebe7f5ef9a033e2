//! Client secrets: minting them with a Proxy-Key, and beginning sessions with them.

mod life;
mod mint;
mod refused;
mod sessions;

use aiproxy_core::{KeyDigest, Secret};
use aiproxy_secrets::{Claims, Keyring, Kind};
use aiproxy_testkit::{App, Builder, PROXY_KEY, RawUpstream};
use serde_json::{Value, json};

use crate::relay;

const MODEL: &str = "gpt-realtime";
const MINT: &str = "/v1/realtime/client_secrets";
const PAGE: &str = "https://app.example";
/// The key of the installation, for tests that seal by themselves.
const SEAL: &str = "a-key-for-client-secrets-of-these-tests";

/// A relay whose channel is OpenAI's, with a page that may call.
fn ours(upstream: &RawUpstream) -> Builder {
    relay().upstream(upstream).config(|c| {
        c["channels"]["main"]["platform"] = "openai".into();
        c["system"]["cors"] = json!({"origins": [PAGE, "https://other.example"]});
        c["system"]["client_secrets"] = json!({"keys": [SEAL]});
    })
}

/// Mints one and has the guard look for it at the platform and in all that is logged.
async fn minted(app: &App, body: &Value) -> String {
    let mut answer = app.post(MINT, body).send().await;
    let said = answer.json().await;
    assert_eq!(answer.status, 200, "{said}");
    let value = said["value"].as_str().expect("a secret").to_owned();
    assert!(value.starts_with("ek_"));
    app.hide_from_platform("a client secret", &value);
    value
}

/// A session of this model.
fn session(model: &str) -> Value {
    json!({"session": {"type": "realtime", "model": model}})
}

/// What a secret of `user1` says.
fn claims() -> Claims {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let now = i64::try_from(now).unwrap();
    Claims {
        id: "cs_test".into(),
        user: "user1".into(),
        parent: KeyDigest::of(PROXY_KEY.as_bytes()),
        channel: "main".into(),
        model: MODEL.into(),
        kind: Kind::Realtime,
        settings: None,
        origins: Vec::new(),
        issued: now,
        expires: now + 600,
        single_use: false,
    }
}

/// A secret that says this, sealed as the relay would.
fn sealed(app: &App, claims: &Claims) -> String {
    sealed_with(app, claims, SEAL)
}

fn sealed_with(app: &App, claims: &Claims, key: &str) -> String {
    let value = Keyring::new([&Secret::new(key.into())]).seal(claims).unwrap().expose().to_owned();
    app.hide_from_platform("a client secret", &value);
    value
}
