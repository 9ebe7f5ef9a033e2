//! URLs in answers lead back through the relay, or are taken out.

use aiproxy_testkit::{App, RawUpstream};
use serde_json::json;

use crate::relay;

const ENCODED: &str = "sk-channel%2F%2B%3D5Hs0Jg7Kp2Md9Nf4Qb8Rv1Xz";

/// An answer to `/v1/evals/runs` with this header, in which `HOST` stands for the platform's
/// own and `US` for the relay's.
async fn answered(header: &str, value: &str, base: &str, expected: Option<&str>) {
    let line = format!("{header}: {value}");
    let upstream = RawUpstream::start(move |mut conn| {
        let line = line.clone();
        async move {
            while let Some(request) = conn.request().await {
                let line = line.replace("HOST", &request.header("host").unwrap());
                conn.send(format!("HTTP/1.1 201 Created\r\n{line}\r\ncontent-length: 0\r\n\r\n")).await;
            }
        }
    })
    .await;
    let app: App = relay()
        .config(|c| {
            c["channels"]["main"]["key_placement"] = json!({"query": "key"});
            c["channels"]["main"]["base_url"] = base.into();
        })
        .upstream(&upstream)
        .start()
        .await;
    let answer = app.ask("POST", "/v1/evals/runs").send().await;
    assert_eq!(answer.status, 201);
    let expected = expected.map(|expected| expected.replace("US", &app.addr().to_string()));
    assert_eq!(answer.header(header), expected.as_deref(), "{header}: {value}");
    if let Some(url) = expected {
        let target = url.strip_prefix(&app.url()).unwrap_or(&url);
        assert_eq!(app.get(target).send().await.status, 201, "{url} can be followed");
        let asked = upstream.request(1).await;
        assert!(
            asked.target().starts_with(&format!("{base}{}", target.trim_start_matches("/@main"))),
            "{target}"
        );
    }
    app.finish().await;
}

#[tokio::test]
async fn a_location_leads_back_through_the_relay() {
    answered("location", "/v1/evals/runs/run_1", "", Some("/@main/v1/evals/runs/run_1")).await;
    answered("location", "http://HOST/v1/files/f1?x=1", "", Some("/@main/v1/files/f1?x=1")).await;
    answered("location", "//HOST/v1/files/f1", "", Some("/@main/v1/files/f1")).await;
}

#[tokio::test]
async fn a_location_relative_to_the_request_leads_where_it_says() {
    answered("location", "runs/run_1", "", Some("/@main/v1/evals/runs/run_1")).await;
}

#[tokio::test]
async fn a_location_below_the_channels_base_loses_that_base() {
    answered("location", "/llm/v1/files/f1", "/llm", Some("/@main/v1/files/f1")).await;
    answered("location", "http://HOST/other/v1/files/f1", "/llm", None).await;
}

#[tokio::test]
async fn urls_that_clients_follow_become_absolute_ones_of_ours() {
    let operation = "http://HOST/openai/operations/1?api-version=1";
    answered("operation-location", operation, "", Some("http://US/@main/openai/operations/1?api-version=1"))
        .await;
    let upload = "http://HOST/upload/v1beta/files?upload_id=1";
    answered("x-goog-upload-url", upload, "", Some("http://US/@main/upload/v1beta/files?upload_id=1")).await;
}

#[tokio::test]
async fn a_url_of_another_host_is_taken_out() {
    for value in [
        "https://storage.example/signed?sig=1",
        "//storage.example/x",
        "https://HOST/v1/x",
        "http://HOST.evil/x",
        "ftp://HOST/x",
    ] {
        for header in ["location", "operation-location", "x-goog-upload-url", "content-location"] {
            answered(header, value, "", None).await;
        }
    }
}

#[tokio::test]
async fn the_channels_key_is_taken_out_of_a_url() {
    let with_key = format!("http://HOST/v1/x?a=1&key={ENCODED}&b=2");
    answered("location", &with_key, "", Some("/@main/v1/x?a=1&b=2")).await;
    let with_key = format!("http://HOST/v1/x?a=1&k%65y={ENCODED}");
    answered("x-goog-upload-url", &with_key, "", Some("http://US/@main/v1/x?a=1")).await;
    // Where it stands somewhere else, the URL goes as a whole.
    answered("location", &format!("http://HOST/v1/x?other={ENCODED}"), "", None).await;
    answered("location", &format!("/v1/{ENCODED}/x"), "", None).await;
}
