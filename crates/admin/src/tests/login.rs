//! Logins, sessions, lockout, passwords.

use serde_json::json;

use super::api::{Login, PASSWORD, is};
use super::*;

#[tokio::test]
async fn a_session_is_a_cookie_for_the_api_alone() {
    let bed = Bed::administered().await;
    let answer = bed.try_login("ADMIN", PASSWORD).await;
    let cookie = answer.header("set-cookie").unwrap();
    for part in ["aiproxy_session=", "; HttpOnly", "; SameSite=Strict", "; Path=/api", "; Max-Age=43200"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"));
    let id = cookie.split(['=', ';']).nth(1).unwrap().to_owned();
    let me = answer.json();
    assert_eq!((&me["role"], &me["must_change_password"]), (&json!("administrator"), &json!(false)));
    assert_eq!(me["administrator"]["name"], "admin");
    // Neither the id nor the password is anywhere in the database.
    for file in std::fs::read_dir(bed.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        for secret in [&*id, PASSWORD, me["csrf_token"].as_str().unwrap()] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
    }
    let tls = vec!["x-forwarded-proto: https".into(), "content-type: application/json".into()];
    let body = json!({"name": "admin", "password": PASSWORD}).to_string();
    let answer = bed.send(&tls, "POST", "/api/v1/login", &body).await;
    assert!(answer.header("set-cookie").unwrap().ends_with("; Secure"));
}

#[tokio::test]
async fn me_tells_the_token_again_and_logout_ends_the_session() {
    let bed = Bed::administered().await;
    let login = bed.admin().await;
    let me = bed.call(&login.cookie_alone(), "GET", "/api/v1/me", None).await.json();
    assert!(login.fields[1].ends_with(me["csrf_token"].as_str().unwrap()));
    assert_eq!(me["scopes"], json!(["*"]));
    let out = bed.call(&login, "POST", "/api/v1/logout", None).await;
    assert_eq!(out.status, 204);
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    is(&bed.call(&login, "GET", "/api/v1/me", None).await, 401, "not_signed_in");
    let again = bed.admin().await;
    let seen = bed.audit(&again, "action=log").await;
    assert!(seen.is_empty(), "a full stop ends a prefix: {seen:?}");
    let outcomes = bed.audit(&again, "object_kind=administrator").await;
    assert_eq!(
        outcomes.iter().map(|(action, _)| &**action).collect::<Vec<_>>(),
        ["login", "logout", "login", "administrator.create"]
    );
}

#[tokio::test]
async fn without_a_login_nothing_is_told() {
    let bed = Bed::administered().await;
    let nobody = Login::default();
    for path in ["/api/v1/me", "/api/v1/status", "/api/v1/openapi.json", "/api/v1/audit", "/api/v1/tokens"] {
        let answer = bed.call(&nobody, "GET", path, None).await;
        is(&answer, 401, "not_signed_in");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(answer.header("x-aiproxy-request-id").unwrap().starts_with("req_"));
    }
    let forged = Login { fields: vec![format!("cookie: aiproxy_session={}", "A".repeat(43))] };
    is(&bed.call(&forged, "GET", "/api/v1/me", None).await, 401, "not_signed_in");
    let token = format!("at_{}", "A".repeat(40));
    is(&bed.call(&Login::token(&token), "GET", "/api/v1/me", None).await, 401, "invalid_token");
    is(&bed.call(&Login::token("x"), "GET", "/api/v1/me", None).await, 401, "invalid_token");
    is(&bed.call(&nobody, "DELETE", "/api/v1/me", None).await, 405, "method_not_allowed");
}

#[tokio::test]
async fn failures_make_the_next_attempt_wait_even_with_the_right_password_and_after_a_restart() {
    let bed = Bed::administered().await;
    let login = bed.admin().await;
    for name in ["admin", "nobody"] {
        for _ in 0..5 {
            is(&bed.try_login(name, "wrong horse battery").await, 401, "wrong_login");
        }
        let answer = bed.try_login(name, PASSWORD).await;
        is(&answer, 429, "locked_out");
        assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().unwrap() >= 1));
    }
    // Another process on the same database knows it.
    let known = bed.store().lockout("name:admin").await.unwrap().unwrap();
    assert_eq!(known.failures, 5);
    let outcomes = bed.audit(&login, "action=login&actor=").await;
    assert!(outcomes.len() <= 12);
    assert!(outcomes.contains(&("login".into(), "locked_out".into())), "{outcomes:?}");
    assert!(outcomes.contains(&("login".into(), "wrong_login".into())));

    let mut tx = bed.store().write().await.unwrap();
    tx.put_lockout(&aiproxy_store::Lockout { until: 0, ..known }).await.unwrap();
    tx.commit().await.unwrap();
    bed.admin().await;
    assert_eq!(bed.store().lockout("name:admin").await.unwrap(), None);
    // Ten failures from here; the success took only its own count back.
    assert_eq!(bed.store().lockout("address:127.0.0.1").await.unwrap().unwrap().failures, 10);
}

#[tokio::test]
async fn an_address_that_guesses_names_has_to_wait_too() {
    let bed = Bed::administered().await;
    for n in 0..20 {
        is(&bed.try_login(&format!("name{n}"), "wrong horse battery").await, 401, "wrong_login");
    }
    is(&bed.try_login("admin", PASSWORD).await, 429, "locked_out");
    assert_eq!(bed.store().lockout("name:admin").await.unwrap(), None);
}

#[tokio::test]
async fn many_attempts_at_one_time_win_nothing() {
    let bed = Arc::new(Bed::administered().await);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let bed = Arc::clone(&bed);
        tasks.spawn(async move { bed.try_login("admin", "wrong horse battery").await.status });
    }
    let answers = tasks.join_all().await;
    // The wait after the fifth is a second: the few that come after it may be looked at.
    assert!(answers.iter().filter(|status| **status == 401).count() < 10, "{answers:?}");
    assert!(answers.contains(&429), "{answers:?}");
}

#[tokio::test]
async fn a_change_with_the_cookie_needs_its_token_and_our_own_page() {
    let bed = Bed::administered().await;
    let login = bed.admin().await;
    let address = bed.admin.addresses()[0];
    let change = async |login: &Login| {
        bed.call(login, "PATCH", "/api/v1/settings", Some(json!({"session_idle": 600}))).await
    };
    is(&change(&login.cookie_alone()).await, 403, "csrf");
    is(&change(&login.cookie_alone().and("x-csrf-token: 0")).await, 403, "csrf");
    is(&change(&login.and("origin: http://evil.example")).await, 403, "wrong_origin");
    is(&change(&login.and("sec-fetch-site: same-site")).await, 403, "wrong_origin");
    let ours = login.and(&format!("origin: http://{address}")).and("sec-fetch-site: same-origin");
    assert_eq!(change(&ours).await.status, 200);
    let evil = Login::default().and("origin: http://evil.example");
    let body = json!({"name": "admin", "password": PASSWORD});
    is(&bed.call(&evil, "POST", "/api/v1/login", Some(body)).await, 403, "wrong_origin");
    let refused = bed.audit(&login, "action=access.refuse").await;
    assert_eq!(refused.len(), 4, "{refused:?}");
    assert_eq!(bed.audit(&login, "outcome=wrong_origin&action=login").await.len(), 1);
}

#[tokio::test]
async fn idle_sessions_end_and_so_do_old_ones() {
    let bed = Bed::administered().await;
    let login = bed.admin().await;
    let id = login.fields[0].split('=').nth(1).unwrap().to_owned();
    let digest = *aiproxy_core::KeyDigest::of(id.as_bytes()).as_bytes();
    let session = bed.store().session(&digest).await.unwrap().unwrap();
    let put = async |change: &dyn Fn(&mut aiproxy_store::Session)| {
        let mut changed = session.clone();
        change(&mut changed);
        let mut tx = bed.store().write().await.unwrap();
        tx.put_session(&changed).await.unwrap();
        tx.commit().await.unwrap();
        bed.call(&login, "GET", "/api/v1/me", None).await.status
    };
    assert_eq!(put(&|session| session.seen_at -= 1801).await, 401);
    assert_eq!(put(&|session| session.expires_at = session.created_at).await, 401);
    assert_eq!(put(&|_| {}).await, 200);
}

#[tokio::test]
async fn a_one_time_password_is_changed_before_anything_else() {
    let bed = Bed::new().await;
    first::ensure_at(&bed.store(), bed.folder.path(), None, false).await.unwrap();
    let file = bed.folder.path().join("first-admin-password");
    let once = std::fs::read_to_string(&file).unwrap();
    let once = once.trim();
    let login = bed.login("admin", once).await;
    let other = bed.login("admin", once).await;
    assert_eq!(bed.call(&login, "GET", "/api/v1/me", None).await.json()["must_change_password"], true);
    for path in ["/api/v1/status", "/api/v1/administrators", "/api/v1/openapi.json"] {
        is(&bed.call(&login, "GET", path, None).await, 403, "password_change_required");
    }
    let change = async |current: &str, new: &str| {
        bed.call(&login, "POST", "/api/v1/password", Some(json!({"current": current, "new": new}))).await
    };
    is(&change(once, "short").await, 422, "invalid");
    is(&change(once, once).await, 422, "invalid");
    is(&change("wrong horse battery", PASSWORD).await, 403, "wrong_password");
    assert!(file.exists());
    assert_eq!(change(once, PASSWORD).await.status, 204);
    assert!(!file.exists());
    assert_eq!(bed.call(&login, "GET", "/api/v1/status", None).await.status, 200);
    is(&bed.call(&other, "GET", "/api/v1/me", None).await, 401, "not_signed_in");
    is(&bed.try_login("admin", once).await, 401, "wrong_login");
}

#[tokio::test]
async fn bodies_are_json_of_a_bounded_size_and_arrive_in_time() {
    let bed = Bed::administered().await;
    let json = "content-type: application/json".to_owned();
    let send = async |fields: &[String], body: &str| bed.send(fields, "POST", "/api/v1/login", body).await;
    is(&send(&[], "{}").await, 415, "unsupported_media_type");
    is(&send(&["content-type: text/plain".into()], "{}").await, 415, "unsupported_media_type");
    is(&send(std::slice::from_ref(&json), "{").await, 400, "bad_request");
    is(
        &send(std::slice::from_ref(&json), "{\"name\": \"a\", \"password\": \"b\", \"x\": 1}").await,
        400,
        "bad_request",
    );
    let secret = send(std::slice::from_ref(&json), "{\"name\": 1, \"password\": \"very-secret\"}").await;
    assert!(!secret.body.contains("secret"), "{}", secret.body);
    is(&send(&[json], &" ".repeat(17 * 1024)).await, 413, "body_too_large");
    let chunked = format!(
        "POST /api/v1/login HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5000\r\n{}\r\n0\r\n\r\n",
        " ".repeat(0x5000)
    );
    is(&bed.raw(&chunked).await, 413, "body_too_large");
}
