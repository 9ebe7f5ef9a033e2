use std::time::Instant;

use super::super::{Field, Put, Query, Sort};
use super::*;

const MANY: usize = 10_000;

/// `cargo test --release -p aiproxy-store -- --ignored --nocapture scale`
#[tokio::test]
#[ignore = "a measurement, to be read by people"]
async fn ten_thousand_users_with_keys() {
    let fresh = fresh().await;
    let start = Instant::now();
    let mut tx = fresh.store.write().await.unwrap();
    let (mut users, mut keys) = (Vec::new(), Vec::new());
    for index in 0..MANY {
        let user = json!({
            "name": format!("用户{index}"), "department": format!("d{}", index % 50), "status": "active",
            "groups": ["g1"], "channels": ["c1", {"id": "c2", "weight": 5}], "models": ["gpt-*"],
        });
        users.push(Put { kind: EntityKind::User, id: format!("u{index}"), fields: fields(user) });
        let key = json!({"user": format!("u{index}"), "sha256": format!("{index:064x}"), "prefix": "pk_"});
        keys.push(Put { kind: EntityKind::Key, id: format!("k{index}"), fields: fields(key) });
    }
    tx.put_all(&users).await.unwrap();
    tx.put_all(&keys).await.unwrap();
    tx.commit().await.unwrap();
    println!("put_all of {MANY} users and keys: {:?}", start.elapsed());
    let start = Instant::now();
    let mut tx = fresh.store.write().await.unwrap();
    tx.put_all(&users).await.unwrap();
    tx.commit().await.unwrap();
    println!("put_all of {MANY} users again: {:?}", start.elapsed());
    let start = Instant::now();
    let mut tx = fresh.store.write().await.unwrap();
    for put in &users {
        tx.put(put.kind, &put.id, &put.fields).await.unwrap();
    }
    tx.commit().await.unwrap();
    println!("the same, one put each: {:?}", start.elapsed());
    let start = Instant::now();
    assert_eq!(fresh.store.all().await.unwrap().1.len(), 2 * MANY);
    println!("all: {:?}", start.elapsed());
    let start = Instant::now();
    let revision = put(&fresh.store, EntityKind::User, "u5000", json!({"name": "x"})).await;
    println!("one put: {:?}", start.elapsed());
    let start = Instant::now();
    assert_eq!(fresh.store.changes_since(revision - 1).await.unwrap().changed.len(), 1);
    println!("changes of one put: {:?}", start.elapsed());
    for (name, search, filters, field) in [
        ("by id", None, vec![], Field::Id),
        ("by name", None, vec![], Field::Name),
        ("by expiry", None, vec![], Field::ExpiresAt),
        ("search", Some("户99".to_owned()), vec![], Field::Id),
        ("department", None, vec![(Field::Department, "d7".to_owned())], Field::Name),
        ("channel", None, vec![(Field::Channel, "c1".to_owned())], Field::Name),
    ] {
        let sort = Sort { field, descending: false };
        let query = Query { kind: EntityKind::User, search, filters, sort, limit: 100, offset: 5000 };
        let start = Instant::now();
        let page = fresh.store.list(&query).await.unwrap();
        println!("list {name}: {} of {} in {:?}", page.records.len(), page.total, start.elapsed());
    }
    let used: Vec<_> = (0..MANY).map(|index| (format!("k{index}"), 7)).collect();
    let start = Instant::now();
    let mut tx = fresh.store.write().await.unwrap();
    tx.touch_keys(&used).await.unwrap();
    tx.commit().await.unwrap();
    println!("use of {MANY} keys: {:?}", start.elapsed());
    let start = Instant::now();
    let mut tx = fresh.store.write().await.unwrap();
    tx.clear().await.unwrap();
    tx.commit().await.unwrap();
    println!("clear: {:?}", start.elapsed());
}
