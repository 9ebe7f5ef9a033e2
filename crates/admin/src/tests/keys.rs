//! Proxy-Keys: shown once, replaced, revoked; the same request twice.

use serde_json::json;

use super::api::is;
use super::documents::ids;
use super::*;

#[tokio::test]
async fn a_key_is_shown_once_and_works_at_once() {
    let (bed, admin) = Bed::peopled().await;
    let made = bed.make(&admin, "users/u/keys", json!({"name": "laptop", "models": ["gpt-*"]})).await;
    let key = made["proxy_key"].as_str().unwrap();
    assert!(key.starts_with("pk_") && key.len() == 43);
    let id = made["key"]["id"].as_str().unwrap();
    assert!(id.starts_with("k_") && id.len() == 14, "{id}");
    let snapshot = bed.state.registry.snapshot();
    assert_eq!(aiproxy_routing::admit::authenticate(&snapshot, key).map(|user| &*user.id), Ok("u"));
    is(&bed.post(&admin, "users/u/keys", json!({})).await, 409, "key_exists");
    is(&bed.post(&admin, "users/nobody/keys", json!({})).await, 404, "not_found");
    let digest = aiproxy_core::KeyDigest::of(key.as_bytes()).hex();
    for path in
        ["keys", "keys?q=laptop&user=u&status=active", "users/u", &format!("keys/{id}"), "audit", "users"]
    {
        let answer = bed.call(&admin, "GET", &format!("/api/v1/{path}"), None).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.body.contains(key) && !answer.body.contains(&digest), "{path}");
    }
    assert_eq!(ids(&bed.read(&admin, "keys?user=u").await), [id]);
    let shown = bed.read(&admin, &format!("keys/{id}")).await;
    assert_eq!(shown["tag"], format!("{}…{}", &key[..8], &digest[..8]));
    assert_eq!((&shown["last_used_at"], &shown["user"]), (&Value::Null, &json!("u")));
}

#[tokio::test]
async fn a_rotated_key_has_its_grace_and_the_new_one_its_limits() {
    let (bed, admin) = Bed::peopled().await;
    let old = bed.make(&admin, "users/u/keys", json!({"name": "laptop", "models": ["gpt-*"]})).await;
    let id = old["key"]["id"].as_str().unwrap();
    is(&bed.post(&admin, &format!("keys/{id}/rotate"), json!({"grace": 99_999_999})).await, 422, "invalid");
    let new = bed.make(&admin, &format!("keys/{id}/rotate"), json!({"grace": 3600})).await;
    assert_eq!((&new["key"]["models"], &new["key"]["name"]), (&json!(["gpt-*"]), &json!("laptop")));
    assert!(new["replaced"]["retires_at"].is_string() && new["replaced"]["status"] == "active");
    is(&bed.post(&admin, &format!("keys/{id}/rotate"), json!({})).await, 409, "key_replaced");
    let works = |made: &Value| {
        let snapshot = bed.state.registry.snapshot();
        let user = aiproxy_routing::admit::authenticate(&snapshot, made["proxy_key"].as_str().unwrap());
        user.and_then(|user| aiproxy_routing::admit::check(user, crate::api::caller::now()))
    };
    assert_eq!((works(&old), works(&new)), (Ok(()), Ok(())));
    let id = new["key"]["id"].as_str().unwrap();
    let third = bed.make(&admin, &format!("keys/{id}/rotate"), json!({"grace": 0})).await;
    assert!(works(&new).is_err() && works(&third).is_ok());
    let id = third["key"]["id"].as_str().unwrap();
    assert_eq!(bed.make(&admin, &format!("keys/{id}/disable"), json!({})).await["key"]["status"], "disabled");
    assert!(works(&third).is_err());
    bed.make(&admin, &format!("keys/{id}/enable"), json!({})).await;
    assert!(works(&third).is_ok());
    bed.make(&admin, &format!("keys/{id}/revoke"), json!({})).await;
    for verb in ["enable", "disable", "rotate"] {
        is(&bed.post(&admin, &format!("keys/{id}/{verb}"), json!({})).await, 409, "key_revoked");
    }
    is(&bed.patch(&admin, &format!("keys/{id}"), "*", json!({"name": "x"})).await, 409, "key_revoked");
    let fourth = bed.make(&admin, "users/u/keys", json!({})).await;
    let id = fourth["key"]["id"].as_str().unwrap();
    is(&bed.patch(&admin, &format!("keys/{id}"), "*", json!({"status": "revoked"})).await, 422, "invalid");
    let patched = bed.patch(&admin, &format!("keys/{id}"), "*", json!({"expires_at": "2020-01-01"})).await;
    assert_eq!(patched.status, 200, "{}", patched.body);
    assert!(works(&fourth).is_err());
}

#[tokio::test]
async fn the_same_request_twice_is_done_once() {
    let (bed, admin) = Bed::peopled().await;
    let once = admin.and("idempotency-key: first-of-all");
    let made = bed.post(&once, "users/u/keys", json!({"name": "x"})).await;
    assert!(made.json()["proxy_key"].is_string());
    let again = bed.post(&once, "users/u/keys", json!({"name": "x"})).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, Some("true")));
    assert_eq!(
        (&again.json()["key"]["id"], &again.json()["proxy_key"]),
        (&made.json()["key"]["id"], &Value::Null)
    );
    is(&bed.post(&once, "users/u/keys", json!({"name": "y"})).await, 422, "idempotency_key_reused");
    is(&bed.post(&once, "users", json!({"name": "x"})).await, 422, "idempotency_key_reused");
    // What was refused has changed nothing, and may be sent again.
    let other = admin.and("idempotency-key: second");
    is(&bed.post(&other, "users", json!({"id": "v", "channels": ["late"]})).await, 422, "invalid");
    bed.make(
        &admin,
        "channels",
        json!({"id": "late", "api_key": "sk_0123456789", "base_url": "https://a.example"}),
    )
    .await;
    let body = json!({"id": "v", "channels": ["late"]});
    let (one, two) = (bed.post(&other, "users", body.clone()).await, bed.post(&other, "users", body).await);
    assert_eq!((one.status, &one.body, two.status), (201, &two.body, 201));
    for wrong in ["idempotency-key: a b", "idempotency-key: ", "idempotency-key: 张"] {
        is(&bed.post(&admin.and(wrong), "users", json!({})).await, 400, "bad_request");
    }
    let dump = std::fs::read(bed.folder.path().join("aiproxy.db-wal")).unwrap_or_default();
    let key = made.json()["proxy_key"].as_str().unwrap().to_owned();
    assert!(!String::from_utf8_lossy(&dump).contains(&key));
}

#[tokio::test]
async fn two_at_once_with_one_idempotency_key_make_one() {
    let (bed, admin) = Bed::peopled().await;
    let once = admin.and("idempotency-key: both");
    let (one, two) = tokio::join!(
        bed.post(&once, "users", json!({"name": "x"})),
        bed.post(&once, "users", json!({"name": "x"}))
    );
    assert_eq!(bed.read(&admin, "users?q=x").await["total"], 1, "{} {}", one.body, two.body);
    assert!(one.status == 201 || two.status == 201);
}
