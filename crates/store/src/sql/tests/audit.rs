use super::super::{Actor, AuditEntry, AuditQuery};
use super::*;

fn entry(at: i64, actor: &str, action: &str, object: &str) -> AuditEntry {
    AuditEntry {
        at,
        actor: Actor { kind: "administrator".into(), id: actor.into(), name: format!("{actor} 先生") },
        from: "10.0.0.1".into(),
        request_id: format!("req-{at}"),
        action: action.into(),
        object_kind: action.split('.').next().unwrap().into(),
        object_id: object.into(),
        outcome: if at == 3 { "not_found".into() } else { "ok".into() },
        before: None,
        after: Some(json!({"name": object, "z": 1, "a": null})),
        detail: None,
    }
}

async fn filled() -> Fresh {
    let fresh = fresh().await;
    let mut tx = fresh.store.write().await.unwrap();
    let entries = [
        entry(1, "a", "user.create", "u1"),
        entry(2, "b", "user.update", "u1"),
        entry(3, "a", "channel.update", "c_1"),
        entry(4, "a", "users.import", ""),
        entry(5, "b", "user.delete", "u1"),
    ];
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!(tx.audit(entry).await.unwrap(), index as i64 + 1);
    }
    assert_eq!(tx.commit().await.unwrap(), 0);
    fresh
}

async fn found(fresh: &Fresh, query: AuditQuery) -> Vec<i64> {
    let limit = 10;
    let page = fresh.store.audit(&AuditQuery { limit, ..query }).await.unwrap();
    assert!(!page.more);
    page.records.iter().map(|record| record.id).collect()
}

#[tokio::test]
async fn records_come_back_as_they_were_newest_first() {
    let fresh = filled().await;
    let page = fresh.store.audit(&AuditQuery { limit: 10, ..AuditQuery::default() }).await.unwrap();
    let expected = [5, 4, 3, 2, 1];
    assert_eq!(page.records.iter().map(|record| record.id).collect::<Vec<_>>(), expected);
    assert_eq!(page.records[4].entry, entry(1, "a", "user.create", "u1"));
    let after = page.records[4].entry.after.as_ref().unwrap().to_string();
    assert_eq!(after, r#"{"name":"u1","z":1,"a":null}"#);
}

#[tokio::test]
async fn the_audit_is_read_in_pages() {
    let fresh = filled().await;
    let mut query = AuditQuery { limit: 2, ..AuditQuery::default() };
    let mut seen = Vec::new();
    loop {
        let page = fresh.store.audit(&query).await.unwrap();
        seen.extend(page.records.iter().map(|record| record.id));
        query.before_id = seen.last().copied();
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
    query = AuditQuery { limit: 5, ..AuditQuery::default() };
    assert!(!fresh.store.audit(&query).await.unwrap().more);
}

#[tokio::test]
async fn the_audit_is_filtered() {
    let fresh = filled().await;
    let some = |text: &str| Some(text.to_owned());
    let none = AuditQuery::default;
    assert_eq!(found(&fresh, AuditQuery { actor: some("a"), ..none() }).await, [4, 3, 1]);
    assert_eq!(found(&fresh, AuditQuery { actor: some("b 先生"), ..none() }).await, [5, 2]);
    assert_eq!(found(&fresh, AuditQuery { action: some("user."), ..none() }).await, [5, 2, 1]);
    assert_eq!(found(&fresh, AuditQuery { action: some("user"), ..none() }).await, [] as [i64; 0]);
    assert_eq!(found(&fresh, AuditQuery { action: some("user.update"), ..none() }).await, [2]);
    assert_eq!(found(&fresh, AuditQuery { action: some("%."), ..none() }).await, [] as [i64; 0]);
    assert_eq!(found(&fresh, AuditQuery { object_kind: some("channel"), ..none() }).await, [3]);
    assert_eq!(found(&fresh, AuditQuery { object_id: some("u1"), ..none() }).await, [5, 2, 1]);
    assert_eq!(found(&fresh, AuditQuery { outcome: some("not_found"), ..none() }).await, [3]);
    assert_eq!(found(&fresh, AuditQuery { from_ms: Some(2), until_ms: Some(4), ..none() }).await, [3, 2]);
    assert_eq!(found(&fresh, AuditQuery { search: some("_"), ..none() }).await, [3]);
    assert_eq!(found(&fresh, AuditQuery { search: some("REQ-4"), ..none() }).await, [4]);
    assert_eq!(found(&fresh, AuditQuery { search: some("' OR 1=1 --"), ..none() }).await, [] as [i64; 0]);
}

#[tokio::test]
async fn ids_of_records_that_were_pruned_are_not_given_again() {
    let fresh = filled().await;
    let mut tx = fresh.store.write().await.unwrap();
    assert_eq!(tx.prune_audit(6).await.unwrap(), 5);
    assert_eq!(tx.audit(&entry(9, "a", "user.create", "u9")).await.unwrap(), 6);
    tx.commit().await.unwrap();
    assert_eq!(found(&fresh, AuditQuery::default()).await, [6]);
}
