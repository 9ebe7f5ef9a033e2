//! Browsers' access is what the configuration says, whatever the platform says.

use aiproxy_testkit::{App, Ask};
use serde_json::json;

use crate::relay;

const PAGE: &str = "https://app.company.example";

async fn with_cors() -> App {
    relay().config(|c| c["system"]["cors"] = json!({"origins": [PAGE], "max_age": "10m"})).start().await
}

fn preflight(app: &App, origin: &str) -> Ask {
    app.ask("OPTIONS", "/v1/chat/completions")
        .no_key()
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization, content-type, x-openai-agents-sdk")
}

#[tokio::test]
async fn a_preflight_of_an_allowed_page_needs_no_key_and_reaches_no_platform() {
    let app = with_cors().await;
    let answer = preflight(&app, PAGE).send().await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(
        answer.header("access-control-allow-headers"),
        Some("authorization, content-type, x-openai-agents-sdk")
    );
    assert!(answer.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
    assert_eq!(answer.header("access-control-max-age"), Some("600"));
    assert_eq!(answer.header("vary"), Some("Origin"));
    assert!(app.sandbox().requests().is_empty());
    app.finish().await;
}

#[tokio::test]
async fn other_pages_are_refused() {
    let app = with_cors().await;
    for origin in ["https://app.company.example.evil", "http://app.company.example", "null"] {
        let mut answer = preflight(&app, origin).send().await;
        assert_eq!(answer.status, 403, "{origin}");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
        assert_eq!(answer.json().await["error"]["code"], "origin_not_allowed", "{origin}");
        let answer = app.get("/v1/models").header("origin", origin).send().await;
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
    }
    app.finish().await;
}

#[tokio::test]
async fn an_allowed_page_may_read_answers_and_refusals() {
    let app = with_cors().await;
    for (ask, status) in [
        (app.get("/v1/models").sandbox("leak"), 200),
        (app.get("/v1/models").sandbox("status=429;retry-after=3"), 429),
        (app.get("/v1/models").key("pk_nobody_0000"), 401),
    ] {
        let answer = ask.header("origin", PAGE).send().await;
        assert_eq!(answer.status, status);
        let values: Vec<_> = answer.headers.get_all("access-control-allow-origin").iter().collect();
        assert_eq!(values, [PAGE], "the platform's own is gone");
        let exposed = answer.header("access-control-expose-headers").expect("exposed headers");
        for name in ["Location", "Retry-After", "x-request-id", "x-aiproxy-request-id"] {
            assert!(exposed.contains(name), "{name}");
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn without_configuration_no_page_may_read_anything() {
    let app = relay().start().await;
    assert_eq!(preflight(&app, PAGE).send().await.status, 403);
    let answer = app.get("/v1/models").header("origin", PAGE).sandbox("leak").send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    app.finish().await;
}

#[tokio::test]
async fn options_that_is_no_preflight_goes_to_the_platform() {
    let app = with_cors().await;
    let answer = app.ask("OPTIONS", "/v1/models").header("origin", PAGE).send().await;
    assert_eq!(answer.status, 405, "the sandbox has no OPTIONS");
    assert_eq!(app.sandbox().requests().len(), 1);
    assert_eq!(app.ask("OPTIONS", "/v1/models").no_key().send().await.status, 401);
    app.finish().await;
}
