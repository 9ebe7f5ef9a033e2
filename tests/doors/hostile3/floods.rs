//! Floods, stalls and what they cost.

use std::time::Duration;

use aiproxy_testkit::quic::{self, Caller, Outcome, Raw, code, kind, uni};
use aiproxy_testkit::{RawUpstream, until};
use serde_json::json;

use super::{Scene, bearer, data, fields, post};

/// A platform that answers those who behave, and nobody else.
async fn silent() -> RawUpstream {
    RawUpstream::start(|mut conn| async move {
        while let Some(request) = conn.request().await {
            if request.target() != "/v1/fine" {
                return std::future::pending().await;
            }
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await
}

/// Opens streams, one after the other, and does this on each until the connection has ended.
async fn streams(raw: &Raw, most: usize, each: impl AsyncFn(&mut quic::Stream)) {
    for _ in 0..most {
        let Some(mut stream) = raw.bidi().await else { return };
        each(&mut stream).await;
    }
}

/// Sends a piece again and again until nobody takes it.
async fn pieces(raw: &Raw, first: &[u8], piece: &[u8]) {
    let mut stream = raw.bidi().await.unwrap();
    stream.send(first).await;
    for _ in 0..5000 {
        if !stream.send(piece).await {
            return;
        }
    }
}

#[tokio::test]
async fn floods_end_the_connection_and_cost_no_memory() {
    let scene = Scene::with(silent().await, |_| {}).await;
    scene.others_are_served().await;
    let before = scene.app.process().resident_bytes();
    let get = quic::headers(&fields("GET", "/v1/hostile", &bearer()));
    const MOST: usize = 5000;
    for flood in 0..10 {
        let mut raw = scene.connect().await;
        match flood {
            0 => streams(&raw, MOST, async |stream| stream.reset(code::REQUEST_CANCELLED)).await,
            1 => {
                let half = &get[..get.len() / 2];
                streams(&raw, MOST, async |stream| {
                    stream.send(half).await;
                    stream.reset(code::REQUEST_CANCELLED);
                })
                .await;
            }
            2 => {
                streams(&raw, MOST, async |stream| {
                    stream.send(&get).await;
                    let _ = stream.send.finish();
                    stream.stop(code::REQUEST_CANCELLED);
                })
                .await;
            }
            3 => {
                let upper = quic::headers(&[("X-Upper", "1")]);
                streams(&raw, MOST, async |stream| {
                    stream.send(&upper).await;
                })
                .await;
            }
            4 => {
                streams(&raw, MOST, async |stream| {
                    let _ = stream.send.finish();
                })
                .await;
            }
            5 => {
                for _ in 0..MOST {
                    raw.uni([quic::varint(0x21), b"unknown".to_vec()].concat()).await;
                    let _ = raw.kept(0).map(|stream| stream.finish());
                    if raw.end().is_some() {
                        break;
                    }
                }
            }
            6 => pieces(&raw, &post(&[]), &data(b"").repeat(100)).await,
            7 => pieces(&raw, &[], &quic::frame(0x21, b"").repeat(100)).await,
            8 => pieces(&raw, &post(&[]), &quic::frame(0x21, b"x").repeat(100)).await,
            _ => {
                let piece = quic::frame(kind::MAX_PUSH_ID, &[8]).repeat(10);
                let control = raw.kept(2).unwrap();
                while control.write_all(&piece).await.is_ok() {}
            }
        }
        assert_eq!(raw.closed().await, Outcome::Closed(code::EXCESSIVE_LOAD), "flood {flood}");
        scene.others_are_served().await;
    }
    scene.app.metric_is("aiproxy_live_requests", 0.0).await;
    scene.app.metric_is("aiproxy_connections_turned_away_total{reason=\"flood\"}", 10.0).await;
    let grown = scene.app.process().resident_bytes().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes");
    // Some were left too late to keep them from the platform; no more than the budget allows.
    assert!(scene.hostile() < 400, "{} hostile requests at the platform", scene.hostile());
    scene.finish().await;
}

#[tokio::test]
async fn what_is_skipped_is_not_kept() {
    let scene = Scene::with(silent().await, |_| {}).await;
    scene.others_are_served().await;
    let before = scene.app.process().resident_bytes();
    let raw = scene.connect().await;
    let mut held = Vec::new();
    for beginning in [
        quic::announced(0x21, 1 << 40),
        [post(&[]), quic::announced(0x21, 1 << 40)].concat(),
        // Answered, and no more of it is wanted.
        quic::announced(kind::HEADERS, 1 << 40),
    ] {
        let mut stream = raw.bidi().await.unwrap();
        stream.send(beginning).await;
        for _ in 0..16 {
            if !stream.send(vec![0xee; 1 << 20]).await {
                break;
            }
        }
        held.push(stream);
    }
    let mut other = scene.caller.silent(scene.app.quic_addr()).await;
    let mut control = [quic::varint(uni::CONTROL), quic::frame(kind::SETTINGS, &[])].concat();
    control.extend(quic::announced(0x21, 1 << 40));
    other.uni(control).await;
    for _ in 0..16 {
        other.kept(0).unwrap().write_all(&vec![0xee; 1 << 20]).await.unwrap();
    }
    let grown = scene.app.process().resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    assert_eq!(scene.hostile(), 0);
    scene.others_are_served().await;
    drop((held, raw, other));
    scene.finish().await;
}

#[tokio::test]
async fn heads_that_do_not_come_are_given_up() {
    let scene = Scene::with(RawUpstream::recording().await, |c| {
        c["system"]["limits"] = json!({"header_timeout": "1s"});
    })
    .await;
    let raw = scene.connect().await;
    let get = quic::headers(&fields("GET", "/v1/hostile", &bearer()));
    let mut silent = raw.bidi().await.unwrap();
    silent.send(&get[..1]).await;
    let mut half = raw.bidi().await.unwrap();
    half.send(&get[..get.len() / 2]).await;
    let mut slow = raw.bidi().await.unwrap();
    // Who sends a byte now and then has no more time than others.
    for byte in quic::announced(kind::HEADERS, 60_000).into_iter().chain(std::iter::repeat(0)) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if !slow.send([byte]).await {
            break;
        }
    }
    for mut stream in [silent, half, slow] {
        let outcome = stream.outcome().await;
        assert!(matches!(outcome, Outcome::Reset(_)), "{outcome:?}");
    }
    assert_eq!(scene.upstream.connections(), 0);
    super::served(&raw).await;
    // Whole, a byte at a time.
    let mut stream = raw.bidi().await.unwrap();
    for byte in get {
        stream.send([byte]).await;
        tokio::task::yield_now().await;
    }
    let _ = stream.send.finish();
    let outcome = stream.outcome().await;
    assert!(matches!(outcome, Outcome::Answer(200, _)), "{outcome:?}");
    scene.finish().await;
}

#[tokio::test]
async fn requests_beyond_those_of_a_connection_wait_their_turn() {
    let scene = Scene::with(silent().await, |c| {
        c["system"]["limits"] = json!({"streams_per_connection": 4});
    })
    .await;
    let raw = scene.connect().await;
    let get = quic::headers(&fields("GET", "/v1/hostile", &bearer()));
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = raw.bidi().await.unwrap();
        stream.send(&get).await;
        let _ = stream.send.finish();
        held.push(stream);
    }
    until("four at the platform", || (scene.hostile() == 4).then_some(())).await;
    tokio::select! {
        biased;
        _ = raw.quic().open_bi() => panic!("a fifth stream"),
        () = std::future::ready(()) => {}
    }
    held[0].reset(code::REQUEST_CANCELLED);
    held[0].stop(code::REQUEST_CANCELLED);
    // Its place is free.
    super::served(&raw).await;
    assert_eq!(scene.hostile(), 4);
    scene.others_are_served().await;
    drop((held, raw));
    scene.finish().await;
}

#[tokio::test]
async fn callers_that_take_nothing_cost_a_bounded_amount() {
    let upstream = RawUpstream::start(|mut conn| async move {
        while let Some(request) = conn.request().await {
            if request.target() == "/v1/fine" {
                conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                continue;
            }
            conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let piece = [&b"10000\r\n"[..], &[b'x'; 0x10000], b"\r\n"].concat();
            while conn.send(&piece).await {}
        }
    })
    .await;
    let scene = Scene::with(upstream, |_| {}).await;
    scene.others_are_served().await;
    let before = scene.app.process().resident_bytes();
    let get = quic::headers(&fields("GET", "/v1/endless", &bearer()));
    let (mut callers, mut held) = (Vec::new(), Vec::new());
    // No window at all for a stream; none for the connection beyond a little; a little for each stream.
    for (stream, all) in [(0, 1 << 20), (1 << 20, 1 << 16), (1 << 10, 1 << 20)] {
        let caller = Caller::new(&scene.authority).windows(stream, all);
        let raw = caller.connect(scene.app.quic_addr()).await;
        for _ in 0..50 {
            let mut stream = raw.bidi().await.unwrap();
            stream.send(&get).await;
            let _ = stream.send.finish();
            held.push(stream);
        }
        callers.push((caller, raw));
    }
    until("all of them at the platform", || (scene.upstream.connections() >= 150).then_some(())).await;
    let grown = scene.app.process().resident_bytes().saturating_sub(before);
    assert!(grown < 128 << 20, "{grown} bytes for 150 answers that nobody takes");
    scene.others_are_served().await;
    for mut stream in held {
        stream.reset(code::REQUEST_CANCELLED);
        stream.stop(code::REQUEST_CANCELLED);
    }
    scene.app.metric_is("aiproxy_live_requests", 0.0).await;
    drop(callers);
    scene.finish().await;
}
