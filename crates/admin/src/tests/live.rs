//! What is under way, and how it ends: by hand, by offboarding, by denial.

use aiproxy_core::{ErrorKind, RequestId};
use aiproxy_registry::live::{Kind, Live, Registration};
use serde_json::json;

use super::api::{Login, is};
use super::documents::ids;
use super::*;

impl Bed {
    /// Something under way with the only key there is.
    fn begin(&self, kind: Kind) -> Registration {
        let snapshot = self.state.registry.snapshot();
        let user = snapshot.users().next().unwrap();
        let live = self.state.registry.register(Live::new(RequestId::fresh(), kind, user));
        live.set_channel(&"openai".into());
        live.set_model("gpt-4o");
        live
    }

    async fn keyed() -> (Self, Login, String) {
        let (bed, admin) = Self::peopled().await;
        let made = bed.make(&admin, "users/u/keys", json!({})).await;
        let id = made["key"]["id"].as_str().unwrap().to_owned();
        (bed, admin, id)
    }
}

#[tokio::test]
async fn what_is_under_way_is_listed_and_cut() {
    let (bed, admin, key) = Bed::keyed().await;
    let (socket, call) = (bed.begin(Kind::WebSocket), bed.begin(Kind::Call));
    for (query, total) in [
        ("", 2),
        ("user=u", 2),
        ("user=v", 0),
        (&*format!("key={key}"), 2),
        ("key=k_nothing", 0),
        ("channel=openai&model=gpt-4o", 2),
        ("kind=websocket", 1),
        ("older_than=3600", 0),
        ("limit=1", 2),
    ] {
        assert_eq!(bed.read(&admin, &format!("sessions?{query}")).await["total"], total, "{query}");
    }
    is(&bed.call(&admin, "GET", "/api/v1/sessions?kind=x", None).await, 400, "bad_request");
    let path = format!("/api/v1/sessions/{}", socket.id);
    assert_eq!(bed.call(&admin, "GET", &path, None).await.json()["channel"], "openai");
    let cut = bed.call(&admin, "DELETE", &path, None).await;
    assert_eq!(cut.json()["cut"][0]["id"], socket.id.as_str());
    assert_eq!((socket.is_cut(), call.is_cut()), (Some(ErrorKind::SessionEnded), None));
    is(&bed.call(&admin, "DELETE", "/api/v1/sessions/req_nothing", None).await, 404, "not_found");
    for wrong in [json!({}), json!({"user": "u", "channel": "openai"})] {
        is(&bed.post(&admin, "sessions/cut", wrong).await, 422, "invalid");
    }
    is(&bed.post(&admin, "sessions/cut", json!({"key": "k_nothing"})).await, 404, "not_found");
    let cut = bed.make(&admin, "sessions/cut", json!({"key": key})).await;
    assert_eq!(ids(&json!({"items": cut["cut"]})), [call.id.as_str()], "the other has been cut already");
    assert_eq!(bed.audit(&admin, "action=session.cut").await.len(), 2);
}

#[tokio::test]
async fn offboarding_ends_everything_with_one_record() {
    let (bed, admin, key) = Bed::keyed().await;
    let live = bed.begin(Kind::WebSocket);
    let once = admin.and("idempotency-key: leave");
    let done = bed.make(&once, "users/u/offboard", json!({"reason": "离职"})).await;
    assert_eq!((&done["user"]["status"], &done["keys_revoked"][0]["id"]), (&json!("disabled"), &json!(key)));
    assert_eq!(
        (&done["cut"][0]["id"], &done["cut"][0]["model"]),
        (&json!(live.id.as_str()), &json!("gpt-4o"))
    );
    assert_eq!(live.is_cut(), Some(ErrorKind::UserDisabled));
    assert_eq!(bed.read(&admin, &format!("keys/{key}")).await["status"], "revoked");
    assert_eq!(bed.audit(&admin, "object_id=u&action=user.offboard").await.len(), 1);
    let again = bed.post(&once, "users/u/offboard", json!({"reason": "离职"})).await;
    assert_eq!((again.header("idempotency-replayed"), again.json()), (Some("true"), done));
    is(&bed.post(&admin, "users/nobody/offboard", json!({})).await, 404, "not_found");
    // Without a body, and again: nothing is left to do.
    let answer = bed.call(&admin, "POST", "/api/v1/users/u/offboard", None).await;
    assert_eq!((answer.status, &answer.json()["keys_revoked"]), (200, &json!([])));
}

#[tokio::test]
async fn where_the_file_rules_offboarding_denies() {
    let (bed, admin) = Bed::file().await;
    let live = bed.begin(Kind::Http);
    let done = bed.make(&admin, "users/user1/offboard", json!({})).await;
    assert_eq!((&done["denied"], &done["cut"][0]["id"]), (&json!(true), &json!(live.id.as_str())));
    assert_eq!(live.is_cut(), Some(ErrorKind::UserDisabled));
    assert_eq!(bed.audit(&admin, "action=user.offboard").await.len(), 1);
    let denials = bed.read(&admin, "denials").await;
    assert_eq!(denials["total"], 2);
    let key = denials["items"].as_array().unwrap().iter().find(|it| it["kind"] == "key").unwrap();
    assert_eq!(key["key_id"], done["keys_revoked"][0]["id"]);
    assert_eq!(bed.call(&admin, "DELETE", "/api/v1/denials/user/user1", None).await.status, 200);
    let path = format!("/api/v1/denials/key/{}", key["key_id"].as_str().unwrap());
    assert_eq!(bed.call(&admin, "DELETE", &path, None).await.status, 200);
    is(&bed.call(&admin, "DELETE", &path, None).await, 404, "not_found");
    let id = key["key_id"].as_str().unwrap();
    assert_eq!(bed.make(&admin, &format!("keys/{id}/revoke"), json!({})).await["denied"], true);
}

#[tokio::test]
async fn denials_refuse_whoever_is_named() {
    let (bed, admin, key) = Bed::keyed().await;
    let live = bed.begin(Kind::Http);
    let denied = bed.make(&admin, "denials", json!({"key": key, "reason": "leaked"})).await;
    assert_eq!(
        (&denied["denial"]["kind"], &denied["cut"][0]["id"]),
        (&json!("key"), &json!(live.id.as_str()))
    );
    assert_eq!(live.is_cut(), Some(ErrorKind::KeyDisabled));
    bed.make(&admin, "denials", json!({"user": "not yet there"})).await;
    assert_eq!(bed.read(&admin, "denials?kind=key").await["items"][0]["reason"], "leaked");
    for (wrong, status, code) in [
        (json!({}), 422, "invalid"),
        (json!({"user": "u", "key": key}), 422, "invalid"),
        (json!({"key": "k_nothing"}), 404, "not_found"),
        (json!({"user": "u", "reason": "x".repeat(1001)}), 422, "invalid"),
    ] {
        is(&bed.post(&admin, "denials", wrong).await, status, code);
    }
    assert_eq!(bed.call(&admin, "DELETE", "/api/v1/denials/user/not%20yet%20there", None).await.status, 200);
}

#[tokio::test]
async fn a_deleted_user_ends_what_it_did() {
    let (bed, admin, _) = Bed::keyed().await;
    let live = bed.begin(Kind::Http);
    let gone = bed.call(&admin.and("if-match: *"), "DELETE", "/api/v1/users/u", None).await;
    assert_eq!(gone.json()["cut"][0]["id"], live.id.as_str());
    assert_eq!(bed.read(&admin, "keys").await["total"], 0);
}
