//! Field sections of HTTP/3: what is taken obeys the rules, and comes back when it is sent on.

#![no_main]

use aiproxy_quic::{HeadLimits, fuzzing};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, HOST, TE};
use http::{HeaderMap, Method, request};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { bytes: 2000, fields: 20 };

fuzz_target!(|data: &[u8]| {
    let block = Bytes::copy_from_slice(data);
    if let Some(head) = fuzzing::request(block.clone(), LIMITS) {
        obeys(&head.headers);
        has_one_target(&head);
        let again = fuzzing::request(fuzzing::encode_request(&head), LIMITS).expect("it was taken");
        assert_eq!((&again.method, &again.uri), (&head.method, &head.uri));
        let mut headers = head.headers;
        // The target says it.
        headers.remove(HOST);
        same(&again.headers, &headers);
    }
    if let Some(head) = fuzzing::response(block.clone(), LIMITS) {
        obeys(&head.headers);
        assert!((100..1000).contains(&head.status.as_u16()) && head.status != 101);
        let again = fuzzing::response(fuzzing::encode_response(&head), LIMITS).expect("it was taken");
        assert_eq!(again.status, head.status);
        same(&again.headers, &head.headers);
    }
    if let Some(headers) = fuzzing::trailers(block, LIMITS) {
        obeys(&headers);
        let again = fuzzing::trailers(fuzzing::encode_trailers(&headers), LIMITS).expect("they were taken");
        same(&again, &headers);
    }
});

/// The rules of RFC 9114, section 4.2, and the limits.
fn obeys(headers: &HeaderMap) {
    let mut bytes = 0;
    for (name, value) in headers {
        let (name, value) = (name.as_str(), value.as_bytes());
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert!(!name.is_empty() && name.bytes().all(token), "{name}");
        assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()), "{name}");
        let of_connections = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
        assert!(!of_connections.contains(&name), "{name}");
        assert!(!value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f), "{value:?}");
        assert_eq!(value.trim_ascii(), value);
        bytes += 32 + name.len() + value.len();
    }
    assert!(headers.len() <= LIMITS.fields && bytes <= LIMITS.bytes);
    assert!(headers.get_all(TE).iter().all(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers")));
    assert!(headers.get_all(COOKIE).iter().count() <= 1);
    assert!(headers.get_all(CONTENT_LENGTH).iter().count() <= 1);
    let length = headers.get(CONTENT_LENGTH).map(|length| length.to_str().expect("digits"));
    assert!(length.is_none_or(|length| length.parse::<u64>().is_ok() && !length.starts_with('+')));
}

/// One host, whoever names it, and a whole target, or none for CONNECT.
fn has_one_target(head: &request::Parts) {
    let authority = head.uri.authority().expect("a host").as_str();
    assert!(!authority.contains('@') && !head.uri.host().unwrap_or_default().is_empty(), "{authority}");
    let mut hosts = head.headers.get_all(HOST).iter();
    assert!(hosts.all(|host| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())));
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    if head.method == Method::CONNECT {
        assert!(head.uri.scheme().is_none() && path.is_empty(), "{}", head.uri);
    } else {
        assert!(matches!(head.uri.scheme_str(), Some("http" | "https")), "{}", head.uri);
        assert!(path.starts_with('/') || (path == "*" && head.method == Method::OPTIONS), "{path}");
    }
}

/// The same fields; none that was sensitive is no longer.
fn same(after: &HeaderMap, before: &HeaderMap) {
    assert_eq!(after, before);
    for name in before.keys() {
        for (after, before) in after.get_all(name).iter().zip(before.get_all(name)) {
            assert!(after.is_sensitive() || !before.is_sensitive(), "{name}");
        }
    }
}
