//! Families of paths, and rewrites.

use aiproxy_testkit::{App, RawUpstream};
use serde_json::{Value, json};

use crate::relay;

async fn with_channel(change: Value) -> (App, RawUpstream) {
    let upstream = RawUpstream::recording().await;
    let app = relay()
        .config(|c| {
            for (field, value) in change.as_object().unwrap() {
                c["channels"]["main"][field] = value.clone();
            }
        })
        .upstream(&upstream)
        .start()
        .await;
    (app, upstream)
}

/// Asks for each path and holds what the platform was asked for against it; `None` is a refusal
/// with 404.
async fn arrive(platform: &str, cases: &[(&str, Option<&str>)]) {
    let (app, upstream) = with_channel(json!({"platform": platform})).await;
    for (path, expected) in cases {
        let before = upstream.received().len();
        let status = app.get(path).send().await.status;
        match expected {
            Some(expected) => {
                assert_eq!(status, 200, "{platform} {path}");
                assert_eq!(upstream.request(before).await.target(), *expected, "{platform} {path}");
            }
            None => assert_eq!(status, 404, "{platform} {path}"),
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn dashscope_serves_openais_and_anthropics_paths_under_its_own() {
    let rewrites = [
        ("/v1/chat/completions", Some("/compatible-mode/v1/chat/completions")),
        ("/v1/things?x=1", Some("/compatible-mode/v1/things?x=1")),
        ("/v1/responses", Some("/compatible-mode/v1/responses")),
        ("/v1/messages", Some("/apps/anthropic/v1/messages")),
        ("/compatible-mode/v1/things", Some("/compatible-mode/v1/things")),
        (
            "/api/v1/services/aigc/text-generation/generation",
            Some("/api/v1/services/aigc/text-generation/generation"),
        ),
        ("/v1beta/models", None),
        ("/openai/v1/things", None),
        ("/elsewhere", None),
    ];
    arrive("dashscope", &rewrites).await;
}

#[tokio::test]
async fn other_platforms_serve_openais_paths_under_their_own() {
    arrive(
        "azure",
        &[
            ("/v1/things", Some("/openai/v1/things")),
            ("/openai/deployments/d/x", Some("/openai/deployments/d/x")),
        ],
    )
    .await;
    let gemini = [
        ("/v1/chat/completions", Some("/v1beta/openai/chat/completions")),
        (
            "/v1beta/models/gemini-2.5-pro:generateContent",
            Some("/v1beta/models/gemini-2.5-pro:generateContent"),
        ),
    ];
    arrive("gemini", &gemini).await;
    arrive(
        "volcengine",
        &[("/v1/things", Some("/api/v3/things")), ("/api/v3/models", Some("/api/v3/models"))],
    )
    .await;
    arrive("anthropic", &[("/v1/messages", Some("/v1/messages")), ("/v1/chat/completions", None)]).await;
    arrive("openai", &[("/v1/things", Some("/v1/things")), ("/v1/messages", None), ("/api/v1/x", None)])
        .await;
    arrive("custom", &[("/any/thing", Some("/any/thing")), ("/", Some("/"))]).await;
}

#[tokio::test]
async fn a_header_tells_shared_paths_apart() {
    let (app, upstream) = with_channel(json!({"platform": "anthropic"})).await;
    assert_eq!(app.get("/v1/things").send().await.status, 404);
    assert_eq!(app.get("/v1/things").header("anthropic-version", "2023-06-01").send().await.status, 200);
    assert_eq!(upstream.request(0).await.target(), "/v1/things");
    app.finish().await;
}

#[tokio::test]
async fn raw_paths_arrive_as_they_were_sent() {
    let path = "/v1/Files/%E6%96%87%E4%BB%B6;v=1/a%20b:c@d,e=f+g~h!$&'()*?q=%7B%22a%22%3A1%7D&&=x&y";
    let (app, upstream) = with_channel(json!({})).await;
    assert_eq!(app.get(path).send().await.status, 200);
    assert_eq!(upstream.request(0).await.target(), path.replace("&&", "&"));
    app.finish().await;
}

#[tokio::test]
async fn configured_rewrites_come_first_and_stand_behind_the_base() {
    let change =
        json!({"base_url": "/llm", "path_rewrite": {"/v1": "/api/openai/v1", "/v1/audio": "/never"}});
    let (app, upstream) = with_channel(change).await;
    for (number, (path, expected)) in [
        ("/v1/chat/completions", "/llm/api/openai/v1/chat/completions"),
        ("/v1", "/llm/api/openai/v1"),
        ("/v1beta/x", "/llm/v1beta/x"),
        ("/other", "/llm/other"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(app.get(path).send().await.status, 200, "{path}");
        assert_eq!(upstream.request(number).await.target(), expected, "{path}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_configured_rewrite_with_capitals_moves_the_path_that_it_names() {
    let (app, upstream) = with_channel(json!({"path_rewrite": {"/v1/Own": "/moved"}})).await;
    assert_eq!(app.get("/v1/Own/Thing").send().await.status, 200);
    assert_eq!(upstream.request(0).await.target(), "/moved/Thing");
    app.finish().await;
}

#[tokio::test]
async fn allowed_and_denied_paths_of_a_channel_are_obeyed_in_any_disguise() {
    let change =
        json!({"allow_paths": ["/v1/chat/**", "/v1/files/**"], "deny_paths": ["/v1/files/*/content"]});
    let (app, upstream) = with_channel(change).await;
    for path in ["/v1/chat/completions", "/v1/files", "/v1/files/f1", "/V1/Files/f1"] {
        assert_eq!(app.get(path).send().await.status, 200, "{path}");
    }
    let relayed = upstream.received().len();
    for path in [
        "/v1/things",
        "/v1/files/f1/content",
        "/v1/files/f1/Content/",
        "/v1/files/f1/c%6Fntent",
        "/v1/files/f1/content;x=1",
        "/v1/chatx",
    ] {
        let mut answer = app.get(path).send().await;
        assert_eq!(answer.status, 403, "{path}");
        assert_eq!(answer.json().await["error"]["code"], "path_forbidden", "{path}");
    }
    assert_eq!(upstream.received().len(), relayed);
    app.finish().await;
}
