use aiproxy_core::Secret;

use super::super::{Administrator, Error, Idempotent, Lockout, Session, Token};
use super::*;

fn administrator(id: &str, name: &str) -> Administrator {
    Administrator {
        id: id.into(),
        name: name.into(),
        display_name: "根".into(),
        role: "administrator".into(),
        password_hash: Secret::new("$argon2id$very-secret".into()),
        status: "active".into(),
        must_change: true,
        created_at: 5,
        updated_at: 6,
        last_login_at: None,
        revision: 99,
    }
}

fn session(digit: u8, administrator: &str, expires_at: i64) -> Session {
    Session {
        sha256: [digit; 32],
        administrator: administrator.into(),
        csrf: [digit ^ 0xff; 32],
        created_at: 1,
        seen_at: 2,
        expires_at,
        address: "::1".into(),
        agent: "curl".into(),
    }
}

#[tokio::test]
async fn administrators_are_found_by_name_in_any_case() {
    let fresh = fresh().await;
    let store = &fresh.store;
    let mut tx = store.write().await.unwrap();
    tx.put_administrator(&administrator("1", "Ängel")).await.unwrap();
    tx.put_administrator(&Administrator {
        created_at: 50,
        last_login_at: Some(7),
        ..administrator("1", "Ängel")
    })
    .await
    .unwrap();
    let auditor = Administrator { role: "auditor".into(), ..administrator("2", "b") };
    tx.put_administrator(&auditor).await.unwrap();
    assert_eq!(tx.active_administrators().await.unwrap(), 1);
    assert_eq!(tx.administrator("2").await.unwrap().unwrap().role, "auditor");
    assert_eq!(tx.commit().await.unwrap(), 0);
    let found = store.administrator_by_name("äNGEL").await.unwrap().unwrap();
    assert_eq!((found.revision, found.created_at, found.last_login_at), (2, 5, Some(7)));
    assert_eq!(found.password_hash.expose(), "$argon2id$very-secret");
    assert!(!format!("{found:?}").contains("argon2id"));
    assert!(store.administrator_by_name("%").await.unwrap().is_none());
    assert_eq!(store.administrator("1").await.unwrap().unwrap().name, "Ängel");
    assert_eq!(store.administrators().await.unwrap().len(), 2);
    let mut tx = store.write().await.unwrap();
    let error = tx.put_administrator(&administrator("3", "ÄNGEL")).await.unwrap_err();
    assert!(matches!(&error, Error::Constraint(text) if text.contains("this name")), "{error}");
}

#[tokio::test]
async fn sessions_live_as_long_as_their_administrator() {
    let fresh = fresh().await;
    let store = &fresh.store;
    let mut tx = store.write().await.unwrap();
    tx.put_administrator(&administrator("1", "a")).await.unwrap();
    for (digit, expires_at) in [(1, 100), (2, 200), (3, 300)] {
        tx.put_session(&session(digit, "1", expires_at)).await.unwrap();
    }
    tx.touch_session(&[3; 32], 50).await.unwrap();
    tx.touch_session(&[3; 32], 40).await.unwrap();
    assert_eq!(tx.delete_expired(100).await.unwrap(), 1);
    assert!(tx.delete_session(&[2; 32]).await.unwrap());
    assert!(!tx.delete_session(&[2; 32]).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(store.session(&[1; 32]).await.unwrap(), None);
    let kept = store.session(&[3; 32]).await.unwrap().unwrap();
    assert_eq!(kept, Session { seen_at: 50, ..session(3, "1", 300) });

    let mut tx = store.write().await.unwrap();
    assert!(tx.delete_administrator("1").await.unwrap());
    assert!(!tx.delete_administrator("1").await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(store.session(&[3; 32]).await.unwrap(), None);
    let mut tx = store.write().await.unwrap();
    assert!(matches!(tx.put_session(&session(4, "1", 9)).await, Err(Error::Constraint(_))));
}

#[tokio::test]
async fn tokens_are_found_by_digest() {
    let fresh = fresh().await;
    let store = &fresh.store;
    let token = Token {
        id: "t1".into(),
        name: "部署".into(),
        sha256: [7; 32],
        prefix: "at_ab".into(),
        role: "auditor".into(),
        scopes: vec!["users:read".into(), "*".into()],
        created_by: "a".into(),
        created_at: 1,
        expires_at: Some(9),
        last_used_at: None,
        revoked_at: None,
    };
    let mut tx = store.write().await.unwrap();
    tx.put_token(&token).await.unwrap();
    tx.put_token(&Token { revoked_at: Some(8), ..token.clone() }).await.unwrap();
    tx.touch_token("t1", 6).await.unwrap();
    tx.touch_token("t1", 5).await.unwrap();
    tx.commit().await.unwrap();
    let expected = Token { revoked_at: Some(8), last_used_at: Some(6), ..token.clone() };
    assert_eq!(store.token_by_digest(&[7; 32]).await.unwrap(), Some(expected.clone()));
    assert_eq!(store.token_by_digest(&[8; 32]).await.unwrap(), None);
    assert_eq!(store.tokens().await.unwrap(), [expected]);
    let mut tx = store.write().await.unwrap();
    let twin = tx.put_token(&Token { id: "t2".into(), ..token }).await;
    assert!(matches!(twin, Err(Error::Constraint(_))));
    drop(tx);
    let mut tx = store.write().await.unwrap();
    assert!(tx.delete_token("t1").await.unwrap());
    assert!(!tx.delete_token("t1").await.unwrap());
}

#[tokio::test]
async fn failed_logins_are_remembered_for_a_day() {
    let fresh = fresh().await;
    let store = &fresh.store;
    let lockout = |failures, until, at| Lockout { subject: "name:a".into(), failures, until, at };
    let mut tx = store.write().await.unwrap();
    tx.put_lockout(&lockout(1, 0, 10)).await.unwrap();
    tx.put_lockout(&lockout(2, 20, 12)).await.unwrap();
    assert_eq!(tx.lockout("name:a").await.unwrap(), Some(lockout(2, 20, 12)));
    assert_eq!(tx.delete_expired(20 + 86_399).await.unwrap(), 0);
    tx.commit().await.unwrap();
    assert_eq!(store.lockout("name:a").await.unwrap(), Some(lockout(2, 20, 12)));
    let mut tx = store.write().await.unwrap();
    assert_eq!(tx.delete_expired(20 + 86_400).await.unwrap(), 1);
    tx.put_lockout(&lockout(1, 0, 10)).await.unwrap();
    tx.clear_lockout("name:a").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.lockout("name:a").await.unwrap(), None);
}

#[tokio::test]
async fn answers_are_kept_by_actor_and_key() {
    let fresh = fresh().await;
    let answer = Idempotent {
        actor: "token:t1".into(),
        key: "k".into(),
        fingerprint: [1; 32],
        status: 201,
        body: "{\"key\":\"pk_once\"}".into(),
        created_at: 10,
    };
    assert!(!format!("{answer:?}").contains("pk_once"));
    let mut tx = fresh.store.write().await.unwrap();
    tx.put_idempotent(&Idempotent { status: 200, ..answer.clone() }).await.unwrap();
    tx.put_idempotent(&answer).await.unwrap();
    assert_eq!(tx.idempotent("token:t1", "k").await.unwrap(), Some(answer));
    assert_eq!(tx.idempotent("token:t2", "k").await.unwrap(), None);
    assert_eq!(tx.expire_idempotent(10).await.unwrap(), 0);
    assert_eq!(tx.expire_idempotent(11).await.unwrap(), 1);
}

#[tokio::test]
async fn settings_are_json() {
    let fresh = fresh().await;
    let mut tx = fresh.store.write().await.unwrap();
    tx.put_setting("b", &json!({"x": [1, null]})).await.unwrap();
    tx.put_setting("a", &json!(1)).await.unwrap();
    tx.put_setting("a", &json!("二")).await.unwrap();
    assert_eq!(tx.commit().await.unwrap(), 0);
    assert_eq!(fresh.store.setting("a").await.unwrap(), Some(json!("二")));
    assert_eq!(fresh.store.setting("c").await.unwrap(), None);
    let all = Value::Object(fresh.store.settings().await.unwrap());
    assert_eq!(all.to_string(), json!({"a": "二", "b": {"x": [1, null]}}).to_string());
}
