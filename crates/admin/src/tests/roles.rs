//! Who may do what: the table, tokens, administrators, audit, the documents.

use std::collections::BTreeSet;

use serde_json::json;

use super::api::{Login, PASSWORD, is};
use super::*;
use crate::api::access::{self, Access, Right};

/// Each operation of the document: method, path.
fn described() -> BTreeSet<(String, String)> {
    let document: Value = serde_json::from_str(&openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, operations)| {
        operations.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
    });
    operations.collect()
}

#[test]
fn the_table_has_what_the_document_has() {
    let described = described();
    let known: BTreeSet<_> = access::routes()
        .filter(|route| route.path != "/api")
        .map(|route| (route.method.to_owned(), route.path.to_owned()))
        .collect();
    let undocumented: Vec<_> = known.difference(&described).collect();
    let unguarded: Vec<_> = described.difference(&known).collect();
    assert!(unguarded.is_empty(), "not in the table: {unguarded:?}");
    assert!(undocumented.is_empty(), "not in the document: {undocumented:?}");
}

#[test]
fn the_document_and_the_guide_are_those_in_docs() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let (document, guide) = (docs.join("openapi.json"), docs.join("admin-api.md"));
    let text = std::fs::read_to_string(&guide).unwrap();
    let (begin, end) = ("<!-- routes -->\n", "<!-- /routes -->");
    let (before, rest) = text.split_once(begin).expect("the guide has a table of routes");
    let (_, after) = rest.split_once(end).unwrap();
    let written = format!("{before}{begin}{}{end}{after}", table());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&document, openapi()).unwrap();
        std::fs::write(&guide, &written).unwrap();
    }
    let hint = "run the tests with UPDATE_DOCS=1";
    assert!(
        std::fs::read_to_string(&document).unwrap_or_default() == openapi(),
        "docs/openapi.json is old: {hint}"
    );
    assert!(std::fs::read_to_string(&guide).unwrap() == written, "docs/admin-api.md is old: {hint}");
}

/// Two types of one name would be one schema in the document, and one of them a lie.
#[test]
fn no_two_schemas_share_a_name() {
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api")];
    let mut names = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                for name in schemas_in(&std::fs::read_to_string(&path).unwrap()) {
                    assert!(names.insert(name.clone()), "{name} is there twice, once in {}", path.display());
                }
            }
        }
    }
    assert!(names.contains("NewToken") && names.contains("FieldProblem"), "{names:?}");
}

/// The names that a source file gives to schemas.
fn schemas_in(source: &str) -> Vec<String> {
    let after = |text: &str, mark: &str| {
        let rest = text.split(mark).nth(1)?;
        rest.split(|letter: char| !letter.is_alphanumeric()).next().map(str::to_owned)
    };
    let derived =
        source.split("#[derive(").skip(1).filter(|item| item.split(']').next().unwrap().contains("ToSchema"));
    let named = derived.filter_map(|item| {
        let head = item.split('{').next().unwrap();
        after(head, "schema(as = ").or_else(|| after(head, "struct ")).or_else(|| after(head, "enum "))
    });
    named.collect()
}

/// The routes as the guide shows them.
fn table() -> String {
    let mut table = String::from(
        "| route | no login | auditor | administrator | scope of a token |\n|---|---|---|---|---|\n",
    );
    for route in access::routes() {
        let (open, auditor, scope) = match route.access {
            Access::Open => ("yes", "yes", "none".to_owned()),
            Access::Own => ("401", "yes", "any; the password need not be changed first".to_owned()),
            Access::Any => ("401", "yes", "any".to_owned()),
            Access::Needs(_, Right::Read) => ("401", "yes", format!("`{}`", route.access)),
            Access::Needs(_, Right::Write) => ("401", "403", format!("`{}`", route.access)),
        };
        table += &format!("| {} `{}` | {open} | {auditor} | yes | {scope} |\n", route.method, route.path);
    }
    table
}

/// A request that would change nothing even if it were let through: nothing has this id.
fn target(path: &str) -> String {
    path.replace("{id}", "nothing").replace("{kind}", "user").replace("{subject}", "nothing")
}

#[tokio::test]
async fn every_route_holds_to_the_table_for_every_role() {
    let bed = Bed::administered().await;
    let admin = bed.admin().await;
    let (_, auditor) = bed.somebody(&admin, "auditor", "auditor").await;
    let (_, narrow) = bed.token(&admin, "administrator", &["denials:read"]).await;
    let described = described();
    let routes =
        access::routes().filter(|route| described.contains(&(route.method.into(), route.path.into())));
    for route in routes.filter(|route| !route.path.ends_with("/logout")) {
        let ask = async |login: &Login| bed.call(login, route.method, &target(route.path), None).await.status;
        let (nobody, auditor) = (ask(&Login::default()).await, ask(&auditor).await);
        let narrow = ask(&narrow).await;
        let refused = [401, 403];
        match route.access {
            Access::Open => assert!(!refused.contains(&nobody), "{route:?}: {nobody}"),
            Access::Own | Access::Any => {
                assert_eq!(nobody, 401, "{route:?}");
                assert!(!refused.contains(&auditor), "{route:?}: {auditor}");
            }
            Access::Needs(area, right) => {
                assert_eq!(nobody, 401, "{route:?}");
                let may = |status: u16, may: bool| {
                    assert_eq!(!refused.contains(&status), may, "{route:?}: {status}");
                };
                may(auditor, right == Right::Read);
                may(narrow, right == Right::Read && area == access::Area::Denials);
            }
        }
    }
    assert!(!bed.audit(&admin, "outcome=forbidden").await.is_empty());
}

#[tokio::test]
async fn tokens_do_what_they_say_until_they_end() {
    let bed = Bed::administered().await;
    let admin = bed.admin().await;
    let (id, reader) = bed.token(&admin, "administrator", &["settings:read", "administrators:write"]).await;
    assert_eq!(bed.call(&reader, "GET", "/api/v1/settings", None).await.status, 200);
    is(&bed.call(&reader, "PATCH", "/api/v1/settings", Some(json!({}))).await, 403, "forbidden");
    let me = bed.call(&reader, "GET", "/api/v1/me", None).await.json();
    assert_eq!((&me["csrf_token"], &me["scopes"][0]), (&Value::Null, &json!("settings:read")));
    is(&bed.call(&reader, "POST", "/api/v1/logout", None).await, 403, "session_required");
    let more = json!({"name": "x", "role": "administrator", "scopes": ["*"]});
    is(&bed.call(&reader, "POST", "/api/v1/tokens", Some(more)).await, 403, "more_than_own");
    for wrong in [json!(["users:all"]), json!([])] {
        let body = json!({"name": "x", "role": "auditor", "scopes": wrong});
        is(&bed.call(&admin, "POST", "/api/v1/tokens", Some(body)).await, 422, "invalid");
    }
    let past = json!({"name": "x", "role": "auditor", "scopes": ["*"], "expires_at": "2020-01-01T00:00:00Z"});
    is(&bed.call(&admin, "POST", "/api/v1/tokens", Some(past)).await, 422, "invalid");

    let list = bed.call(&admin, "GET", "/api/v1/tokens", None).await;
    let text = reader.fields[0].rsplit(' ').next().unwrap();
    assert!(!list.body.contains(text) && list.body.contains(&text[..8]));
    assert!(
        !format!(
            "{:?}",
            bed.store().audit(&aiproxy_store::AuditQuery { limit: 100, ..Default::default() }).await
        )
        .contains(text)
    );
    assert_eq!(bed.call(&admin, "DELETE", &format!("/api/v1/tokens/{id}"), None).await.status, 204);
    is(&bed.call(&reader, "GET", "/api/v1/settings", None).await, 401, "invalid_token");
    is(&bed.call(&admin, "DELETE", &format!("/api/v1/tokens/{id}"), None).await, 404, "not_found");
}

#[tokio::test]
async fn a_token_is_no_stronger_than_whoever_made_it() {
    let bed = Bed::administered().await;
    let admin = bed.admin().await;
    let (id, other) = bed.somebody(&admin, "other", "administrator").await;
    let (_, token) = bed.token(&other, "administrator", &["*"]).await;
    let path = format!("/api/v1/administrators/{id}");
    let patch =
        async |body: Value| bed.call(&admin.and("if-match: *"), "PATCH", &path, Some(body)).await.status;
    let change = async || bed.call(&token, "PATCH", "/api/v1/settings", Some(json!({}))).await;
    assert_eq!(change().await.status, 200);
    assert_eq!(patch(json!({"role": "auditor"})).await, 200);
    is(&change().await, 403, "forbidden");
    assert_eq!(bed.call(&token, "GET", "/api/v1/settings", None).await.status, 200);
    assert_eq!(patch(json!({"status": "disabled"})).await, 200);
    is(&change().await, 401, "invalid_token");
    is(&bed.call(&other, "GET", "/api/v1/me", None).await, 401, "not_signed_in");
    is(&bed.try_login("other", PASSWORD).await, 401, "wrong_login");
    assert_eq!(patch(json!({"status": "active", "role": "administrator"})).await, 200);
    assert_eq!(change().await.status, 200);
    assert_eq!(bed.call(&admin.and("if-match: *"), "DELETE", &path, None).await.status, 204);
    is(&change().await, 401, "invalid_token");
}

#[tokio::test]
async fn the_last_administrator_stays() {
    let bed = Bed::administered().await;
    let admin = bed.admin().await;
    let (_, auditor) = bed.somebody(&admin, "auditor", "auditor").await;
    let id = bed.call(&admin, "GET", "/api/v1/me", None).await.json()["administrator"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let (path, any) = (format!("/api/v1/administrators/{id}"), admin.and("if-match: *"));
    for body in [json!({"status": "disabled"}), json!({"role": "auditor"})] {
        is(&bed.call(&any, "PATCH", &path, Some(body)).await, 409, "last_administrator");
    }
    is(&bed.call(&any, "DELETE", &path, None).await, 409, "last_administrator");
    is(
        &bed.call(&any, "PATCH", &path, Some(json!({"password": "another horse battery"}))).await,
        422,
        "invalid",
    );
    is(&bed.call(&auditor.and("if-match: *"), "DELETE", &path, None).await, 403, "forbidden");
    assert_eq!(bed.call(&admin, "GET", "/api/v1/me", None).await.status, 200);
}

#[tokio::test]
async fn of_two_editors_the_second_learns_of_the_first() {
    let bed = Bed::administered().await;
    let admin = bed.admin().await;
    let body = json!({"name": "other", "role": "auditor"});
    let made = bed.call(&admin, "POST", "/api/v1/administrators", Some(body.clone())).await;
    assert_eq!(made.json()["one_time_password"].as_str().unwrap().len(), 24);
    is(&bed.call(&admin, "POST", "/api/v1/administrators", Some(body)).await, 409, "name_taken");
    let id = made.json()["administrator"]["id"].as_str().unwrap().to_owned();
    let (path, tag) = (format!("/api/v1/administrators/{id}"), made.header("etag").unwrap().to_owned());
    let change = json!({"display_name": "另一个人"});
    is(&bed.call(&admin, "PATCH", &path, Some(change.clone())).await, 428, "if_match_required");
    let tagged = admin.and(&format!("if-match: {tag}"));
    let changed = bed.call(&tagged, "PATCH", &path, Some(change.clone())).await;
    assert_eq!((changed.status, &changed.json()["display_name"]), (200, &json!("另一个人")));
    is(&bed.call(&tagged, "PATCH", &path, Some(change)).await, 412, "changed_meanwhile");
    is(&bed.call(&tagged, "DELETE", &path, None).await, 412, "changed_meanwhile");
    for wrong in ["", "a b", "名", &"a".repeat(65), "a\u{0}"] {
        let body = json!({"name": wrong, "role": "auditor"});
        is(&bed.call(&admin, "POST", "/api/v1/administrators", Some(body)).await, 422, "invalid");
    }
    let items = bed
        .call(&admin, "GET", "/api/v1/audit?object_kind=administrator&action=administrator.", None)
        .await
        .json();
    let newest = &items["items"][0];
    assert_eq!(
        (&newest["action"], &newest["after"]["display_name"]),
        (&json!("administrator.change"), &json!("另一个人"))
    );
    assert!(!items.to_string().contains("argon2"));
}

#[tokio::test]
async fn the_audit_is_paged_and_filtered() {
    let bed = Bed::administered().await;
    let admin = bed.admin().await;
    for idle in 600..605 {
        bed.call(&admin, "PATCH", "/api/v1/settings", Some(json!({"session_idle": idle}))).await;
    }
    let page = bed.call(&admin, "GET", "/api/v1/audit?action=settings.&limit=2", None).await.json();
    let next = page["next"].as_i64().unwrap();
    assert_eq!(page["items"][0]["after"]["session_idle"], 604);
    assert_eq!(page["items"][0]["actor"]["name"], "admin");
    assert_eq!(page["items"][0]["from"], "127.0.0.1");
    let page = bed
        .call(&admin, "GET", &format!("/api/v1/audit?action=settings.&limit=5&before={next}"), None)
        .await
        .json();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next"]), (3, &Value::Null));
    assert_eq!(bed.audit(&admin, "from=2200-01-01T00:00:00Z").await.len(), 0);
    assert_eq!(bed.audit(&admin, "q=%25").await.len(), 0);
    for wrong in ["limit=0", "limit=501", "limit=x", "from=yesterday", "unknown=1", "before=x"] {
        is(&bed.call(&admin, "GET", &format!("/api/v1/audit?{wrong}"), None).await, 400, "bad_request");
    }
}

#[tokio::test]
async fn settings_have_bounds_and_the_status_tells_what_runs() {
    let bed = Bed::administered().await;
    let admin = bed.admin().await;
    let wrong = json!({"session_idle": 1, "audit_retention_days": 0, "lockout_failures": 7});
    let answer = bed.call(&admin, "PATCH", "/api/v1/settings", Some(wrong)).await;
    is(&answer, 422, "invalid");
    assert_eq!(answer.json()["error"]["problems"].as_array().unwrap().len(), 2);
    assert_eq!(bed.call(&admin, "GET", "/api/v1/settings", None).await.json()["lockout_failures"], 5);
    let status = bed.call(&admin, "GET", "/api/v1/status", None).await.json();
    assert_eq!(
        (&status["source"], &status["database"], &status["mode"]),
        (&json!("file"), &json!("available"), &json!("serving"))
    );
}

#[tokio::test]
async fn old_records_are_deleted_with_a_record_of_it() {
    let bed = Bed::administered().await;
    let admin = bed.admin().await;
    let mut tx = bed.store().write().await.unwrap();
    let old = aiproxy_store::AuditEntry { at: 1, action: "old".into(), ..Default::default() };
    tx.audit(&old).await.unwrap();
    tx.commit().await.unwrap();
    crate::api::tidy::once(&bed.state).await.unwrap();
    assert_eq!(bed.audit(&admin, "action=old").await.len(), 0);
    assert_eq!(bed.audit(&admin, "action=audit.prune").await.len(), 1);
}

#[tokio::test]
async fn the_page_asks_for_nothing_from_elsewhere() {
    let bed = Bed::new().await;
    let page = bed.get("/api").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(policy.starts_with("default-src 'none'; "));
    for tag in ["<script", "<style"] {
        for part in page.body.split(tag).skip(1) {
            assert!(part.starts_with(&format!(" nonce=\"{nonce}\"")), "{tag}{}", &part[..60.min(part.len())]);
        }
    }
    assert!(!page.body.contains("{{nonce}}") && !page.body.contains("://"));
    assert_ne!(bed.get("/api").await.header("content-security-policy"), Some(policy));
}
