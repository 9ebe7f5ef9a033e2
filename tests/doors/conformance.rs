//! RFC 9113, row by row: what ends a connection, what ends a stream, what is tolerated. The numbers
//! are its sections, in the order in which h2spec goes through them.

use std::time::Duration;

use aiproxy_testkit::h2::{self, H2, Outcome, flag, frame, kind};
use aiproxy_testkit::{RawUpstream, Wire};

use super::{bearer, fields};
use crate::relay;

/// Error codes (section 7).
const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

/// Everything here comes at once.
const PATIENCE: Duration = Duration::from_secs(3);

// The implementation says PROTOCOL_ERROR in place of several more exact codes. The connection ends
// all the same, which is what protects; the code is for the caller's log.
const SIZE: &[u32] = &[FRAME_SIZE, PROTOCOL];
const TABLE: &[u32] = &[COMPRESSION, PROTOCOL];
const WINDOW: &[u32] = &[FLOW_CONTROL, PROTOCOL];

/// What has to become of it.
enum Fate {
    /// The connection ends with one of these codes, or without a word (section 5.4.1).
    Connection(&'static [u32]),
    /// The stream, or the whole connection, ends with one of these codes (section 5.4.2).
    Stream(u32, &'static [u32]),
    /// Nothing: the connection goes on.
    Tolerated,
    /// The request on this stream is answered.
    Served(u32),
}
use Fate::{Connection, Served, Stream, Tolerated};

struct Row {
    section: &'static str,
    what: &'static str,
    bytes: Vec<u8>,
    fate: Fate,
}

fn row(section: &'static str, what: &'static str, bytes: impl Into<Vec<u8>>, fate: Fate) -> Row {
    Row { section, what, bytes: bytes.into(), fate }
}

fn code(code: u32) -> [u8; 4] {
    code.to_be_bytes()
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn rows(bearer: &str) -> Vec<Row> {
    let fine = fields("GET", "/v1/fine", bearer);
    let block = h2::block(&fine);
    let get = |stream| h2::headers(stream, true, &fine);
    let post = |stream| h2::headers(stream, false, &fields("POST", "/v1/hostile", bearer));
    let whole = flag::END_HEADERS | flag::END_STREAM;
    let half = block.len() / 2;
    let join = |parts: &[&[u8]]| parts.concat();
    let padded = |pad: u8, rest: &[u8]| [&[pad], rest, &vec![0; usize::from(pad)]].concat();
    let depends = |on: u32| [&code(on)[..], &[16]].concat();
    let mut rows = vec![
        // 4.1 Frame format
        row("4.1", "a frame of an unknown type", frame(0xff, 0, 0, b"12345678"), Tolerated),
        row("4.1", "undefined flags", frame(kind::PING, 0xfe, 0, b"12345678"), Tolerated),
        row(
            "4.1",
            "the reserved bit",
            {
                let mut f = get(1);
                f[5] |= 0x80;
                f
            },
            Served(1),
        ),
        // 4.2 Frame size
        row(
            "4.2",
            "DATA beyond SETTINGS_MAX_FRAME_SIZE",
            join(&[&post(1), &frame(kind::DATA, 1, 1, &vec![0; 16_385])]),
            Stream(1, SIZE),
        ),
        row(
            "4.2",
            "HEADERS beyond SETTINGS_MAX_FRAME_SIZE",
            frame(kind::HEADERS, whole, 1, &vec![0; 16_385]),
            Connection(SIZE),
        ),
        row(
            "4.2",
            "DATA of exactly that size",
            join(&[
                &h2::headers(1, false, &fields("POST", "/v1/fine", bearer)),
                &frame(kind::DATA, 1, 1, &vec![b'x'; 16_384]),
            ]),
            Served(1),
        ),
        // 4.3 Field compression
        row(
            "4.3",
            "an index that does not exist",
            frame(kind::HEADERS, whole, 1, &[0xff, 0xff, 0xff, 0x7f]),
            Connection(TABLE),
        ),
        row(
            "4.3",
            "a block that ends early",
            frame(kind::HEADERS, whole, 1, &block[..half]),
            Connection(TABLE),
        ),
        row(
            "4.3",
            "another frame within a block",
            join(&[
                &frame(kind::HEADERS, flag::END_STREAM, 1, &block[..half]),
                &frame(kind::PRIORITY, 0, 1, &depends(0)),
            ]),
            Connection(&[PROTOCOL]),
        ),
        row(
            "4.3",
            "HEADERS of another stream within a block",
            join(&[&frame(kind::HEADERS, flag::END_STREAM, 1, &block[..half]), &get(3)]),
            Connection(&[PROTOCOL]),
        ),
        row(
            "4.3",
            "a block in three frames",
            join(&[
                &frame(kind::HEADERS, flag::END_STREAM, 1, &block[..9]),
                &frame(kind::CONTINUATION, 0, 1, &block[9..half]),
                &frame(kind::CONTINUATION, flag::END_HEADERS, 1, &block[half..]),
            ]),
            Served(1),
        ),
        // 5.1 Stream states
        row("5.1", "DATA on an idle stream", frame(kind::DATA, 1, 1, b"x"), Connection(&[PROTOCOL])),
        row(
            "5.1",
            "RST_STREAM on an idle stream",
            frame(kind::RST_STREAM, 0, 1, &code(8)),
            Connection(&[PROTOCOL]),
        ),
        row(
            "5.1",
            "WINDOW_UPDATE on an idle stream",
            frame(kind::WINDOW_UPDATE, 0, 1, &code(100)),
            Connection(&[PROTOCOL]),
        ),
        row(
            "5.1",
            "CONTINUATION on an idle stream",
            frame(kind::CONTINUATION, flag::END_HEADERS, 1, &block),
            Connection(&[PROTOCOL]),
        ),
        row("5.1", "PRIORITY on an idle stream", frame(kind::PRIORITY, 0, 1, &depends(0)), Tolerated),
        row(
            "5.1",
            "DATA after END_STREAM",
            join(&[&get(1), &frame(kind::DATA, 1, 1, b"x")]),
            Stream(1, &[STREAM_CLOSED, PROTOCOL]),
        ),
        row(
            "5.1",
            "HEADERS after END_STREAM",
            join(&[&get(1), &get(1)]),
            Stream(1, &[STREAM_CLOSED, PROTOCOL]),
        ),
        row(
            "5.1",
            "CONTINUATION after END_HEADERS",
            join(&[&get(1), &frame(kind::CONTINUATION, flag::END_HEADERS, 1, &block)]),
            Connection(&[PROTOCOL, STREAM_CLOSED]),
        ),
        row(
            "5.1",
            "DATA after RST_STREAM",
            join(&[&post(1), &frame(kind::RST_STREAM, 0, 1, &code(8)), &frame(kind::DATA, 1, 1, b"x")]),
            Stream(1, &[STREAM_CLOSED, PROTOCOL]),
        ),
        row(
            "5.1",
            "HEADERS after RST_STREAM",
            join(&[&post(1), &frame(kind::RST_STREAM, 0, 1, &code(8)), &get(1)]),
            Stream(1, &[STREAM_CLOSED, PROTOCOL]),
        ),
        // 5.1.1 Stream identifiers
        row("5.1.1", "an even identifier", get(2), Connection(&[PROTOCOL])),
        row(
            "5.1.1",
            "a lower identifier than before",
            join(&[&get(5), &get(3)]),
            Connection(&[PROTOCOL, STREAM_CLOSED]),
        ),
        // 5.3 Prioritisation
        row(
            "5.3.1",
            "HEADERS that depend on themselves",
            frame(kind::HEADERS, whole | flag::PRIORITY, 1, &join(&[&depends(1), &block])),
            Stream(1, &[PROTOCOL]),
        ),
        row(
            "5.3.1",
            "PRIORITY on itself",
            join(&[&post(1), &frame(kind::PRIORITY, 0, 1, &depends(1))]),
            Stream(1, &[PROTOCOL]),
        ),
        // 5.4 and 5.5
        row(
            "5.5",
            "an unknown frame within a block",
            join(&[&frame(kind::HEADERS, flag::END_STREAM, 1, &block[..half]), &frame(0xff, 0, 0, b"")]),
            Connection(&[PROTOCOL]),
        ),
        row("5.5", "an unknown frame on a stream", join(&[&frame(0x42, 0, 3, b"x"), &get(1)]), Served(1)),
        // 6.1 DATA
        row("6.1", "DATA on stream 0", frame(kind::DATA, 1, 0, b"x"), Connection(&[PROTOCOL])),
        row(
            "6.1",
            "more padding than DATA",
            join(&[&post(1), &frame(kind::DATA, 1 | flag::PADDED, 1, b"\x06abcde")]),
            Connection(&[PROTOCOL]),
        ),
        row(
            "6.1",
            "padding",
            join(&[
                &h2::headers(1, false, &fields("POST", "/v1/fine", bearer)),
                &frame(kind::DATA, 1 | flag::PADDED, 1, &padded(9, b"abc")),
            ]),
            Served(1),
        ),
        // 6.2 HEADERS
        row("6.2", "HEADERS on stream 0", get(0), Connection(&[PROTOCOL])),
        row(
            "6.2",
            "more padding than HEADERS",
            frame(kind::HEADERS, whole | flag::PADDED, 1, &join(&[&[255], &block[..20]])),
            Connection(&[PROTOCOL]),
        ),
        row(
            "6.2",
            "padding and a priority",
            frame(
                kind::HEADERS,
                whole | flag::PADDED | flag::PRIORITY,
                1,
                &padded(7, &join(&[&depends(0), &block])),
            ),
            Served(1),
        ),
        // 6.3 PRIORITY
        row("6.3", "PRIORITY on stream 0", frame(kind::PRIORITY, 0, 0, &depends(1)), Connection(&[PROTOCOL])),
        row(
            "6.3",
            "PRIORITY of four bytes",
            join(&[&post(1), &frame(kind::PRIORITY, 0, 1, &[0; 4])]),
            Stream(1, SIZE),
        ),
        // 6.4 RST_STREAM
        row(
            "6.4",
            "RST_STREAM on stream 0",
            frame(kind::RST_STREAM, 0, 0, &code(8)),
            Connection(&[PROTOCOL]),
        ),
        row(
            "6.4",
            "RST_STREAM of three bytes",
            join(&[&post(1), &frame(kind::RST_STREAM, 0, 1, &[0; 3])]),
            Connection(SIZE),
        ),
        // 6.5 SETTINGS
        row(
            "6.5",
            "an acknowledgement with a payload",
            frame(kind::SETTINGS, flag::ACK, 0, &[0; 6]),
            Connection(SIZE),
        ),
        row("6.5", "SETTINGS on a stream", frame(kind::SETTINGS, 0, 1, &[]), Connection(&[PROTOCOL])),
        row("6.5", "SETTINGS of five bytes", frame(kind::SETTINGS, 0, 0, &[0; 5]), Connection(SIZE)),
        row("6.5.2", "SETTINGS_ENABLE_PUSH of 2", h2::settings(&[(2, 2)]), Connection(&[PROTOCOL])),
        row(
            "6.5.2",
            "SETTINGS_INITIAL_WINDOW_SIZE too large",
            h2::settings(&[(4, 0x8000_0000)]),
            Connection(WINDOW),
        ),
        row(
            "6.5.2",
            "SETTINGS_MAX_FRAME_SIZE too small",
            h2::settings(&[(5, 16_383)]),
            Connection(&[PROTOCOL]),
        ),
        row(
            "6.5.2",
            "SETTINGS_MAX_FRAME_SIZE too large",
            h2::settings(&[(5, 1 << 24)]),
            Connection(&[PROTOCOL]),
        ),
        row("6.5.2", "an unknown setting", h2::settings(&[(0xff, 1)]), Tolerated),
        row("6.5.2", "the same setting twice", h2::settings(&[(4, 100), (4, 200)]), Tolerated),
        // 6.6 PUSH_PROMISE
        row(
            "6.6",
            "PUSH_PROMISE of a caller",
            join(&[&post(1), &frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &join(&[&code(2), &block]))]),
            Connection(&[PROTOCOL]),
        ),
        // 6.7 PING
        row("6.7", "PING on a stream", frame(kind::PING, 0, 1, b"12345678"), Connection(&[PROTOCOL])),
        row("6.7", "PING of seven bytes", frame(kind::PING, 0, 0, b"1234567"), Connection(SIZE)),
        row("6.7", "an acknowledgement of no PING", frame(kind::PING, flag::ACK, 0, b"12345678"), Tolerated),
        // 6.8 GOAWAY
        row("6.8", "GOAWAY on a stream", frame(kind::GOAWAY, 0, 1, &[0; 8]), Connection(&[PROTOCOL])),
        // 6.9 WINDOW_UPDATE
        row(
            "6.9",
            "an increment of 0 for the connection",
            frame(kind::WINDOW_UPDATE, 0, 0, &code(0)),
            Connection(&[PROTOCOL]),
        ),
        row(
            "6.9",
            "an increment of 0 for a stream",
            join(&[&post(1), &frame(kind::WINDOW_UPDATE, 0, 1, &code(0))]),
            Stream(1, &[PROTOCOL]),
        ),
        row(
            "6.9",
            "WINDOW_UPDATE of three bytes",
            frame(kind::WINDOW_UPDATE, 0, 0, &[0; 3]),
            Connection(SIZE),
        ),
        row(
            "6.9.1",
            "a window beyond 2^31-1",
            join(&[
                &frame(kind::WINDOW_UPDATE, 0, 0, &code(0x7fff_ffff)),
                &frame(kind::WINDOW_UPDATE, 0, 0, &code(0x7fff_ffff)),
            ]),
            Connection(WINDOW),
        ),
        row(
            "6.9.1",
            "a stream's window beyond 2^31-1",
            join(&[
                &post(1),
                &frame(kind::WINDOW_UPDATE, 0, 1, &code(0x7fff_ffff)),
                &frame(kind::WINDOW_UPDATE, 0, 1, &code(0x7fff_ffff)),
            ]),
            Stream(1, &[FLOW_CONTROL]),
        ),
        // 6.10 CONTINUATION
        row(
            "6.10",
            "CONTINUATION on stream 0",
            join(&[
                &frame(kind::HEADERS, flag::END_STREAM, 1, &block[..half]),
                &frame(kind::CONTINUATION, flag::END_HEADERS, 0, &block[half..]),
            ]),
            Connection(&[PROTOCOL]),
        ),
        row(
            "6.10",
            "CONTINUATION of another stream",
            join(&[
                &frame(kind::HEADERS, flag::END_STREAM, 1, &block[..half]),
                &frame(kind::CONTINUATION, flag::END_HEADERS, 3, &block[half..]),
            ]),
            Connection(&[PROTOCOL]),
        ),
        row(
            "6.10",
            "CONTINUATION after DATA",
            join(&[
                &post(1),
                &frame(kind::DATA, 0, 1, b"x"),
                &frame(kind::CONTINUATION, flag::END_HEADERS, 1, &block),
            ]),
            Connection(&[PROTOCOL]),
        ),
        // 8.1 Trailers
        row(
            "8.1",
            "trailers without END_STREAM",
            join(&[&post(1), &frame(kind::DATA, 0, 1, b"x"), &h2::headers(1, false, &[("x-a", "b")])]),
            Stream(1, &[PROTOCOL]),
        ),
        row(
            "8.1.2.1",
            "a pseudo-field in trailers",
            join(&[
                &h2::headers(1, false, &fields("POST", "/v1/fine", bearer)),
                &frame(kind::DATA, 0, 1, b"x"),
                &h2::headers(1, true, &[(":method", "GET")]),
            ]),
            // Should be an error; is dropped by the implementation, and never passed on.
            Served(1),
        ),
    ];
    // HPACK (RFC 7541)
    let hpack = |bytes: &[u8]| frame(kind::HEADERS, whole, 1, &[&block[..], bytes].concat());
    rows.extend([
        row("7541 2.3.3", "index 0", hpack(&[0x80]), Connection(TABLE)),
        row(
            "7541 4.2",
            "a table larger than allowed",
            frame(kind::HEADERS, whole, 1, &[&[0x3f, 0xe2, 0x1f], &block[..]].concat()),
            Connection(TABLE),
        ),
        row("7541 4.2", "a change of the table within the fields", hpack(&[0x20]), Connection(TABLE)),
        row(
            "7541 5.1",
            "an integer without an end",
            hpack(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            Connection(TABLE),
        ),
        row(
            "7541 5.2",
            "Huffman padding of more than seven bits",
            hpack(&[0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x84, 0x49, 0x50, 0x9f, 0xff]),
            Connection(TABLE),
        ),
        row(
            "7541 5.2",
            "Huffman padding of zeros",
            hpack(&[0x00, 0x01, b'a', 0x81, 0x18]),
            Connection(TABLE),
        ),
        row(
            "7541 5.2",
            "the Huffman end of string",
            hpack(&[0x00, 0x01, b'a', 0x84, 0xff, 0xff, 0xff, 0xff]),
            Connection(TABLE),
        ),
        row(
            "7541 6.1",
            "a static field by index",
            frame(
                kind::HEADERS,
                whole,
                1,
                &[
                    &[0x82, 0x86][..],
                    &h2::block(&[(":authority", "relay"), (":path", "/v1/fine"), ("authorization", bearer)]),
                ]
                .concat(),
            ),
            Served(1),
        ),
        row(
            "7541 6.2.1",
            "a field put into the table and taken out of it",
            hpack(&[0x40, 1, b'x', 1, b'y', 0xbe]),
            Served(1),
        ),
    ]);
    rows
}

#[tokio::test]
async fn each_row_meets_its_fate() {
    let upstream = RawUpstream::recording().await;
    let app = relay().config(|c| c["system"]["log_level"] = "info".into()).upstream(&upstream).start().await;
    let bearer = bearer();
    let fine = fields("GET", "/v1/fine", &bearer);
    let mut wrong = Vec::new();
    for Row { section, what, bytes, fate } in rows(&bearer) {
        let mut h2 = H2::connect(app.addr()).await;
        h2.send(&bytes).await;
        let met = async {
            match fate {
                Connection(codes) => {
                    let said = h2.end().await;
                    (said.is_none_or(|said| codes.contains(&said)), format!("{said:?}"))
                }
                Stream(stream, codes) => {
                    // What was answered before is no matter: the error is about what came after.
                    let mut outcome = h2.outcome(stream).await;
                    if matches!(outcome, Outcome::Answer(..)) {
                        outcome = h2.outcome(stream).await;
                    }
                    let good = match &outcome {
                        Outcome::Reset(code) | Outcome::GoAway(code) => codes.contains(code),
                        Outcome::Closed => true,
                        Outcome::Answer(..) => false,
                    };
                    (good, format!("{outcome:?}"))
                }
                Tolerated => (h2.is_alive().await, "the connection ended".to_owned()),
                Served(stream) => {
                    let outcome = h2.outcome(stream).await;
                    (matches!(outcome, Outcome::Answer(200, _)), format!("{outcome:?}"))
                }
            }
        };
        let (good, outcome) =
            tokio::time::timeout(PATIENCE, met).await.unwrap_or((false, "nothing".to_owned()));
        if !good {
            wrong.push(format!("{section} {what}: {outcome}"));
        }
        if matches!(fate, Tolerated | Served(_)) {
            h2.send(h2::headers(101, true, &fine)).await;
            let outcome = h2.outcome(101).await;
            if !matches!(outcome, Outcome::Answer(200, _)) {
                wrong.push(format!("{section} {what}: afterwards {outcome:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let trailers: Vec<_> = upstream.received().into_iter().flat_map(|seen| seen.trailers.headers).collect();
    assert!(trailers.is_empty(), "{trailers:?}");
    let hostile: Vec<_> =
        upstream.received().into_iter().filter(|seen| seen.target() != "/v1/fine").collect();
    assert!(hostile.is_empty(), "{hostile:?}");
    assert_eq!(app.get("/v1/fine").send().await.status, 200);
    app.metric_is("aiproxy_live_requests", 0.0).await;
    app.finish().await;
}

#[tokio::test]
async fn a_connection_begins_with_the_preface_and_settings() {
    let app = relay().start().await;
    // RFC 9113, section 3.4: no preface is HTTP/1.1, and half of one is nonsense in it.
    for beginning in [&b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\n"] {
        let mut raw = app.raw().await;
        raw.send(beginning).await;
        raw.finish().await;
        let said = raw.rest().await;
        let said = String::from_utf8_lossy(&said);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
    }
    let mut h2 = H2::over(Wire::Plain(Wire::tcp(app.addr()).await));
    h2.send(h2::PREFACE).await;
    h2.send(frame(kind::PING, 0, 0, b"no table")).await;
    let said = h2.end().await;
    assert!(said.is_none_or(|code| code == PROTOCOL), "the first frame has to be SETTINGS: {said:?}");
    app.finish().await;
}
