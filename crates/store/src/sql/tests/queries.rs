use super::super::{Error, Field, Page, Query, Sort};
use super::*;

fn query(kind: EntityKind) -> Query {
    let sort = Sort { field: Field::Id, descending: false };
    Query { kind, search: None, filters: Vec::new(), sort, limit: 100, offset: 0 }
}

async fn people() -> Fresh {
    let fresh = fresh().await;
    let mut tx = fresh.store.write().await.unwrap();
    let people = [
        (
            "u1",
            json!({"name": "张三", "department": "技术部", "email": "Zhang@Example.com", "groups": ["g1"], "channels": ["c1"], "expires_at": "2027-01-01"}),
        ),
        (
            "u2",
            json!({"name": "Li Si", "department": "Sales", "status": "disabled", "channels": [{"id": "c1", "weight": 0.5}]}),
        ),
        (
            "u3",
            json!({"name": "100%_real", "department": "sales", "status": "active", "groups": ["g1", "g2"]}),
        ),
        (
            "u4",
            json!({"name": "alice", "notes": "robert'); DROP TABLE users; --", "expires_at": "2026-01-01"}),
        ),
    ];
    for (id, value) in people {
        tx.put(EntityKind::User, id, &fields(value)).await.unwrap();
    }
    tx.put(EntityKind::Group, "g1", &fields(json!({"channels": ["c1"]}))).await.unwrap();
    tx.put(
        EntityKind::Channel,
        "c1",
        &fields(json!({"platform": "openai", "base_url": "https://api.openai.com", "api_key": "sk-hidden"})),
    )
    .await
    .unwrap();
    tx.put(
        EntityKind::Key,
        "k1",
        &fields(json!({"user": "u1", "sha256": "e".repeat(64), "prefix": "pk_a", "status": "revoked"})),
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    fresh
}

async fn found(fresh: &Fresh, query: Query) -> Vec<String> {
    let page = fresh.store.list(&query).await.unwrap();
    assert_eq!(page.total, page.records.len() as u64);
    page.records.into_iter().map(|record| record.id).collect()
}

#[tokio::test]
async fn a_search_finds_what_contains_the_text() {
    let fresh = people().await;
    let cases: [(&str, &[&str]); 12] = [
        ("张", &["u1"]),
        ("技术", &["u1"]),
        ("ZHANG@", &["u1"]),
        ("li s", &["u2"]),
        ("U", &["u1", "u2", "u3", "u4"]),
        ("%", &["u3"]),
        ("_", &["u3"]),
        ("%_r", &["u3"]),
        ("!", &[]),
        ("'); DROP TABLE", &["u4"]),
        ("' OR '1'='1", &[]),
        ("\0", &[]),
    ];
    for (text, expected) in cases {
        let search = Some(text.to_owned());
        assert_eq!(found(&fresh, Query { search, ..query(EntityKind::User) }).await, expected, "{text}");
    }
    let long = Some("x".repeat(100_000));
    assert!(found(&fresh, Query { search: long, ..query(EntityKind::User) }).await.is_empty());
}

#[tokio::test]
async fn a_search_does_not_look_into_secrets() {
    let fresh = people().await;
    for (kind, text) in [(EntityKind::Channel, "sk-hid"), (EntityKind::Key, "eeee")] {
        assert!(found(&fresh, Query { search: Some(text.into()), ..query(kind) }).await.is_empty());
    }
}

#[tokio::test]
async fn filters_compare_whole_values() {
    let fresh = people().await;
    let cases: [(EntityKind, Field, &str, &[&str]); 17] = [
        (EntityKind::User, Field::Department, "SALES", &["u2", "u3"]),
        (EntityKind::User, Field::Department, "Sale", &[]),
        (EntityKind::User, Field::Department, "技术部", &["u1"]),
        (EntityKind::User, Field::Email, "zhang@example.com", &["u1"]),
        (EntityKind::User, Field::Status, "active", &["u1", "u3", "u4"]),
        (EntityKind::User, Field::Status, "disabled", &["u2"]),
        (EntityKind::User, Field::Group, "g1", &["u1", "u3"]),
        (EntityKind::User, Field::Channel, "c1", &["u1", "u2"]),
        (EntityKind::User, Field::Channel, "C1", &[]),
        (EntityKind::User, Field::ExpiresAt, "2027-01-01", &["u1"]),
        (EntityKind::User, Field::Name, "100%_real", &["u3"]),
        (EntityKind::User, Field::Name, "%", &[]),
        (EntityKind::User, Field::CreatedAt, "1 OR 1=1", &[]),
        (EntityKind::Group, Field::Channel, "c1", &["g1"]),
        (EntityKind::Channel, Field::Platform, "openai", &["c1"]),
        (EntityKind::Key, Field::User, "u1", &["k1"]),
        (EntityKind::Key, Field::Status, "active", &[]),
    ];
    for (kind, field, value, expected) in cases {
        let filters = vec![(field, value.to_owned())];
        assert_eq!(found(&fresh, Query { filters, ..query(kind) }).await, expected, "{field:?} {value}");
    }
    let both = vec![(Field::Group, "g1".into()), (Field::Group, "g2".into())];
    assert_eq!(found(&fresh, Query { filters: both, ..query(EntityKind::User) }).await, ["u3"]);
}

#[tokio::test]
async fn every_field_that_sorts_sorts() {
    let fresh = people().await;
    for kind in EntityKind::ALL {
        for field in Field::ALL {
            assert_eq!(Field::parse(kind, field.as_str()).is_some(), field.belongs_to(kind));
            let sort = Sort { field, descending: true };
            let page = fresh.store.list(&Query { sort, ..query(kind) }).await;
            let value = fresh.store.list(&Query { filters: vec![(field, "7".into())], ..query(kind) }).await;
            if !field.belongs_to(kind) {
                assert!(matches!(value, Err(Error::Query(_))));
            } else if field.sorts() {
                assert!(page.unwrap().total > 0, "{kind} {field:?}");
                continue;
            }
            assert!(matches!(page, Err(Error::Query(_))), "{kind} {field:?}");
        }
    }
}

#[tokio::test]
async fn orders_are_without_case_and_stable() {
    let fresh = people().await;
    let cases: [(Field, bool, &[&str]); 5] = [
        (Field::Name, false, &["u3", "u4", "u2", "u1"]),
        (Field::Name, true, &["u1", "u2", "u4", "u3"]),
        (Field::Department, true, &["u1", "u2", "u3", "u4"]),
        (Field::ExpiresAt, true, &["u1", "u4", "u2", "u3"]),
        (Field::CreatedAt, false, &["u1", "u2", "u3", "u4"]),
    ];
    for (field, descending, expected) in cases {
        let sort = Sort { field, descending };
        assert_eq!(found(&fresh, Query { sort, ..query(EntityKind::User) }).await, expected, "{field:?}");
    }
}

#[tokio::test]
async fn pages_follow_each_other() {
    let fresh = people().await;
    let mut seen = Vec::new();
    for offset in [0, 3, 6, u64::MAX] {
        let Page { records, total } =
            fresh.store.list(&Query { limit: 3, offset, ..query(EntityKind::User) }).await.unwrap();
        assert_eq!(total, 4);
        seen.extend(records);
    }
    let (_, all) = fresh.store.all().await.unwrap();
    assert_eq!(
        seen,
        all.iter().filter(|record| record.kind == EntityKind::User).cloned().collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn ids_may_be_anything() {
    let fresh = fresh().await;
    for id in ["' OR 1=1 --", "%", "张三", "a\"b;c", "u"] {
        put(&fresh.store, EntityKind::User, id, json!({"name": id})).await;
        put(&fresh.store, EntityKind::Key, id, json!({"user": id, "name": id})).await;
    }
    for id in ["' OR 1=1 --", "%", "张三", "a\"b;c"] {
        assert_eq!(fresh.store.record(EntityKind::User, id).await.unwrap().unwrap().id, id);
        assert_eq!(ids(&fresh.store.keys_of(id).await.unwrap()), [id]);
        let mut tx = fresh.store.write().await.unwrap();
        assert_eq!(tx.keys_of(id).await.unwrap().len(), 1);
        assert!(tx.delete(EntityKind::User, id).await.unwrap());
        tx.commit().await.unwrap();
    }
    assert_eq!(ids(&fresh.store.all().await.unwrap().1), ["u", "u"]);
}
