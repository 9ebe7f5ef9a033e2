//! Which headers pass, and which end at this hop.

use aiproxy_testkit::{PROXY_KEY, RawUpstream};

use crate::relay;

#[tokio::test]
async fn end_to_end_headers_pass_up_in_order_with_repetitions() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    app.get("/v1/a")
        .header("user-agent", "OpenAI/Python 3.54")
        .header("x-stainless-lang", "python")
        .header("x-dashscope-sse", "enable")
        .header("accept", "application/json")
        .header("x-twice", "one")
        .header("x-twice", "two")
        .header("x-utf8", "研发")
        .header("idempotency-key", "abc")
        .send()
        .await;
    let request = upstream.request(0).await;
    for (name, value) in [
        ("user-agent", "OpenAI/Python 3.54"),
        ("x-stainless-lang", "python"),
        ("x-dashscope-sse", "enable"),
        ("accept", "application/json"),
        ("x-twice", "one, two"),
        ("x-utf8", "研发"),
        ("idempotency-key", "abc"),
    ] {
        assert_eq!(request.header(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(request.head.headers.iter().filter(|(name, _)| name == "x-twice").count(), 2);
    app.finish().await;
}

#[tokio::test]
async fn the_platform_is_told_its_own_host() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    app.get("/v1/a").header("host", "relay.company.internal").send().await;
    assert_eq!(upstream.request(0).await.header("host"), Some(app.platform().addr().to_string()));
    app.finish().await;
}

#[tokio::test]
async fn headers_of_this_hop_and_private_ones_do_not_reach_the_platform() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let gone = [
        ("connection", "keep-alive, X-Named, x-also-named"),
        ("x-named", "1"),
        ("x-also-named", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic eDp5"),
        ("te", "gzip"),
        ("cookie", "session=abc"),
        ("origin", "https://intranet.company.example"),
        ("referer", "https://intranet.company.example/page"),
        ("forwarded", "for=10.1.2.3"),
        ("x-forwarded-for", "10.1.2.3"),
        ("x-forwarded-host", "relay.company.internal"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "10.1.2.3"),
        ("x-client-ip", "10.1.2.3"),
        ("cf-connecting-ip", "10.1.2.3"),
        ("via", "1.1 squid"),
        ("x-aiproxy-channel", "main"),
        ("x-aiproxy-anything", "x"),
        ("openai-organization", "org-1"),
        ("openai-project", "proj-1"),
    ];
    let ask = gone.iter().fold(app.get("/v1/a"), |ask, (name, value)| ask.header(name, value));
    assert_eq!(ask.header("x-kept", "1").send().await.status, 200);
    let request = upstream.request(0).await;
    for (name, _) in gone {
        assert_eq!(request.header(name), None, "{name}");
    }
    assert_eq!(request.header("x-kept").as_deref(), Some("1"));
    app.finish().await;
}

#[tokio::test]
async fn a_caller_cannot_strip_framing_or_the_channels_key_by_naming_it_in_connection() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let answer = app
        .ask("POST", "/v1/a")
        .header("connection", "authorization, content-length, host, content-type")
        .header("content-type", "text/plain")
        .body("four")
        .send()
        .await;
    assert_eq!(answer.status, 200);
    let request = upstream.request(0).await;
    assert_eq!(request.body, "four");
    assert!(request.header("authorization").is_some_and(|value| value.starts_with("Bearer sk-")));
    assert_eq!(request.header("content-type").as_deref(), Some("text/plain"));
    assert!(request.header("host").is_some());
    app.finish().await;
}

#[tokio::test]
async fn te_trailers_is_the_one_te_that_passes() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    app.get("/v1/a").header("te", "trailers").send().await;
    assert_eq!(upstream.request(0).await.header("te").as_deref(), Some("trailers"));
    app.finish().await;
}

#[tokio::test]
async fn headers_of_the_platforms_hop_and_account_do_not_reach_the_caller() {
    let upstream = RawUpstream::answering(
        "HTTP/1.1 200 OK\r\nconnection: x-named\r\nx-named: 1\r\nkeep-alive: timeout=5\r\nproxy-authenticate: Basic\r\n\
         proxy-connection: keep-alive\r\nupgrade: h2c\r\nalt-svc: h3=\":443\"\r\nset-cookie: __cf_bm=x\r\n\
         strict-transport-security: max-age=1\r\nnel: {}\r\nreport-to: {}\r\nwww-authenticate: Bearer\r\n\
         access-control-allow-origin: *\r\naccess-control-expose-headers: x\r\nopenai-organization: org-1\r\n\
         openai-project: proj-1\r\nx-aiproxy-request-id: forged\r\nserver: cloudflare\r\ncf-ray: 1\r\n\
         openai-processing-ms: 12\r\nx-ratelimit-remaining-requests: 59\r\nretry-after: 3\r\netag: \"1\"\r\n\
         content-length: 2\r\n\r\n{}",
    )
    .await;
    let app = relay().upstream(&upstream).start().await;
    let answer = app.get("/v1/a").send().await;
    for name in [
        "connection",
        "x-named",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "upgrade",
        "alt-svc",
        "set-cookie",
        "strict-transport-security",
        "nel",
        "report-to",
        "www-authenticate",
        "access-control-allow-origin",
        "access-control-expose-headers",
        "openai-organization",
        "openai-project",
    ] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    for (name, value) in [
        ("openai-processing-ms", "12"),
        ("x-ratelimit-remaining-requests", "59"),
        ("retry-after", "3"),
        ("etag", "\"1\""),
        ("content-length", "2"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert_ne!(answer.header("x-aiproxy-request-id"), Some("forged"));
    app.finish().await;
}

#[tokio::test]
async fn every_answer_has_our_request_id_and_the_platforms_own_passes() {
    let app = relay().start().await;
    let relayed = app.get("/v1/models").send().await;
    let ours = relayed.header("x-aiproxy-request-id").expect("our id").to_owned();
    let theirs = relayed.header("x-request-id").expect("the platform's id").to_owned();
    assert_ne!(ours, theirs);
    let seen = app.logged("the line", |line| line["request_id"] == ours.as_str()).await;
    assert_eq!(seen["endpoint"], "/v1/models");

    let refused = app.get("/v1/models").no_key().header("x-request-id", "callers-own").send().await;
    assert_eq!(refused.status, 401);
    let ours = refused.header("x-aiproxy-request-id").expect("our id");
    assert_eq!(refused.header("x-request-id"), Some(ours), "ours stands in where the platform gave none");
    app.finish().await;
}

#[tokio::test]
async fn our_request_id_stands_in_where_the_platform_gives_none() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let answer = app.get("/v1/a").header("x-request-id", "callers-own").send().await;
    assert_eq!(answer.header("x-request-id"), answer.header("x-aiproxy-request-id"));
    assert_eq!(upstream.request(0).await.header("x-request-id").as_deref(), Some("callers-own"));
    app.finish().await;
}

#[tokio::test]
async fn a_proxy_key_in_any_other_header_is_taken_out() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let answer = app
        .get("/v1/a")
        .header("x-debug", &format!("key={PROXY_KEY};"))
        .header("x-forwarded-authorization", PROXY_KEY)
        .header("user-agent", &format!("curl {PROXY_KEY}"))
        .send()
        .await;
    assert_eq!(answer.status, 200);
    let request = upstream.request(0).await;
    assert_eq!(request.header("x-debug"), None);
    assert_eq!(request.header("user-agent"), None);
    app.finish().await;
}
