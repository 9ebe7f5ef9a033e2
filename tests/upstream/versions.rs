//! Which HTTP version is spoken.

use aiproxy_testkit::{Manner, Platform, TestCa, until};
use serde_json::json;

use super::{before, secure};

async fn over(manner: Manner) -> Platform {
    Platform::start(manner, |exchange| async move { exchange.answer(200, "over http2").await }).await
}

#[tokio::test]
async fn the_platform_chooses_among_what_the_channel_offers() {
    let ca = TestCa::new();
    let both = || secure(&ca);
    let h1 = || Manner { tls: Some(ca.server(&["http/1.1"])), ..Manner::default() };
    let none = || Manner { tls: Some(ca.server(&[])), ..Manner::default() };
    for (manner, offered, expected) in [
        (both(), None, "over http2"),
        (both(), Some(json!(["h2"])), "over http2"),
        (both(), Some(json!(["h1"])), "over http1"),
        (h1(), None, "over http1"),
        (none(), None, "over http1"),
        (none(), Some(json!(["h1", "h2"])), "over http1"),
    ] {
        let platform = over(manner).await;
        let app = before(&platform, &ca, |c| {
            if let Some(offered) = offered.clone() {
                c["channels"]["main"]["http_versions"] = offered;
            }
        })
        .await;
        for _ in 0..3 {
            let answer = app.ask("POST", "/v1/a").body("x").send().await.text().await;
            assert_eq!(answer, expected, "{offered:?}");
        }
        assert_eq!(platform.connections(), 1, "{offered:?}");
        app.finish().await;
    }
}

#[tokio::test]
async fn a_channel_that_wants_http2_alone_gets_nothing_else() {
    let ca = TestCa::new();
    for alpn in [&[][..], &["http/1.1"]] {
        let platform = over(Manner { tls: Some(ca.server(alpn)), ..Manner::default() }).await;
        let app = before(&platform, &ca, |c| c["channels"]["main"]["http_versions"] = json!(["h2"])).await;
        let mut answer = app.get("/v1/a").send().await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json().await["error"]["code"]),
            (502, &json!("upstream_unreachable"))
        );
        assert_eq!(platform.exchanges(), 0);
        app.finish().await;
    }
}

#[tokio::test]
async fn a_burst_of_first_requests_to_an_http1_platform_is_served() {
    let ca = TestCa::new();
    let platform = over(Manner { tls: Some(ca.server(&["http/1.1"])), ..Manner::default() }).await;
    let app = before(&platform, &ca, |_| ()).await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let ask = app.ask("POST", "/v1/a").body("x");
        asked.spawn(async move { ask.send().await.text().await });
    }
    while let Some(answered) = asked.join_next().await {
        assert_eq!(answered.unwrap(), "over http1");
    }
    app.finish().await;
}

#[tokio::test]
async fn an_authority_that_nobody_trusts_is_refused() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let platform = over(secure(&other)).await;
    let app = before(&platform, &ca, |_| ()).await;
    let mut answer = app.get("/v1/a").send().await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json().await["error"]["code"]),
        (502, &json!("upstream_unreachable"))
    );
    until("the reason in the log", || app.process().stderr().contains("TLS failed").then_some(())).await;
    assert_eq!(platform.exchanges(), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_platform_that_asks_for_a_certificate_gets_the_channels() {
    let ca = TestCa::new();
    let platform = over(Manner { tls: Some(ca.strict_server(&["h2"])), ..Manner::default() }).await;
    let stranger = TestCa::new();
    let shown = |ca: &TestCa| ca.files().map(|path| path.to_str().unwrap().to_owned());
    for (own, served) in [(Some(shown(&ca)), true), (Some(shown(&stranger)), false), (None, false)] {
        let app = before(&platform, &ca, |c| {
            if let Some([chain, key]) = &own {
                let given = json!({"chain": chain, "private_key": format!("file:{key}")});
                c["channels"]["main"]["client_certificate"] = given;
            }
        })
        .await;
        let answer = app.ask("POST", "/v1/a").body("x").send().await;
        assert_eq!(answer.status, if served { 200 } else { 502 }, "{own:?}");
        app.finish().await;
    }
    assert_eq!(platform.exchanges(), 1);
}
