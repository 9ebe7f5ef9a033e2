//! Streams that are open.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aiproxy_testkit::{App, Gate, Outcome, PROXY_KEY, RawUpstream, until, within};
use serde_json::{Value, json};

use super::{FRESH, OTHER, open_stream, refusal, start, two_users};
use crate::relay;

const CHAT: &str = "/v1/chat/completions";

struct Withdrawal {
    what: &'static str,
    change: fn(&mut Value),
    /// Code in the access log.
    reason: &'static str,
    /// What the next request to the same channel hears.
    next: (u16, &'static str),
}

const WITHDRAWALS: &[Withdrawal] = &[
    Withdrawal {
        what: "the user disabled",
        change: |c| c["users"]["user1"]["status"] = "disabled".into(),
        reason: "user_disabled",
        next: (403, "user_disabled"),
    },
    Withdrawal {
        what: "the key removed",
        change: |c| drop(c["users"].as_object_mut().unwrap().remove("user1")),
        reason: "invalid_key",
        next: (401, "invalid_key"),
    },
    Withdrawal {
        what: "the key changed",
        change: |c| c["users"]["user1"]["proxy_key"] = FRESH.into(),
        reason: "invalid_key",
        next: (401, "invalid_key"),
    },
    Withdrawal {
        what: "the key expired by a change",
        change: |c| c["users"]["user1"]["expires_at"] = "2020-01-01".into(),
        reason: "key_expired",
        next: (403, "key_expired"),
    },
    Withdrawal {
        what: "the channel disabled",
        change: |c| c["channels"]["main"]["status"] = "disabled".into(),
        reason: "channel_unavailable",
        next: (503, "channel_unavailable"),
    },
    Withdrawal {
        what: "the channel taken from the user",
        change: |c| c["users"]["user1"]["channels"] = json!(["spare"]),
        reason: "channel_not_allowed",
        next: (403, "channel_not_allowed"),
    },
    Withdrawal {
        what: "the channel removed",
        change: |c| {
            c["users"]["user1"]["channels"] = json!(["spare"]);
            c["channels"].as_object_mut().unwrap().remove("main");
        },
        reason: "channel_not_allowed",
        next: (403, "channel_not_allowed"),
    },
];

#[tokio::test]
async fn a_stream_ends_with_what_it_stood_on() {
    for Withdrawal { what, change, reason, next } in WITHDRAWALS {
        let mut app = start().await;
        let mut mine = open_stream(&app, PROXY_KEY, CHAT, "never").await;
        let mut theirs = open_stream(&app, OTHER, CHAT, "theirs").await;
        let id = mine.header("x-aiproxy-request-id").unwrap().to_owned();
        assert!(app.change(change).await, "{what}");
        assert!(mine.try_bytes().await.is_err(), "{what}: it is not a clean end");
        app.seen("the platform losing its peer", |request| request.outcome == Outcome::Cut).await;
        let line = app.logged("the line", |line| line["request_id"] == id.as_str()).await;
        assert_eq!((&line["outcome"], &line["error"]), (&json!("cut"), &json!(reason)), "{what}");
        assert_eq!((&line["status"], &line["channel"]), (&json!(200), &json!("main")), "{what}");
        assert!(line["bytes_out"].as_u64().unwrap() > 0, "{what}");

        let (status, code) = refusal(&app, PROXY_KEY, "/@main/v1/models/gpt-4o").await;
        assert_eq!((status, code.as_str()), *next, "{what}");

        app.sandbox().release("theirs");
        assert!(theirs.text().await.ends_with("data: [DONE]\n\n"), "{what}: others go on");
        assert_eq!(app.get("/v1/models/gpt-4o").key(OTHER).send().await.status, 200, "{what}");
        app.finish().await;
    }
}

#[tokio::test]
async fn a_key_that_took_the_place_of_another_works_at_once() {
    let mut app = start().await;
    assert!(app.change(|c| c["users"]["user1"]["proxy_key"] = FRESH.into()).await);
    assert_eq!(app.get("/v1/models/gpt-4o").key(FRESH).send().await.status, 200);
    assert_eq!(refusal(&app, PROXY_KEY, "/v1/models/gpt-4o").await, (401, "invalid_key".to_owned()));
    app.finish().await;
}

#[tokio::test]
async fn who_loses_one_channel_is_served_by_the_next() {
    let mut app = start().await;
    let mut on_main = open_stream(&app, PROXY_KEY, CHAT, "never").await;
    let mut on_spare = open_stream(&app, PROXY_KEY, "/@spare/v1/chat/completions", "spare").await;
    assert!(app.change(|c| c["channels"]["main"]["status"] = "disabled".into()).await);
    assert!(on_main.try_bytes().await.is_err());
    app.sandbox().release("spare");
    assert!(on_spare.text().await.contains("[DONE]"));
    assert_eq!(app.get("/v1/models/gpt-4o").send().await.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn what_has_nothing_to_do_with_a_stream_does_not_touch_it() {
    let mut app = start().await;
    let mut stream = open_stream(&app, PROXY_KEY, CHAT, "g1").await;
    assert!(
        app.change(|c| {
            c["users"]["user1"]["name"] = "李四".into();
            c["users"]["user1"]["models"] = json!(["other-*"]);
            c["users"]["other"]["status"] = "disabled".into();
            c["channels"]["main"]["name"] = "另一个".into();
            c["channels"]["main"]["timeouts"] = json!({"idle": "20s"});
            c["channels"]["main"]["api_key"] = "sk-rotated/+=0Pm3Xk8Vc5".into();
            c["channels"]["spare"]["status"] = "disabled".into();
        })
        .await
    );
    app.sandbox().release("g1");
    assert!(stream.text().await.ends_with("data: [DONE]\n\n"));
    app.finish().await;
}

fn in_seconds(seconds: u64) -> String {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(seconds);
    let (days, rest) = (at.as_secs() / 86400, at.as_secs() % 86400);
    // Civil from days (Howard Hinnant).
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest % 3600 / 60, rest % 60)
}

#[tokio::test]
async fn a_stream_ends_when_its_key_expires() {
    let app = relay()
        .config(two_users)
        .config(|c| c["users"]["user1"]["expires_at"] = in_seconds(4).into())
        .start()
        .await;
    let mut mine = open_stream(&app, PROXY_KEY, CHAT, "never").await;
    let mut theirs = open_stream(&app, OTHER, CHAT, "theirs").await;
    assert!(mine.try_bytes().await.is_err());
    let line = app.logged("the line", |line| line["outcome"] == "cut").await;
    assert_eq!(line["error"], "key_expired");
    assert_eq!(refusal(&app, PROXY_KEY, "/v1/models/gpt-4o").await, (403, "key_expired".to_owned()));
    app.sandbox().release("theirs");
    assert!(theirs.text().await.contains("[DONE]"));
    app.finish().await;
}

/// A platform whose answers never end.
async fn endless(gone: &Gate) -> RawUpstream {
    let gone = gone.clone();
    RawUpstream::start(move |mut conn| {
        let gone = gone.clone();
        async move {
            conn.request().await;
            conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            while conn.send(&chunk).await {}
            gone.open();
        }
    })
    .await
}

#[tokio::test]
async fn a_caller_who_does_not_read_is_cut_all_the_same() {
    let gone = Gate::new("the platform losing its peer");
    let upstream = endless(&gone).await;
    let mut app = relay().upstream(&upstream).start().await;
    let mut raw = app.raw().await;
    raw.send(format!("GET /v1/things HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {PROXY_KEY}\r\n\r\n"))
        .await;
    raw.until(b"\r\n\r\n").await;
    // Until every buffer on the way is full.
    within("nothing passing any more", async {
        let mut before = 0;
        while before == 0 || before != app.callers().downward() {
            before = app.callers().downward();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(app.change(|c| c["users"]["user1"]["status"] = "disabled".into()).await);
    gone.passed().await;
    let line = app.logged("the line", |line| line["status"] == 200).await;
    assert_eq!((&line["outcome"], &line["error"]), (&json!("cut"), &json!("user_disabled")));
    app.finish().await;
}

#[tokio::test]
async fn an_upload_that_is_under_way_is_cut_with_a_refusal() {
    let gone = Gate::new("the platform losing its peer");
    let upstream = super::silent(&gone).await;
    let mut app = relay().upstream(&upstream).start().await;
    let (ask, upload) =
        app.ask("POST", "/v1/things").header("content-type", "application/octet-stream").upload();
    let sending = tokio::spawn(ask.send());
    assert!(upload.send("some bytes").await);
    until("the platform having some", || {
        let bytes = upstream.bytes(0);
        memchr::memmem::find(&bytes, b"some bytes").map(drop)
    })
    .await;
    assert!(app.change(|c| c["users"]["user1"]["status"] = "disabled".into()).await);
    let mut answer = within("the refusal", sending).await.unwrap();
    assert_eq!(answer.status, 403);
    assert_eq!(answer.json().await["error"]["code"], "user_disabled");
    gone.passed().await;
    drop(upload);
    app.finish().await;
}

#[tokio::test]
async fn many_streams_end_at_once_and_only_those() {
    let mut app = start().await;
    let mut mine = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..20 {
        mine.push(open_stream(&app, PROXY_KEY, CHAT, "never").await);
        theirs.push(open_stream(&app, OTHER, CHAT, "theirs").await);
    }
    assert!(app.change(|c| c["users"]["user1"]["status"] = "disabled".into()).await);
    for stream in &mut mine {
        assert!(stream.try_bytes().await.is_err());
    }
    app.metric_is("aiproxy_live_requests", 20.0).await;
    app.sandbox().release("theirs");
    for stream in &mut theirs {
        assert!(stream.text().await.contains("[DONE]"));
    }
    cut_lines(&app, 20).await;
    app.finish().await;
}

async fn cut_lines(app: &App, count: usize) {
    until("the lines of all", || {
        let cut = app.process().stdout().matches("\"outcome\":\"cut\"").count();
        assert!(cut <= count, "{cut} were cut");
        (cut == count).then_some(())
    })
    .await;
}
