//! Secrets live on without the process, and die with their Proxy-Key.

use std::os::unix::fs::PermissionsExt as _;

use aiproxy_secrets::key_file;
use aiproxy_testkit::ws::{closing, opcode};
use serde_json::json;

use super::{MODEL, SEAL, minted, ours, session};
use crate::sockets::echoing;

const NEW: &str = "a-new-key-for-client-secrets-of-these-tests";

/// Whether a session begins.
async fn begins(app: &aiproxy_testkit::App, value: &str) {
    let mut socket = app.socket("/v1/realtime").key(value).open().await;
    socket.send(opcode::CLOSE, closing(1000, "")).await;
    socket.closed().await;
}

#[tokio::test]
async fn they_survive_a_restart_and_so_does_what_is_used_up() {
    let upstream = echoing().await;
    // With the key that the installation makes for itself.
    let mut app = ours(&upstream)
        .config(|c| drop(c["system"].as_object_mut().unwrap().remove("client_secrets")))
        .start()
        .await;
    let file = app.dir().join("data").join(key_file::FILE_NAME);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let key = std::fs::read_to_string(&file).unwrap();
    app.hide_from_platform("the key of client secrets", key.trim());
    app.hide_from_callers("the key of client secrets", key.trim());
    let value = minted(&app, &session(MODEL)).await;
    let once = minted(&app, &json!({"session": {"model": MODEL}, "aiproxy": {"single_use": true}})).await;
    begins(&app, &value).await;
    begins(&app, &once).await;
    app.restart_after("KILL").await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), key);
    begins(&app, &value).await;
    assert_eq!(app.socket("/v1/realtime").key(&once).refusal().await, (403, "secret_used".into()));
    app.finish().await;
}

#[tokio::test]
async fn a_key_is_rotated_without_a_restart() {
    let upstream = echoing().await;
    let mut app = ours(&upstream).start().await;
    for key in [SEAL, NEW] {
        app.hide_from_platform("a key of client secrets", key);
        app.hide_from_callers("a key of client secrets", key);
    }
    let old = minted(&app, &session(MODEL)).await;
    assert!(app.change(|c| c["system"]["client_secrets"]["keys"] = json!([NEW, SEAL])).await);
    begins(&app, &old).await;
    let new = minted(&app, &session(MODEL)).await;
    assert!(app.change(|c| c["system"]["client_secrets"]["keys"] = json!([NEW])).await);
    begins(&app, &new).await;
    assert_eq!(app.socket("/v1/realtime").key(&old).refusal().await, (401, "invalid_secret".into()));
    app.finish().await;
}

#[tokio::test]
async fn what_is_withdrawn_from_the_key_is_withdrawn_from_its_secrets() {
    let upstream = echoing().await;
    let mut app = ours(&upstream).start().await;
    let value = minted(&app, &session(MODEL)).await;
    let refusal = async |app: &aiproxy_testkit::App| app.socket("/v1/realtime").key(&value).refusal().await;
    let mut socket = app.socket("/v1/realtime").key(&value).open().await;
    assert!(app.change(|c| c["users"]["user1"]["status"] = "disabled".into()).await);
    assert_eq!(socket.closed().await, (4001, "revoked".to_owned()));
    let line = app.logged("the line", |line| line["request_id"] == socket.id().as_str()).await;
    assert_eq!((&line["outcome"], &line["error"]), (&json!("cut"), &json!("user_disabled")));
    assert_eq!(refusal(&app).await, (403, "user_disabled".into()));
    assert!(
        app.change(|c| {
            c["users"]["user1"]["status"] = "active".into();
            c["users"]["user1"]["models"] = json!(["gpt-4o"]);
        })
        .await
    );
    assert_eq!(refusal(&app).await, (403, "model_not_allowed".into()));
    assert!(
        app.change(|c| {
            c["users"]["user1"]["models"] = json!(["gpt-*"]);
            c["users"]["user1"]["expires_at"] = "2001-01-01".into();
        })
        .await
    );
    assert_eq!(refusal(&app).await, (403, "key_expired".into()));
    assert!(
        app.change(|c| {
            c["users"]["user1"].as_object_mut().unwrap().remove("expires_at");
            c["users"]["user1"]["allow_ips"] = json!(["10.9.8.7"]);
        })
        .await
    );
    assert_eq!(refusal(&app).await, (403, "ip_not_allowed".into()));
    assert!(app.change(|c| drop(c["users"]["user1"].as_object_mut().unwrap().remove("allow_ips"))).await);
    begins(&app, &value).await;
    let mut socket = app.socket("/v1/realtime").key(&value).open().await;
    assert!(app.change(|c| c["users"]["user1"]["proxy_key"] = "pk_user1_rotated_3Fh6Jk9".into()).await);
    assert_eq!(socket.closed().await, (4001, "revoked".to_owned()));
    assert_eq!(refusal(&app).await, (403, "secret_orphaned".into()));
    app.finish().await;
}
