//! Bodies that are sent again.

use std::sync::Arc;

use aiproxy_testkit::{App, Ask, Gate, PROXY_KEY, RawUpstream, until, within};
use serde_json::json;

use super::{answer, pair, platform, well};

const OCTETS: &str = "application/octet-stream";

/// Bytes of which no two places look alike.
fn bytes(size: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}

fn post(app: &App, kind: &str) -> Ask {
    app.ask("POST", "/v1/things").header("content-type", kind)
}

#[tokio::test]
async fn a_body_within_the_bound_is_sent_again_byte_for_byte() {
    let (a, b) = (platform("503 No", "retry-after: 0\r\n", "{}").await, well().await);
    let app = pair(&a, &b, |c| c["channels"]["a"]["breaker"] = json!({"failures": 100})).await;
    let mut json = br#"{"model":"gpt-4o","input":""#.to_vec();
    json.extend_from_slice(&vec![b'y'; 700_000]);
    json.extend_from_slice(b"\"}");
    for (number, (kind, body)) in
        [(OCTETS, bytes(1)), (OCTETS, bytes(1 << 20)), ("application/json", json)].into_iter().enumerate()
    {
        assert_eq!(post(&app, kind).body(body.clone()).send().await.status, 200, "{kind}");
        for upstream in [&a, &b] {
            let request = upstream.request(number).await;
            assert!(request.body == body, "{kind}: {} of {} bytes", request.body.len(), body.len());
            assert_eq!(request.header("content-length"), Some(body.len().to_string()));
        }
    }
    // Chunked, with pieces of its own.
    let (ask, upload) = post(&app, OCTETS).upload();
    let sending = tokio::spawn(ask.send());
    let body = bytes(300_000);
    for piece in body.chunks(70_001) {
        assert!(upload.send(piece.to_vec()).await);
    }
    drop(upload);
    assert_eq!(within("the answer", sending).await.unwrap().status, 200);
    assert!(a.request(3).await.body == body && b.request(3).await.body == body);
    app.finish().await;
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_sent_once() {
    let theirs = "{\"error\":\"full\"}";
    let (a, b) = (platform("503 No", "retry-after: 0\r\n", theirs).await, well().await);
    let app = pair(&a, &b, |c| c["system"]["limits"] = json!({"replay_bytes": "64KiB"})).await;
    for (size, status) in [(64 << 10, 200), ((64 << 10) + 1, 503), (3 << 20, 503)] {
        let mut got = post(&app, OCTETS).body(bytes(size)).send().await;
        assert_eq!(got.status, status, "{size}");
        if status == 503 {
            assert_eq!(got.text().await, theirs);
        }
    }
    assert_eq!((a.received().len(), b.received().len()), (3, 1));
    app.finish().await;
}

/// Answers before it has read the body.
async fn hasty() -> RawUpstream {
    RawUpstream::start(|mut conn| async move {
        conn.head().await;
        conn.send(answer("503 No", "retry-after: 0\r\n", "{}")).await;
        conn.closed().await;
    })
    .await
}

#[tokio::test]
async fn an_early_refusal_does_not_lose_what_the_caller_is_still_sending() {
    let (a, b) = (hasty().await, well().await);
    let app = pair(&a, &b, |_| ()).await;
    let body = bytes(500_000);
    let (ask, upload) = post(&app, OCTETS).upload();
    let sending = tokio::spawn(ask.send());
    let (first, rest) = body.split_at(100_000);
    assert!(upload.send(first.to_vec()).await);
    until("the second platform being asked", || (b.connections() == 1).then_some(())).await;
    for piece in rest.chunks(33_333) {
        assert!(upload.send(piece.to_vec()).await);
    }
    drop(upload);
    assert_eq!(within("the answer", sending).await.unwrap().status, 200);
    assert!(b.request(0).await.body == body);
    assert!(a.received().is_empty(), "the first one did not get it whole");
    app.finish().await;
}

#[tokio::test]
async fn an_early_refusal_with_a_known_length_goes_on_at_the_next_channel() {
    let (a, b) = (hasty().await, well().await);
    let app = pair(&a, &b, |_| ()).await;
    let body = bytes(200_000);
    let mut raw = app.raw().await;
    raw.send(format!(
        "POST /v1/things HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {PROXY_KEY}\r\ncontent-type: {OCTETS}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    ))
    .await;
    raw.send(&body[..50_000]).await;
    until("the second platform being asked", || (b.connections() == 1).then_some(())).await;
    raw.send(&body[50_000..]).await;
    assert_eq!(raw.answer().await.status, 200);
    let request = b.request(0).await;
    assert!(request.body == body);
    assert_eq!(request.header("content-length").as_deref(), Some("200000"));
    app.finish().await;
}

#[tokio::test]
async fn an_early_refusal_beyond_the_bound_passes_through() {
    let theirs = "{\"error\":\"too much\"}";
    let a = RawUpstream::start(move |mut conn| async move {
        conn.head().await;
        conn.exact(100_000).await;
        conn.send(answer("503 No", "", theirs)).await;
        conn.closed().await;
    })
    .await;
    let b = well().await;
    let app = pair(&a, &b, |c| c["system"]["limits"] = json!({"replay_bytes": "64KiB"})).await;
    let (ask, upload) = post(&app, OCTETS).upload();
    let sending = tokio::spawn(ask.send());
    for piece in bytes(200_000).chunks(50_000) {
        if !upload.send(piece.to_vec()).await {
            break;
        }
    }
    let mut got = within("the answer", sending).await.unwrap();
    assert_eq!((got.status.as_u16(), got.text().await.as_str()), (503, theirs));
    assert!(b.received().is_empty());
    drop(upload);
    app.finish().await;
}

/// Takes whole bodies, waits, then refuses.
async fn pondering(gate: &Gate) -> RawUpstream {
    let gate = gate.clone();
    RawUpstream::start(move |mut conn| {
        let gate = gate.clone();
        async move {
            while conn.request().await.is_some() {
                gate.passed().await;
                conn.send(answer("503 No", "retry-after: 0\r\n", "{}")).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn all_bodies_kept_together_stay_within_the_budget() {
    const SIZE: usize = 256 << 10;
    const REQUESTS: usize = 24;
    const FITTING: usize = 4;
    let gate = Gate::new("all bodies are at the first platform");
    let (a, b) = (pondering(&gate).await, well().await);
    let app = pair(&a, &b, |c| {
        c["system"]["limits"] = json!({"replay_bytes": SIZE, "replay_total": SIZE * FITTING});
        c["channels"]["a"]["breaker"] = json!({"failures": 1000, "min_requests": 1000});
    })
    .await;
    let body = Arc::new(bytes(SIZE));
    let sending: Vec<_> =
        (0..REQUESTS).map(|_| tokio::spawn(post(&app, OCTETS).body(body.to_vec()).send())).collect();
    a.request(REQUESTS - 1).await;
    gate.open();
    let mut served = 0;
    for answer in sending {
        match within("an answer", answer).await.unwrap().status.as_u16() {
            200 => served += 1,
            status => assert_eq!(status, 503, "what was not kept gets the platform's own answer"),
        }
    }
    // All of them were under way at once. Who came too late for the budget is not kept; who was
    // kept for a while and did not fit any more is not either.
    assert!(served <= FITTING, "{served} bodies were kept");
    assert!(b.received().iter().all(|request| request.body == *body));
    assert_eq!(b.received().len(), served);

    // The budget was given back: one after the other, all fit.
    for _ in 0..FITTING * 3 {
        assert_eq!(post(&app, OCTETS).body(body.to_vec()).send().await.status, 200);
    }
    app.finish().await;
}

#[tokio::test]
async fn requests_beyond_the_budget_are_served_all_the_same() {
    const SIZE: usize = 256 << 10;
    let (a, b) = (well().await, well().await);
    let app =
        pair(&a, &b, |c| c["system"]["limits"] = json!({"replay_bytes": SIZE, "replay_total": SIZE})).await;
    let body = Arc::new(bytes(SIZE));
    let sending: Vec<_> =
        (0..32).map(|_| tokio::spawn(post(&app, OCTETS).body(body.to_vec()).send())).collect();
    for answer in sending {
        assert_eq!(within("an answer", answer).await.unwrap().status, 200);
    }
    assert!(a.received().iter().all(|request| request.body == *body));
    app.finish().await;
}

#[tokio::test]
async fn a_changed_budget_takes_effect_at_once() {
    const SIZE: usize = 64 << 10;
    let gate = Gate::new("the second request");
    let (a, b) = (pondering(&gate).await, well().await);
    let mut app =
        pair(&a, &b, |c| c["system"]["limits"] = json!({"replay_bytes": SIZE, "replay_total": SIZE})).await;
    let total = json!(SIZE * 2);
    assert!(app.change(|c| c["system"]["limits"]["replay_total"] = total).await);
    let sending: Vec<_> = (0..2).map(|_| tokio::spawn(post(&app, OCTETS).body(bytes(SIZE)).send())).collect();
    a.request(1).await;
    gate.open();
    for answer in sending {
        assert_eq!(within("an answer", answer).await.unwrap().status, 200, "both are kept now");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_body_that_outgrows_the_bound_while_the_refusal_is_read_is_not_sent_again() {
    let theirs = "{\"error\":{\"message\":\"later\",\"code\":\"rate_limit_exceeded\"}}";
    let gate = Gate::new("the rest of the refusal");
    let opens = gate.clone();
    // Its head comes at once, what it says comes late, and it reads on meanwhile.
    let a = RawUpstream::start(move |mut conn| {
        let gate = opens.clone();
        async move {
            conn.head().await;
            let whole = answer("429 Too Many Requests", "retry-after: 0\r\n", theirs);
            let (head, body) = whole.split_at(whole.len() - theirs.len());
            conn.send(head).await;
            conn.exact(300_000).await;
            gate.open();
            conn.send(body).await;
            conn.closed().await;
        }
    })
    .await;
    let b = well().await;
    let app = pair(&a, &b, |c| {
        c["system"]["workers"] = 1.into();
        c["system"]["limits"] = json!({"replay_bytes": "64KiB"});
    })
    .await;
    let (ask, upload) = post(&app, OCTETS).upload();
    let sending = tokio::spawn(ask.send());
    let body = bytes(400_000);
    let (first, rest) = body.split_at(10_000);
    assert!(upload.send(first.to_vec()).await);
    until("the refusal's head", || (app.platform().downward() > 0).then_some(())).await;
    // The relay's one thread has seen it once it has served somebody else.
    assert_eq!(app.get("/@b/v1/things").send().await.status, 200);
    for piece in rest.chunks(10_000) {
        if !upload.send(piece.to_vec()).await {
            break;
        }
    }
    drop(upload);
    gate.passed().await;
    let mut got = within("the answer", sending).await.unwrap();
    assert_eq!((got.status.as_u16(), got.text().await.as_str()), (429, theirs));
    assert_eq!(b.received().len(), 1, "what is left of the body is not the body");
    app.finish().await;
}
