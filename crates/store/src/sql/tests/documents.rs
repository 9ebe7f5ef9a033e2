use proptest::prelude::*;
use serde_json::Map;

use super::super::{Error, Put};
use super::*;

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i16>().prop_map(|number| Value::from(f64::from(number) / 4.0)),
        any::<String>().prop_map(Value::from),
        Just(Value::from("a'; DROP TABLE users; --")),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,6}", inner), 0..4).prop_map(|pairs| Map::from_iter(pairs).into()),
        ]
    })
}

/// Lists of the shapes that users and groups have, and nearly so.
fn list() -> impl Strategy<Value = Value> {
    let id = prop_oneof![Just("a".to_owned()), Just("通道".to_owned()), ".{0,5}"];
    let entry = (id.clone(), any::<Option<i64>>(), any::<Option<i64>>(), any::<bool>(), any::<bool>())
        .prop_map(|(id, order, weight, turned, extra)| {
            let mut entry = Map::new();
            let mut pairs = vec![("id", Value::from(id)), ("order", order.into()), ("weight", weight.into())];
            if turned {
                pairs.reverse();
            }
            for (name, value) in pairs {
                if !value.is_null() || extra {
                    entry.insert(name.into(), value);
                }
            }
            Value::Object(entry)
        });
    prop::collection::vec(prop_oneof![3 => id.prop_map(Value::from), 2 => entry], 0..5).prop_map(Value::from)
}

fn any_fields() -> impl Strategy<Value = Fields> {
    let name = prop_oneof![
        9 => prop::sample::select(vec![
            "name", "department", "email", "phone", "employee_number", "notes", "status", "groups", "channels",
            "models", "endpoints", "allow_ips", "valid_from", "expires_at", "platform", "base_url", "api_key",
            "user", "sha256", "prefix", "retires_at", "id", "layout", "more", "revision",
        ])
        .prop_map(str::to_owned),
        1 => ".{0,6}",
    ];
    let value = prop_oneof![2 => any::<String>().prop_map(Value::from), 2 => list(), 1 => anything()];
    prop::collection::vec((name, value), 0..16).prop_map(|pairs| Fields(Map::from_iter(pairs)))
}

#[test]
fn what_was_put_comes_back_as_it_was() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fresh = runtime.block_on(fresh());
    runtime.block_on(put(&fresh.store, EntityKind::User, "u", json!({})));
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(first in any_fields(), second in any_fields(), id in ".{1,8}")| {
        runtime.block_on(async {
            let mut tx = fresh.store.write().await.unwrap();
            for kind in EntityKind::ALL {
                for mut fields in [first.clone(), second.clone()] {
                    if kind == EntityKind::Key && fields.text("user").is_some() {
                        fields.0.insert("user".into(), "u".into());
                    }
                    tx.put(kind, &id, &fields).await.unwrap();
                    let back = tx.record(kind, &id).await.unwrap().unwrap();
                    assert_eq!(text(&back.fields), text(&fields), "{kind}");
                }
            }
        });
    });
}

#[tokio::test]
async fn usual_documents_lie_in_columns() {
    let fresh = fresh().await;
    let channel = json!({"name": "n", "platform": "openai", "api_key": "sk-x", "base_url": "https://a", "status": "active"});
    put(&fresh.store, EntityKind::Channel, "c", channel).await;
    let user = json!({
        "name": "张三", "groups": ["g"], "channels": ["c", {"id": "d", "order": 1, "weight": 5}],
        "models": ["gpt-*"], "valid_from": "2026-01-01", "expires_at": "2027-01-01",
    });
    put(&fresh.store, EntityKind::User, "u", user).await;
    let mut link = fresh.store.pool.read().await.unwrap();
    for table in ["SELECT more FROM channels", "SELECT more FROM users", "SELECT item FROM mapping"] {
        for row in link.rows(link.sql(table)).await.unwrap() {
            assert_eq!(row.maybe_text(0).unwrap(), None, "{table}");
        }
    }
    let statement = link.sql("SELECT channel, priority, weight FROM mapping ORDER BY position");
    let rows = link.rows(statement).await.unwrap();
    assert_eq!(rows[1].text(0).unwrap(), "d");
    assert_eq!((rows[1].maybe_int(1).unwrap(), rows[1].maybe_int(2).unwrap()), (Some(1), Some(5)));
}

#[tokio::test]
async fn a_record_keeps_its_place_and_when_it_was_made() {
    let fresh = fresh().await;
    for id in ["z", "a", "m"] {
        put(&fresh.store, EntityKind::User, id, json!({"name": id})).await;
    }
    let mut link = fresh.store.pool.write().await.unwrap();
    link.execute(link.sql("UPDATE users SET created_at = 7, updated_at = 7")).await.unwrap();
    link.commit().await.unwrap();
    assert_eq!(put(&fresh.store, EntityKind::User, "z", json!({"name": "changed"})).await, 4);
    put(&fresh.store, EntityKind::Channel, "c", json!({})).await;
    let (revision, all) = fresh.store.all().await.unwrap();
    assert_eq!(revision, 5);
    assert_eq!(ids(&all), ["c", "z", "a", "m"]);
    assert_eq!((all[1].created_at, all[1].revision), (7, 4));
    assert!(all[1].updated_at > 7);
    assert_eq!(all[1].fields.text("name"), Some("changed"));
}

#[tokio::test]
async fn many_puts_at_once_are_as_one_after_the_other() {
    let fresh = fresh().await;
    let (one, many) = (&super::fresh().await, &fresh);
    let mut puts =
        vec![Put { kind: EntityKind::User, id: "u3".into(), fields: fields(json!({"name": "old"})) }];
    for index in 0..250 {
        let user = json!({"name": index.to_string(), "groups": ["a", "b"], "channels": [{"id": "c", "order": index}]});
        puts.push(Put { kind: EntityKind::User, id: format!("u{index}"), fields: fields(user) });
        if index % 90 == 0 {
            puts.push(Put {
                kind: EntityKind::Channel,
                id: "c".into(),
                fields: fields(json!({"name": index})),
            });
            puts.push(Put {
                kind: EntityKind::User,
                id: "u0".into(),
                fields: fields(json!({"models": ["m"]})),
            });
        }
    }
    let mut tx = many.store.write().await.unwrap();
    tx.put_all(&[]).await.unwrap();
    tx.put_all(&puts).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = one.store.write().await.unwrap();
    for put in &puts {
        tx.put(put.kind, &put.id, &put.fields).await.unwrap();
    }
    tx.commit().await.unwrap();
    let documents = |all: Vec<Record>| {
        all.into_iter().map(|record| (record.id, text(&record.fields), record.revision)).collect::<Vec<_>>()
    };
    let expected = documents(one.store.all().await.unwrap().1);
    assert_eq!(documents(many.store.all().await.unwrap().1), expected);
    assert_eq!((expected.len(), expected[1].0.as_str()), (251, "u3"));
}

#[tokio::test]
async fn long_lists_are_kept_whole() {
    let fresh = fresh().await;
    let many: Vec<Value> = (0..1700).map(|at| json!({"id": format!("c{at}"), "weight": at})).collect();
    let groups: Vec<String> = (0..1200).map(|at| format!("g{at}")).collect();
    let user = json!({"channels": many, "groups": groups});
    put(&fresh.store, EntityKind::User, "u", user.clone()).await;
    let record = fresh.store.record(EntityKind::User, "u").await.unwrap().unwrap();
    assert_eq!(text(&record.fields), user.to_string());
}

#[tokio::test]
async fn what_must_hold_holds_and_errors_show_no_values() {
    let fresh = fresh().await;
    put(&fresh.store, EntityKind::User, "u", json!({})).await;
    put_key(&fresh.store, "k1", "u", 'a').await;
    let mut tx = fresh.store.write().await.unwrap();
    let twin = fields(json!({"user": "u", "sha256": "A".repeat(64)}));
    let error = tx.put(EntityKind::Key, "k2", &twin).await.unwrap_err();
    assert!(matches!(&error, Error::Constraint(text) if text.contains("same SHA-256")), "{error}");
    assert!(!format!("{error}{error:?}").contains("AAAA"));
    drop(tx);
    let mut tx = fresh.store.write().await.unwrap();
    let orphan = fields(json!({"user": "nobody-9", "sha256": "b".repeat(64)}));
    let error = tx.put(EntityKind::Key, "k2", &orphan).await.unwrap_err();
    assert!(matches!(&error, Error::Constraint(text) if text.contains("does not exist")), "{error}");
    assert!(!format!("{error}{error:?}{tx:?}").contains("nobody-9"));
    drop(tx);
    assert_eq!(fresh.store.all().await.unwrap().1.len(), 2);
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_nothing() {
    let fresh = fresh().await;
    put(&fresh.store, EntityKind::User, "u", json!({"name": "before"})).await;
    let mut tx = fresh.store.write().await.unwrap();
    tx.put(EntityKind::User, "u", &fields(json!({"name": "after"}))).await.unwrap();
    tx.put(EntityKind::Channel, "c", &fields(json!({}))).await.unwrap();
    assert_eq!(tx.record(EntityKind::User, "u").await.unwrap().unwrap().fields.text("name"), Some("after"));
    // Readers wait for nobody and see what stands.
    let seen = fresh.store.record(EntityKind::User, "u").await.unwrap().unwrap();
    assert_eq!(seen.fields.text("name"), Some("before"));
    drop(tx);
    let (revision, all) = fresh.store.all().await.unwrap();
    assert_eq!((revision, ids(&all)), (1, vec!["u"]));
    assert_eq!(put(&fresh.store, EntityKind::User, "v", json!({})).await, 2);
}

#[tokio::test]
async fn writers_wait_for_each_other() {
    let fresh = fresh().await;
    let mut first = fresh.store.write().await.unwrap();
    // Another program has connections of its own.
    let other = Store::open(&fresh.path).await.unwrap();
    let later = [fresh.store.clone(), other].map(|store| {
        tokio::spawn(async move {
            let mut tx = store.write().await.unwrap();
            let seen = tx.record(EntityKind::User, "u").await.unwrap().is_some();
            tx.put(EntityKind::Group, "g", &fields(json!({}))).await.unwrap();
            (seen, tx.commit().await.unwrap())
        })
    });
    tokio::task::yield_now().await;
    first.put(EntityKind::User, "u", &fields(json!({}))).await.unwrap();
    assert_eq!(first.commit().await.unwrap(), 1);
    let mut revisions = Vec::new();
    for task in later {
        let (seen, revision) = task.await.unwrap();
        assert!(seen);
        revisions.push(revision);
    }
    revisions.sort_unstable();
    assert_eq!(revisions, [2, 3]);
}

#[tokio::test]
async fn who_waits_too_long_is_told_so() {
    let fresh = fresh().await;
    let impatient = impatient(&fresh.path).await;
    let held = impatient.write().await.unwrap();
    // The same program, and another one.
    assert!(matches!(impatient.write().await, Err(Error::Busy)));
    let other = super::impatient(&fresh.path).await;
    assert!(matches!(other.write().await, Err(Error::Busy)));
    drop(held);
    assert!(impatient.write().await.is_ok());
}
