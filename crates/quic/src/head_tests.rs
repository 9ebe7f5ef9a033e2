//! What HTTP/3 allows in a head, and what not.

use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 4000, fields: 20 };

type Fields<'a> = &'a [(&'a str, &'a str)];

fn block(fields: Fields<'_>) -> Bytes {
    let mut out = BytesMut::new();
    qpack::begin(&mut out);
    for (name, value) in fields {
        qpack::line(name, value.as_bytes(), false, &mut out);
    }
    out.freeze()
}

const GET: Fields<'static> =
    &[(":method", "GET"), (":scheme", "https"), (":authority", "a.example"), (":path", "/v1/models?x=1")];

/// The usual request, some of it replaced or added.
fn asking(changes: Fields<'_>) -> Result<request::Parts, HeadError> {
    let pseudo = GET.iter().map(|(name, value)| {
        let changed = changes.iter().find(|(other, _)| other == name);
        (*name, changed.map_or(*value, |(_, value)| *value))
    });
    let added = changes.iter().filter(|(name, _)| !GET.iter().any(|(known, _)| known == name));
    let fields: Vec<_> = pseudo.chain(added.copied()).filter(|(_, value)| *value != "-").collect();
    request(block(&fields), LIMITS)
}

fn is_malformed<T>(outcome: &Result<T, HeadError>) -> bool {
    matches!(outcome, Err(HeadError::Malformed(_)))
}

#[test]
fn a_request_has_a_target_and_fields() {
    let head = asking(&[("authorization", "Bearer x"), ("te", "trailers"), ("accept", "*/*")]).unwrap();
    assert_eq!(head.uri, "https://a.example/v1/models?x=1");
    assert_eq!((head.method, head.version), (Method::GET, Version::HTTP_3));
    assert_eq!(head.headers["authorization"], "Bearer x");
    assert_eq!(head.headers.len(), 3);
}

#[test]
fn pseudo_headers_are_there_once_before_all_fields_and_known() {
    for changes in [
        &[(":method", "-")][..],
        &[(":scheme", "-")],
        &[(":path", "-")],
        &[(":authority", "-")],
        &[(":method", "")],
        &[(":method", "G T")],
        &[(":scheme", "ftp")],
        &[(":path", "")],
        &[(":path", "v1")],
        &[(":path", "*")],
        &[(":path", "/a b")],
        &[(":path", "/a#b")],
        &[(":path", "https://b.example/")],
        &[(":authority", "")],
        &[(":authority", "user@a.example")],
        &[(":authority", "a.example/x")],
        &[(":authority", ":443")],
        &[(":authority", "a.example b.example")],
        &[(":scheme", "HTTPS")],
        &[(":path", "/\0")],
        &[(":Path", "/")],
        &[(":", "/")],
        &[(":status", "200")],
        &[(":protocol", "websocket")],
        &[(":other", "x")],
        &[(":method", "CONNECT")],
    ] {
        assert!(is_malformed(&asking(changes)), "{changes:?}");
    }
    let twice = [GET, &[(":path", "/other")]].concat();
    assert!(is_malformed(&request(block(&twice), LIMITS)));
    let late = [&GET[..3], &[("accept", "*/*")], &GET[3..]].concat();
    assert!(is_malformed(&request(block(&late), LIMITS)));
    let late = [&GET[..3], &[("cookie", "a=b")], &GET[3..]].concat();
    assert!(is_malformed(&request(block(&late), LIMITS)));
    assert!(asking(&[(":method", "OPTIONS"), (":path", "*")]).is_ok());
    let connect = [(":method", "CONNECT"), (":authority", "a.example:443")];
    let head = request(block(&connect), LIMITS).unwrap();
    assert_eq!(head.method, Method::CONNECT);
    let mut out = BytesMut::new();
    encode_request(&head.method, &head.uri, &head.headers, &mut out);
    assert_eq!(request(out.freeze(), LIMITS).unwrap().uri, "a.example:443");
    for more in [(":scheme", "https"), (":path", "/"), (":protocol", "websocket")] {
        let fields = [&connect[..], &[more]].concat();
        assert!(is_malformed(&request(block(&fields), LIMITS)), "{more:?}");
    }
    assert!(is_malformed(&request(block(&connect[..1]), LIMITS)));
    assert!(is_malformed(&request(block(&[]), LIMITS)));
}

#[test]
fn fields_of_a_connection_and_unreadable_ones_are_refused() {
    for field in [
        ("connection", "close"),
        ("connection", "x-key"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("X-Upper", "x"),
        ("x y", "x"),
        ("x\n", "x"),
        ("", "x"),
        ("x-very-very-very-very-very-very-very-very-very-very-very-very-very-Long", "x"),
        ("x-\u{fc}", "x"),
        ("x:y", "x"),
        ("x\"y", "x"),
        ("x", "a\nb"),
        ("x", "a\rb"),
        ("x", "a\0b"),
        ("x", " a"),
        ("x", "a\t"),
        ("x", "\t"),
        ("x", "a\u{7f}"),
        ("x", "a\u{1}"),
        ("cookie", "a=1\n"),
        ("content-length", ""),
        ("content-length", "+1"),
        ("content-length", "1, 1"),
        ("content-length", "99999999999999999999"),
        ("content-length", "-1"),
        ("content-length", "1 "),
        ("host", "b.example"),
        ("host", ""),
    ] {
        assert!(is_malformed(&asking(&[field])), "{field:?}");
    }
    assert!(is_malformed(&asking(&[("content-length", "1"), ("content-length", "2")])));
    assert!(is_malformed(&asking(&[("host", "a.example"), ("host", "a.example")])));
    let same = asking(&[("content-length", "7"), ("content-length", "7")]).unwrap();
    assert_eq!(same.headers.get_all("content-length").iter().count(), 1);
    let host = asking(&[(":authority", "-"), ("host", "b.example")]).unwrap();
    assert_eq!(host.uri.authority().unwrap(), "b.example");
    assert!(asking(&[("host", "A.example")]).is_ok());
    for bad in ["", "user@b.example", "b.example/x", ":80"] {
        assert!(is_malformed(&asking(&[(":authority", "-"), ("host", bad)])), "{bad:?}");
    }
    // The same in answers and trailers.
    for field in [("upgrade", "websocket"), ("X", "y"), ("x", "a\nb"), ("x", " y"), ("te", "gzip")] {
        assert!(is_malformed(&response(block(&[(":status", "200"), field]), LIMITS)), "{field:?}");
        assert!(is_malformed(&trailers(block(&[field]), LIMITS)), "{field:?}");
    }
}

#[test]
fn what_is_sensitive_stays_so() {
    let mut out = BytesMut::from(&block(GET)[..]);
    for (name, value, sensitive) in
        [("x-key", "k", true), ("x-other", "o", false), ("cookie", "a=1", false), ("cookie", "b=2", true)]
    {
        qpack::line(name, value.as_bytes(), sensitive, &mut out);
    }
    let head = request(out.freeze(), LIMITS).unwrap();
    for (name, sensitive) in [("x-key", true), ("x-other", false), ("cookie", true)] {
        assert_eq!(head.headers[name].is_sensitive(), sensitive, "{name}");
    }
    // And what is known to be a secret becomes so.
    let mut out = BytesMut::new();
    let headers = [(http::header::AUTHORIZATION, HeaderValue::from_static("Bearer x"))];
    encode_trailers(&headers.into_iter().collect(), &mut out);
    assert!(trailers(out.freeze(), LIMITS).unwrap()["authorization"].is_sensitive());
}

#[test]
fn cookies_in_pieces_are_one() {
    let head = asking(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]).unwrap();
    assert_eq!(head.headers["cookie"], "a=1; b=2");
}

#[test]
fn what_is_large_when_decoded_is_refused_while_it_is() {
    let many: Vec<_> = (0..21).map(|_| ("x", "y")).collect();
    assert_eq!(asking(&many).unwrap_err(), HeadError::TooLarge);
    let long = "y".repeat(4000);
    assert_eq!(asking(&[("x", &long)]).unwrap_err(), HeadError::TooLarge);
    // Two bytes of a section that count as eighty.
    let mut bomb = BytesMut::from(&block(GET)[..]);
    for _ in 0..10_000 {
        bomb.extend_from_slice(&[0xff, 98 - 63]);
    }
    let limits = HeadLimits { bytes: 4000, fields: 1_000_000 };
    assert_eq!(request(bomb.freeze(), limits).unwrap_err(), HeadError::TooLarge);
    // More names than a map holds.
    let limits = HeadLimits { bytes: usize::MAX, fields: usize::MAX };
    let mut names = BytesMut::from(&block(&[])[..]);
    for index in 0..40_000 {
        qpack::line(&format!("x{index}"), b"", false, &mut names);
    }
    assert_eq!(trailers(names.freeze(), limits).unwrap_err(), HeadError::TooLarge);
}

#[test]
fn a_head_at_its_limits_is_taken() {
    // 32 and the name and the value of each.
    let used: usize = GET.iter().map(|(name, value)| 32 + name.len() + value.len()).sum();
    let exactly = HeadLimits { bytes: used, fields: GET.len() };
    assert!(request(block(GET), exactly).is_ok());
    for limits in [
        HeadLimits { bytes: exactly.bytes - 1, ..exactly },
        HeadLimits { fields: exactly.fields - 1, ..exactly },
    ] {
        assert_eq!(request(block(GET), limits).unwrap_err(), HeadError::TooLarge);
    }
}

#[test]
fn an_answer_has_a_status_and_no_more() {
    let head = response(block(&[(":status", "200"), ("x", "y")]), LIMITS).unwrap();
    assert_eq!((head.status, head.headers.len()), (StatusCode::OK, 1));
    for bad in [
        &[("x", "y")][..],
        &[(":status", "20")],
        &[(":status", "")],
        &[(":status", "2000")],
        &[(":status", "+20")],
        &[(":status", "099")],
        &[(":status", "200"), (":status", "200")],
        &[("x", "y"), (":status", "200")],
        &[(":status", "200"), (":method", "GET")],
        &[(":status", "101")],
        &[(":status", "200"), (":path", "/")],
    ] {
        assert!(is_malformed(&response(block(bad), LIMITS)), "{bad:?}");
    }
    assert!(is_malformed(&trailers(block(&[(":status", "200")]), LIMITS)));
    assert_eq!(trailers(block(&[("x", "y")]), LIMITS).unwrap().len(), 1);
}

#[test]
fn what_belongs_to_a_connection_is_not_sent() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("te", "gzip"),
        ("host", "other.example"),
        ("x-kept", " 2\t"),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    let mut out = BytesMut::new();
    encode_request(&Method::POST, &"https://a.example/x".parse().unwrap(), &headers, &mut out);
    let head = request(out.freeze(), LIMITS).unwrap();
    assert_eq!(head.uri, "https://a.example/x");
    assert_eq!(head.headers.keys().collect::<Vec<_>>(), ["x-kept"]);
    assert_eq!(head.headers["x-kept"], "2");
    let mut out = BytesMut::new();
    encode_response(StatusCode::NO_CONTENT, &headers, &mut out);
    let head = response(out.freeze(), LIMITS).unwrap();
    assert_eq!((head.status, head.headers.len()), (StatusCode::NO_CONTENT, 2));
}

/// Bounds of a head that was taken.
fn within(headers: &HeaderMap) -> bool {
    let bytes: usize = headers.iter().map(|(name, value)| 32 + name.as_str().len() + value.len()).sum();
    headers.len() <= LIMITS.fields && bytes <= LIMITS.bytes
}

/// Bytes that are often a field section: whole lines, and others.
fn sections() -> impl Strategy<Value = Bytes> {
    let name = prop_oneof![
        prop::sample::select(GET).prop_map(|(name, _)| name.to_owned()),
        prop::sample::select(&["cookie", "host", "te", "content-length", "connection", ":status"][..])
            .prop_map(str::to_owned),
        "[a-z-]{1,12}",
    ];
    let value = prop_oneof![
        prop::sample::select(GET).prop_map(|(_, value)| value.to_owned()),
        "[ -~]{0,20}",
        "[0-9]{1,3}",
    ];
    let line = prop_oneof![
        9 => (name, value, any::<bool>()).prop_map(|(name, value, sensitive)| {
            let mut out = BytesMut::new();
            qpack::line(&name, value.as_bytes(), sensitive, &mut out);
            out.to_vec()
        }),
        1 => prop::collection::vec(any::<u8>(), 0..9),
    ];
    (any::<bool>(), prop::collection::vec(line, 0..12)).prop_map(|(asks, lines)| {
        let begin = if asks { block(GET) } else { block(&[]) };
        [&begin[..], &lines.concat()].concat().into()
    })
}

proptest! {
    #[test]
    fn whatever_is_taken_is_within_its_limits_and_comes_back(section in sections()) {
        let mut out = BytesMut::new();
        if let Ok(head) = request(section.clone(), LIMITS) {
            prop_assert!(within(&head.headers));
            encode_request(&head.method, &head.uri, &head.headers, &mut out);
            let again = request(out.split().freeze(), LIMITS).unwrap();
            let mut headers = head.headers;
            headers.remove(HOST);
            prop_assert_eq!((again.method, again.uri, again.headers), (head.method, head.uri, headers));
        }
        if let Ok(head) = response(section.clone(), LIMITS) {
            prop_assert!(within(&head.headers));
            encode_response(head.status, &head.headers, &mut out);
            let again = response(out.split().freeze(), LIMITS).unwrap();
            prop_assert_eq!((again.status, again.headers), (head.status, head.headers));
        }
        if let Ok(headers) = trailers(section, LIMITS) {
            prop_assert!(within(&headers));
            encode_trailers(&headers, &mut out);
            prop_assert_eq!(trailers(out.freeze(), LIMITS).unwrap(), headers);
        }
    }

    #[test]
    fn values_of_every_size_come_back(length in 0_usize..70_000, name in 1_usize..300) {
        let limits = HeadLimits { bytes: 100_000, fields: 1 };
        let name = HeaderName::from_bytes("n".repeat(name).as_bytes()).unwrap();
        let value = HeaderValue::from_str(&"v".repeat(length)).unwrap();
        let headers = HeaderMap::from_iter([(name, value)]);
        let mut out = BytesMut::new();
        encode_trailers(&headers, &mut out);
        prop_assert_eq!(trailers(out.freeze(), limits).unwrap(), headers);
    }
}
