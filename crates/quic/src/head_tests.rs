//! What HTTP/3 allows in a head, and what not.

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
    assert_eq!(request(block(&connect), LIMITS).unwrap().method, Method::CONNECT);
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
        ("x", "a\nb"),
        ("x", "a\rb"),
        ("x", "a\0b"),
        ("x", " a"),
        ("x", "a\t"),
        ("content-length", ""),
        ("content-length", "+1"),
        ("content-length", "1, 1"),
        ("content-length", "99999999999999999999"),
        ("host", "b.example"),
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
}

#[test]
fn an_answer_has_a_status_and_no_more() {
    let head = response(block(&[(":status", "200"), ("x", "y")]), LIMITS).unwrap();
    assert_eq!((head.status, head.headers.len()), (StatusCode::OK, 1));
    for bad in [
        &[("x", "y")][..],
        &[(":status", "20")],
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
        ("x-kept", "2"),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    let mut out = BytesMut::new();
    encode_request(&Method::POST, &"https://a.example/x".parse().unwrap(), &headers, &mut out);
    let head = request(out.freeze(), LIMITS).unwrap();
    assert_eq!(head.uri, "https://a.example/x");
    assert_eq!(head.headers.keys().collect::<Vec<_>>(), ["x-kept"]);
    let mut out = BytesMut::new();
    encode_response(StatusCode::NO_CONTENT, &headers, &mut out);
    let head = response(out.freeze(), LIMITS).unwrap();
    assert_eq!((head.status, head.headers.len()), (StatusCode::NO_CONTENT, 2));
}
