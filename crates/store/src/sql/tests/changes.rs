use std::collections::HashMap;

use aiproxy_core::KeyDigest;

use super::super::{Changes, Denial, DenialSubject};
use super::*;

fn gone(changes: &Changes) -> Vec<(&'static str, &str)> {
    changes.deleted.iter().map(|(kind, id)| (kind.as_str(), id.as_str())).collect()
}

#[tokio::test]
async fn changes_are_those_since_a_revision() {
    let fresh = fresh().await;
    let store = &fresh.store;
    let nothing = store.changes_since(0).await.unwrap();
    assert_eq!((nothing.revision, nothing.changed.len()), (0, 0));
    put(store, EntityKind::User, "u", json!({"groups": ["g"], "channels": ["c"], "models": ["m"]})).await;
    put(store, EntityKind::Group, "g", json!({"channels": ["c"]})).await;
    put(store, EntityKind::Channel, "c", json!({})).await;
    let changes = store.changes_since(1).await.unwrap();
    assert_eq!((changes.revision, ids(&changes.changed)), (3, vec!["c", "g"]));
    assert_eq!(store.changes_since(0).await.unwrap().changed, store.all().await.unwrap().1);
    let none = store.changes_since(3).await.unwrap();
    assert!(none.changed.is_empty() && none.deleted.is_empty());
    assert_eq!(store.revision().await.unwrap(), 3);
}

#[tokio::test]
async fn what_is_deleted_leaves_a_tombstone_until_it_is_there_again() {
    let fresh = fresh().await;
    let store = &fresh.store;
    put(store, EntityKind::User, "u", json!({"groups": ["g"], "channels": ["c"]})).await;
    put_key(store, "k1", "u", '1').await;
    put_key(store, "k2", "u", '2').await;
    let mut tx = store.write().await.unwrap();
    tx.touch_keys(&[("k1".into(), 5)]).await.unwrap();
    assert!(tx.delete(EntityKind::User, "u").await.unwrap());
    assert!(!tx.delete(EntityKind::User, "u").await.unwrap());
    assert!(!tx.delete(EntityKind::Channel, "never").await.unwrap());
    assert_eq!(tx.commit().await.unwrap(), 4);
    let changes = store.changes_since(3).await.unwrap();
    assert_eq!(gone(&changes), [("key", "k1"), ("key", "k2"), ("user", "u")]);
    assert!(store.last_used(&["k1".into()]).await.unwrap().is_empty());
    put(store, EntityKind::User, "u", json!({})).await;
    let changes = store.changes_since(3).await.unwrap();
    assert_eq!(gone(&changes), [("key", "k1"), ("key", "k2")]);
    // Nothing of the old user's groups and channels has come back.
    assert_eq!(text(&changes.changed[0].fields), "{}");
    assert!(store.changes_since(4).await.unwrap().deleted.is_empty());
}

#[tokio::test]
async fn clearing_deletes_all_documents_and_nothing_else() {
    let fresh = fresh().await;
    let store = &fresh.store;
    put(store, EntityKind::User, "u", json!({"groups": ["g"], "expires_at": "2027-01-01"})).await;
    put_key(store, "k", "u", 'c').await;
    let mut tx = store.write().await.unwrap();
    tx.put_setting("name", &json!("kept")).await.unwrap();
    tx.touch_keys(&[("k".into(), 5), ("other".into(), 6)]).await.unwrap();
    tx.clear().await.unwrap();
    tx.put(EntityKind::User, "v", &fields(json!({}))).await.unwrap();
    tx.put(EntityKind::User, "u", &fields(json!({}))).await.unwrap();
    tx.put(EntityKind::Key, "k", &fields(json!({"user": "v"}))).await.unwrap();
    assert_eq!(tx.commit().await.unwrap(), 3);
    assert_eq!(ids(&store.all().await.unwrap().1), ["v", "u", "k"]);
    assert!(store.changes_since(2).await.unwrap().deleted.is_empty());
    assert_eq!(store.setting("name").await.unwrap(), Some(json!("kept")));
    let used = store.last_used(&["k".into(), "other".into()]).await.unwrap();
    assert_eq!(used, HashMap::from([("k".into(), 5)]));
}

#[tokio::test]
async fn denials_count_as_changes_and_stand_once() {
    let fresh = fresh().await;
    let store = &fresh.store;
    let denial = |subject, at| Denial { subject, reason: "left".into(), by: "root".into(), at };
    let user = denial(DenialSubject::User("u".into()), 5);
    let key = denial(DenialSubject::Key(KeyDigest::of(b"pk")), 4);
    let mut tx = store.write().await.unwrap();
    assert!(tx.deny(&user).await.unwrap());
    assert!(tx.deny(&key).await.unwrap());
    assert!(!tx.deny(&Denial { reason: "again".into(), ..user.clone() }).await.unwrap());
    assert_eq!(tx.commit().await.unwrap(), 1);
    assert_eq!(store.denials().await.unwrap(), [key.clone(), user.clone()]);
    assert_eq!(store.changes_since(0).await.unwrap().denials, [key.clone(), user.clone()]);

    let mut tx = store.write().await.unwrap();
    assert!(!tx.deny(&user).await.unwrap());
    assert_eq!(tx.commit().await.unwrap(), 1);
    let mut tx = store.write().await.unwrap();
    assert!(tx.allow(&user.subject).await.unwrap());
    assert!(!tx.allow(&user.subject).await.unwrap());
    assert_eq!(tx.commit().await.unwrap(), 2);
    assert_eq!(store.denials().await.unwrap(), [key]);
}

#[tokio::test]
async fn the_use_of_keys_is_noted_beside_the_documents() {
    let fresh = fresh().await;
    let store = &fresh.store;
    put(store, EntityKind::User, "u", json!({})).await;
    put_key(store, "k", "u", 'd').await;
    let mut tx = store.write().await.unwrap();
    tx.touch_keys(&[("k".into(), 10), ("k".into(), 9), ("from-a-file".into(), 3)]).await.unwrap();
    assert_eq!(tx.commit().await.unwrap(), 2);
    let used = store.last_used(&["k".into(), "from-a-file".into(), "never".into()]).await.unwrap();
    assert_eq!(used, HashMap::from([("k".into(), 10), ("from-a-file".into(), 3)]));
    assert!(store.changes_since(2).await.unwrap().changed.is_empty());
}
