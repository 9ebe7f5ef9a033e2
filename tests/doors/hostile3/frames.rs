//! Frames and streams where they do not belong, and field sections that cannot be read.

use aiproxy_testkit::quic::{self, Outcome, code, kind, uni};

use super::{Scene, data, fate, post, served};

#[tokio::test]
async fn frames_out_of_place_end_the_connection() {
    let scene = Scene::start().await;
    let head = || post(&[]);
    let trailers = || quic::headers(&[("x-trailer", "1")]);
    let mut rows: Vec<(String, Vec<u8>)> = vec![
        ("DATA first".into(), [data(b"body"), head()].concat()),
        ("empty DATA first".into(), [data(b""), head()].concat()),
        ("DATA behind trailers".into(), [head(), data(b"body"), trailers(), data(b"more")].concat()),
        ("empty DATA behind trailers".into(), [head(), data(b"body"), trailers(), data(b"")].concat()),
        ("trailers twice".into(), [head(), trailers(), trailers()].concat()),
    ];
    // Those of control streams, PUSH_PROMISE, and what HTTP/2 had.
    for kind in [0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xd] {
        let frame = quic::frame(kind, &[0]);
        rows.push((format!("frame {kind:#x} first"), [&frame[..], &head()].concat()));
        rows.push((format!("frame {kind:#x} within"), [&head()[..], &data(b"body"), &frame].concat()));
    }
    for (name, bytes) in rows {
        let raw = scene.connect().await;
        assert_eq!(fate(&raw, bytes).await, Outcome::Closed(code::FRAME_UNEXPECTED), "{name}");
        assert_eq!(scene.hostile(), 0, "{name}");
    }
    for (name, bytes) in [
        ("a head that is torn", head()[..20].to_vec()),
        ("a body that is torn", [&head()[..], &quic::announced(kind::DATA, 10), b"body"].concat()),
        ("a length that is torn", [&head()[..], &[0x00, 0xc0, 0x00]].concat()),
        ("an unknown frame that is torn", [&head()[..], &quic::announced(0x21, 10), b"abc"].concat()),
    ] {
        let raw = scene.connect().await;
        assert_eq!(fate(&raw, bytes).await, Outcome::Closed(code::FRAME_ERROR), "{name}");
        assert_eq!(scene.hostile(), 0, "{name}");
    }
    let raw = scene.connect().await;
    assert_eq!(fate(&raw, b"").await, Outcome::Reset(code::REQUEST_INCOMPLETE), "nothing");
    let grease = || quic::frame(0x21, b"grease");
    let bytes = [grease(), head(), grease(), data(b"body"), grease(), trailers(), grease()].concat();
    let outcome = fate(&raw, bytes).await;
    assert!(matches!(outcome, Outcome::Answer(200, _)), "unknown frames: {outcome:?}");
    scene.others_are_served().await;
    scene.finish().await;
}

#[tokio::test]
async fn sections_that_cannot_be_decoded_end_the_connection() {
    let scene = Scene::start().await;
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("no base", vec![0]),
        ("a dynamic table", vec![2, 0, 0xd1]),
        ("a base below nothing", vec![0, 0x80, 0xd1]),
        ("an entry of the dynamic table", vec![0, 0, 0x80]),
        ("an entry behind the base", vec![0, 0, 0x10]),
        ("a name of the dynamic table", vec![0, 0, 0x40, 1, b'a']),
        ("a name behind the base", vec![0, 0, 0x00, 1, b'a']),
        ("an entry that the static table has not", vec![0, 0, 0xff, 36]),
        ("a name that the static table has not", vec![0, 0, 0x5f, 0x7f, 1, b'a']),
        ("an endless number", [vec![0, 0], vec![0xff; 40]].concat()),
        ("a string that is torn", vec![0, 0, 0x51, 10, b'/']),
        ("a name that is torn", vec![0, 0, 0x26, b'a']),
        ("a string of all lengths", vec![0, 0, 0x51, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ("a code that ends in EOS", vec![0, 0, 0x51, 0x84, 0xff, 0xff, 0xff, 0xff]),
        ("padding that is none", vec![0, 0, 0x51, 0x81, 0x00]),
        ("padding that is too long", vec![0, 0, 0x51, 0x82, 0x1f, 0xff]),
    ];
    for (name, section) in rows {
        let raw = scene.connect().await;
        let outcome = fate(&raw, quic::frame(kind::HEADERS, &section)).await;
        assert_eq!(outcome, Outcome::Closed(code::QPACK_DECOMPRESSION_FAILED), "{name}");
        let raw = scene.connect().await;
        let outcome = fate(&raw, [post(&[]), quic::frame(kind::HEADERS, &section)].concat()).await;
        assert_eq!(outcome, Outcome::Closed(code::QPACK_DECOMPRESSION_FAILED), "{name}, as trailers");
        assert_eq!(scene.hostile(), 0, "{name}");
    }
    scene.others_are_served().await;
    scene.finish().await;
}

/// What is said on streams that go one way, whether the last of them ends, and the code that it gets.
type Row = (&'static str, Vec<Vec<u8>>, bool, u64);

fn rows() -> Vec<Row> {
    let control = |frames: &[&[u8]]| {
        [&quic::varint(uni::CONTROL)[..], &quic::frame(kind::SETTINGS, &[]), &frames.concat()].concat()
    };
    let settings =
        |payload: &[u8]| [&quic::varint(uni::CONTROL)[..], &quic::frame(kind::SETTINGS, payload)].concat();
    let open = |kind: u64, bytes: &[u8]| [&quic::varint(kind)[..], bytes].concat();
    let frame = |kind: u64, payload: &[u8]| control(&[&quic::frame(kind, payload)]);
    let unexpected = code::FRAME_UNEXPECTED;
    vec![
        (
            "no settings",
            vec![open(uni::CONTROL, &quic::frame(kind::GOAWAY, &[0]))],
            false,
            code::MISSING_SETTINGS,
        ),
        (
            "unknown before settings",
            vec![open(uni::CONTROL, &quic::frame(0x21, &[]))],
            false,
            code::MISSING_SETTINGS,
        ),
        ("settings twice", vec![frame(kind::SETTINGS, &[])], false, unexpected),
        ("a setting twice", vec![settings(&[6, 1, 6, 1])], false, code::SETTINGS_ERROR),
        ("a setting of HTTP/2", vec![settings(&[2, 0])], false, code::SETTINGS_ERROR),
        ("a setting that is torn", vec![settings(&[6, 0x80, 0])], false, code::FRAME_ERROR),
        (
            "settings without an end",
            vec![open(uni::CONTROL, &quic::announced(kind::SETTINGS, 1 << 30))],
            false,
            code::EXCESSIVE_LOAD,
        ),
        ("DATA", vec![frame(kind::DATA, b"body")], false, unexpected),
        ("HEADERS", vec![frame(kind::HEADERS, &[0, 0])], false, unexpected),
        ("PUSH_PROMISE", vec![frame(kind::PUSH_PROMISE, &[0])], false, unexpected),
        ("PING of HTTP/2", vec![frame(0x6, b"hostile!")], false, unexpected),
        ("CONTINUATION of HTTP/2", vec![frame(0x9, b"")], false, unexpected),
        ("CANCEL_PUSH", vec![frame(kind::CANCEL_PUSH, &[0])], false, code::ID_ERROR),
        ("a GOAWAY that is too long", vec![frame(kind::GOAWAY, &[0, 0])], false, code::FRAME_ERROR),
        (
            "a GOAWAY that takes another back",
            vec![control(&[&quic::frame(kind::GOAWAY, &[4]), &quic::frame(kind::GOAWAY, &[8])])],
            false,
            code::ID_ERROR,
        ),
        (
            "a MAX_PUSH_ID that takes another back",
            vec![control(&[&quic::frame(kind::MAX_PUSH_ID, &[8]), &quic::frame(kind::MAX_PUSH_ID, &[4])])],
            false,
            code::ID_ERROR,
        ),
        ("two control streams", vec![control(&[]), control(&[])], false, code::STREAM_CREATION_ERROR),
        (
            "two encoders",
            vec![open(uni::ENCODER, b""), open(uni::ENCODER, b"")],
            false,
            code::STREAM_CREATION_ERROR,
        ),
        (
            "two decoders",
            vec![open(uni::DECODER, b""), open(uni::DECODER, b"")],
            false,
            code::STREAM_CREATION_ERROR,
        ),
        ("a push", vec![open(uni::PUSH, &[0])], false, code::STREAM_CREATION_ERROR),
        ("the control stream ends", vec![control(&[])], true, code::CLOSED_CRITICAL_STREAM),
        ("the encoder ends", vec![open(uni::ENCODER, b"")], true, code::CLOSED_CRITICAL_STREAM),
        ("the decoder ends", vec![open(uni::DECODER, b"")], true, code::CLOSED_CRITICAL_STREAM),
        (
            "a table is asked for",
            vec![open(uni::ENCODER, &[0x3f, 0xe1, 0x1f])],
            false,
            code::QPACK_ENCODER_STREAM_ERROR,
        ),
        (
            "an entry is inserted",
            vec![open(uni::ENCODER, &[0x20, 0xc1, 1, b'/'])],
            false,
            code::QPACK_ENCODER_STREAM_ERROR,
        ),
        ("an entry is doubled", vec![open(uni::ENCODER, &[0x00])], false, code::QPACK_ENCODER_STREAM_ERROR),
        (
            "what was never inserted is acknowledged",
            vec![open(uni::DECODER, &[0x80])],
            false,
            code::QPACK_DECODER_STREAM_ERROR,
        ),
        ("an increment", vec![open(uni::DECODER, &[0x01])], false, code::QPACK_DECODER_STREAM_ERROR),
        (
            "an endless number",
            vec![open(uni::DECODER, &[&[0x7f][..], &[0xff; 11]].concat())],
            false,
            code::QPACK_DECODER_STREAM_ERROR,
        ),
    ]
}

#[tokio::test]
async fn streams_that_go_one_way_keep_to_what_they_are_for() {
    let scene = Scene::start().await;
    for (name, streams, ends, expected) in rows() {
        let mut raw = scene.caller.silent(scene.app.quic_addr()).await;
        for bytes in streams {
            raw.uni(bytes).await;
        }
        if ends {
            let _ = raw.kept(0).unwrap().finish();
        }
        assert_eq!(raw.closed().await, Outcome::Closed(expected), "{name}");
    }
    // Nothing is wrong with these.
    let mut raw = scene.connect().await;
    raw.uni(quic::varint(0x21)).await;
    raw.uni([quic::varint(0x40 + 0x1f * 7), b"unknown".to_vec()].concat()).await;
    raw.kept(3).unwrap().write_all(&[0x20, 0x20]).await.unwrap();
    raw.kept(2).unwrap().write_all(&[0x44, 0x7f, 0x81, 0x00]).await.unwrap();
    raw.kept(4).unwrap().write_all(&quic::frame(kind::GOAWAY, &[0])).await.unwrap();
    served(&raw).await;
    assert_eq!(raw.end(), None);
    scene.others_are_served().await;
    scene.finish().await;
}
