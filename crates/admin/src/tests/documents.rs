//! Users, groups and channels as documents: made, changed by two, listed, deleted.

use serde_json::json;

use super::api::{Login, PASSWORD, is};
use super::*;

impl Bed {
    /// Where the database is what is edited; with the administrator signed in.
    pub(super) async fn database() -> (Self, Login) {
        Self::edited("system: {}\n").await
    }

    /// Where the file is what is edited.
    pub(super) async fn file() -> (Self, Login) {
        Self::edited(CONFIG).await
    }

    async fn edited(config: &str) -> (Self, Login) {
        let bed = Self::with(config, Bounds::default()).await;
        let given = Some(aiproxy_core::Secret::new(PASSWORD.into()));
        first::ensure(&bed.store(), bed.folder.path(), given).await.unwrap();
        let admin = bed.admin().await;
        (bed, admin)
    }

    pub(super) async fn post(&self, login: &Login, path: &str, body: Value) -> Answer {
        self.call(login, "POST", &format!("/api/v1/{path}"), Some(body)).await
    }

    /// A POST that has to succeed.
    pub(super) async fn make(&self, login: &Login, path: &str, body: Value) -> Value {
        let answer = self.post(login, path, body).await;
        assert!(matches!(answer.status, 200 | 201), "{path}: {} {}", answer.status, answer.body);
        answer.json()
    }

    pub(super) async fn read(&self, login: &Login, path: &str) -> Value {
        let answer = self.call(login, "GET", &format!("/api/v1/{path}"), None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    pub(super) async fn patch(&self, login: &Login, path: &str, tag: &str, body: Value) -> Answer {
        let login = login.and(&format!("if-match: {tag}"));
        self.call(&login, "PATCH", &format!("/api/v1/{path}"), Some(body)).await
    }

    /// With the channel `openai`, the group `g` and the user `u`, who may use it.
    pub(super) async fn peopled() -> (Self, Login) {
        let (bed, admin) = Self::database().await;
        let channel = json!({"id": "openai", "api_key": KEY, "base_url": "https://api.openai.com"});
        bed.make(&admin, "channels", channel).await;
        bed.make(&admin, "groups", json!({"id": "g", "name": "研发"})).await;
        let user = json!({"id": "u", "name": "张三", "department": "研发部", "groups": ["g"], "channels": ["openai"]});
        bed.make(&admin, "users", user).await;
        (bed, admin)
    }
}

pub(super) const KEY: &str = "sk_hunter2_0123456789";

pub(super) fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_user_is_made_changed_and_deleted_and_the_audit_has_it_all() {
    let (bed, admin) = Bed::peopled().await;
    let made = bed.post(&admin, "users", json!({"name": "李四", "notes": "${HOME} file:/etc/passwd"})).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let user = made.json();
    let id = user["id"].as_str().unwrap();
    assert!(id.starts_with("u_") && id.len() == 12, "{id}");
    assert_eq!(made.header("location"), Some(&*format!("/api/v1/users/{id}").replace('_', "%5F")));
    assert_eq!(made.header("etag"), Some(&*format!("\"{}\"", user["revision"])));
    assert_eq!((&user["status"], &user["notes"]), (&json!("active"), &json!("${HOME} file:/etc/passwd")));

    let path = format!("users/{id}");
    let changed = bed.patch(&admin, &path, "*", json!({"department": "市场部", "notes": null})).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!((&changed.json()["department"], changed.json().get("notes")), (&json!("市场部"), None));
    let shown = bed.read(&admin, &path).await;
    assert_eq!((&shown["department"], &shown["keys"]), (&json!("市场部"), &json!([])));
    // What was read may be sent back as it is.
    let mut whole = changed.json();
    whole["name"] = "李四四".into();
    let tag = changed.header("etag").unwrap();
    assert_eq!(bed.patch(&admin, &path, tag, whole).await.status, 200);

    for (verb, status) in [("disable", "disabled"), ("disable", "disabled"), ("enable", "active")] {
        assert_eq!(bed.make(&admin, &format!("{path}/{verb}"), json!({})).await["status"], status);
    }
    let any = admin.and("if-match: *");
    let gone = bed.call(&any, "DELETE", &format!("/api/v1/{path}"), None).await;
    assert_eq!((gone.status, gone.json()["deleted"].as_bool()), (200, Some(true)));
    is(&bed.call(&any, "DELETE", &format!("/api/v1/{path}"), None).await, 404, "not_found");
    let audit = bed.audit(&admin, &format!("object_id={id}")).await;
    let actions: Vec<_> = audit.iter().map(|(action, _)| &**action).collect();
    assert_eq!(
        actions,
        ["user.delete", "user.enable", "user.disable", "user.update", "user.update", "user.create"]
    );
}

#[tokio::test]
async fn of_two_editors_one_is_told() {
    let (bed, admin) = Bed::peopled().await;
    let read = bed.call(&admin, "GET", "/api/v1/users/u", None).await;
    let tag = read.header("etag").unwrap().to_owned();
    is(
        &bed.call(&admin, "PATCH", "/api/v1/users/u", Some(json!({"name": "a"}))).await,
        428,
        "if_match_required",
    );
    assert_eq!(bed.patch(&admin, "users/u", &tag, json!({"name": "a"})).await.status, 200);
    is(&bed.patch(&admin, "users/u", &tag, json!({"name": "b"})).await, 412, "changed_meanwhile");
    assert_eq!(bed.read(&admin, "users/u").await["name"], "a");
    is(&bed.call(&admin, "DELETE", "/api/v1/users/u", None).await, 428, "if_match_required");
    let login = admin.and(&format!("if-match: {tag}"));
    is(&bed.call(&login, "PUT", "/api/v1/users/u/mapping", Some(json!([]))).await, 412, "changed_meanwhile");
}

#[tokio::test]
async fn what_is_not_sound_is_refused_field_by_field() {
    let (bed, admin) = Bed::peopled().await;
    is(&bed.post(&admin, "users", json!({"id": "u"})).await, 409, "exists");
    is(&bed.post(&admin, "groups", json!({"name": "x"})).await, 422, "invalid");
    for body in [
        json!({"id": "x", "channels": ["nowhere"]}),
        json!({"id": "x", "salary": 1}),
        json!({"id": "x", "proxy_key": "pk_0123456789012345"}),
        json!({"id": "x", "keys": []}),
        json!({"id": "x", "revision": 1}),
        json!({"id": "bulk"}),
        json!({"id": 7}),
        json!({"id": "x", "status": "asleep"}),
        json!({"id": "x", "allow_ips": ["10.0.0.0/33"]}),
    ] {
        let answer = bed.post(&admin, "users", body.clone()).await;
        is(&answer, 422, "invalid");
        assert!(!answer.json()["error"]["problems"][0]["message"].is_null(), "{body}: {}", answer.body);
    }
    let answer = bed.send(&admin.fields, "POST", "/api/v1/users", "{}").await;
    assert_eq!(answer.status, 415, "{}", answer.body);
    let json = admin.and("content-type: application/json");
    is(&bed.send(&json.fields, "POST", "/api/v1/users", "{").await, 400, "bad_request");
    is(&bed.send(&json.fields, "POST", "/api/v1/users", "[]").await, 400, "bad_request");
}

#[tokio::test]
async fn lists_have_pages_and_no_character_is_special() {
    let (bed, admin) = Bed::peopled().await;
    for (id, name) in
        [("a", "100%"), ("b", "a_b"), ("c", "axb"), ("d", "'; DROP TABLE users; --"), ("e", "\\")]
    {
        bed.make(&admin, "users", json!({"id": id, "name": name, "department": "x"})).await;
    }
    for (query, expected) in [
        ("q=%25", &["a"][..]),
        ("q=_", &["b"]),
        ("q=a_b", &["b"]),
        ("q=%27%3B+DROP", &["d"]),
        ("q=%5C", &["e"]),
        ("q=%E5%BC%A0", &["u"]),
        ("department=x&sort=-id", &["e", "d", "c", "b", "a"]),
        ("department=%25", &[]),
        ("group=g", &["u"]),
        ("channel=openai", &["u"]),
        ("status=disabled", &[]),
        ("id_or=1", &[]),
    ] {
        if query == "id_or=1" {
            let answer = bed.call(&admin, "GET", &format!("/api/v1/users?{query}"), None).await;
            is(&answer, 400, "bad_request");
            continue;
        }
        let page = bed.read(&admin, &format!("users?{query}")).await;
        assert_eq!(
            (ids(&page), page["total"].as_u64()),
            (expected.to_vec(), Some(expected.len() as u64)),
            "{query}"
        );
    }
    let first = bed.call(&admin, "GET", "/api/v1/users?limit=4&sort=id", None).await;
    assert_eq!(ids(&first.json()), ["a", "b", "c", "d"]);
    assert_eq!(first.header("link"), Some("</api/v1/users?limit=4&sort=id&offset=4>; rel=\"next\""));
    let last = bed.call(&admin, "GET", "/api/v1/users?limit=4&sort=id&offset=4", None).await;
    assert_eq!(
        (ids(&last.json()), last.header("link"), &last.json()["total"]),
        (vec!["e", "u"], None, &json!(6))
    );
    for wrong in [
        "limit=0",
        "limit=501",
        "limit=x",
        "offset=-1",
        "sort=groups",
        "sort=;",
        "offset=9999999999999",
        "limit=1&limit=2",
        "q=%00",
    ] {
        is(&bed.call(&admin, "GET", &format!("/api/v1/users?{wrong}"), None).await, 400, "bad_request");
    }
}

#[tokio::test]
async fn what_is_used_is_not_deleted() {
    let (bed, admin) = Bed::peopled().await;
    let any = admin.and("if-match: *");
    for path in ["groups/g", "channels/openai"] {
        let answer = bed.call(&any, "DELETE", &format!("/api/v1/{path}"), None).await;
        is(&answer, 409, "in_use");
        assert!(answer.body.contains("1 user"), "{}", answer.body);
    }
    assert_eq!(
        bed.patch(&admin, "users/u", "*", json!({"groups": null, "channels": null})).await.status,
        200
    );
    for path in ["groups/g", "channels/openai"] {
        assert_eq!(bed.call(&any, "DELETE", &format!("/api/v1/{path}"), None).await.status, 200);
    }
}

#[tokio::test]
async fn many_are_switched_at_once_or_none() {
    let (bed, admin) = Bed::peopled().await;
    bed.make(&admin, "users", json!({"id": "v"})).await;
    let body = |ids: Value| json!({"ids": ids, "action": "disable"});
    is(&bed.post(&admin, "users/bulk", body(json!(["u", "nobody"]))).await, 422, "invalid");
    assert_eq!(bed.read(&admin, "users/u").await["status"], "active");
    let done = bed.make(&admin, "users/bulk", body(json!(["u", "v", "u"]))).await;
    assert_eq!((&done["changed"], &done["unchanged"]), (&json!(["u", "v"]), &json!(0)));
    assert_eq!(bed.read(&admin, "users?status=disabled").await["total"], 2);
    is(&bed.post(&admin, "users/bulk", body(json!([]))).await, 422, "invalid");
    assert_eq!(bed.audit(&admin, "action=user.bulk_disable").await.len(), 1);
    let done = bed.make(&admin, "channels/bulk", json!({"ids": ["openai"], "action": "disable"})).await;
    assert_eq!(done["changed"], json!(["openai"]));
}

#[tokio::test]
async fn a_mapping_has_order_and_weight() {
    let (bed, admin) = Bed::peopled().await;
    let login = admin.and("if-match: *");
    let list = json!([{"channel": "openai", "order": 1, "weight": 3}]);
    let answer = bed.call(&login, "PUT", "/api/v1/users/u/mapping", Some(list)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["channels"], json!([{"id": "openai", "order": 1, "weight": 3}]));
    for wrong in [json!([{"channel": "nowhere"}]), json!([{"channel": "openai", "order": 0}])] {
        is(&bed.call(&login, "PUT", "/api/v1/users/u/mapping", Some(wrong)).await, 422, "invalid");
    }
}

#[tokio::test]
async fn a_file_is_shown_and_not_edited() {
    let (bed, admin) = Bed::file().await;
    assert_eq!(ids(&bed.read(&admin, "users").await), ["user1"]);
    assert_eq!(ids(&bed.read(&admin, "channels?q=ALI&sort=-name").await), ["aliyun"]);
    assert_eq!(ids(&bed.read(&admin, "users?channel=openai&limit=1").await), ["user1"]);
    assert_eq!(bed.read(&admin, "users?q=%25").await["total"], 0);
    let user = bed.read(&admin, "users/user1").await;
    let key = user["keys"][0]["id"].as_str().unwrap().to_owned();
    assert!(user["keys"][0]["tag"].as_str().unwrap().starts_with("pk_u…"), "{user}");
    let login = admin.and("if-match: *");
    for (method, path, body) in [
        ("POST", "users".to_owned(), json!({"id": "x"})),
        ("PATCH", "users/user1".to_owned(), json!({"name": "x"})),
        ("DELETE", "users/user1".to_owned(), json!({})),
        ("POST", "users/user1/disable".to_owned(), json!({})),
        ("PUT", "users/user1/mapping".to_owned(), json!([])),
        ("POST", "users/user1/keys".to_owned(), json!({})),
        ("POST", "users/bulk".to_owned(), json!({"ids": ["user1"], "action": "disable"})),
        ("POST", format!("keys/{key}/rotate"), json!({})),
        ("PATCH", format!("keys/{key}"), json!({"name": "x"})),
        ("POST", "channels".to_owned(), json!({"id": "x"})),
        ("POST", "channels/openai/drain".to_owned(), json!({})),
        ("DELETE", "channels/openai".to_owned(), json!({})),
        ("POST", "groups".to_owned(), json!({"id": "x"})),
    ] {
        is(&bed.call(&login, method, &format!("/api/v1/{path}"), Some(body)).await, 409, "managed_by_file");
    }
}
