//! The caller's opening handshake (RFC 6455, section 4.2.1).

use aiproxy_core::ErrorKind;
use aiproxy_core::ports::Opening;
use aiproxy_core::websocket::{accept, is_key, lists};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderName, Method, request};

/// Subprotocols that are looked at; a browser offers five.
const PROTOCOLS: usize = 32;

type Refused = (ErrorKind, &'static str);

/// Takes the handshake apart.
///
/// # Errors
/// [`ErrorKind::BadRequest`] or [`ErrorKind::SocketVersion`], and a sentence for the caller.
pub(crate) fn opening(head: &request::Parts) -> Result<Opening, Refused> {
    let headers = &head.headers;
    let bad = |sentence| Err((ErrorKind::BadRequest, sentence));
    if head.method != Method::GET {
        return bad("A WebSocket opens with GET.");
    }
    if !lists(headers, &UPGRADE, "websocket") || !lists(headers, &CONNECTION, "upgrade") {
        return bad("A WebSocket handshake needs 'Upgrade: websocket' and 'Connection: Upgrade'.");
    }
    let length = headers.get(http::header::CONTENT_LENGTH);
    if headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != "0") {
        return bad("A WebSocket handshake has no body.");
    }
    let one = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        let first = values.next().and_then(|value| value.to_str().ok());
        first.filter(|_| values.next().is_none()).map(str::trim)
    };
    if one(&SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err((ErrorKind::SocketVersion, ErrorKind::SocketVersion.message()));
    }
    let Some(key) = one(&SEC_WEBSOCKET_KEY).filter(|key| is_key(key)) else {
        return bad("The header Sec-WebSocket-Key is missing or no key of sixteen bytes.");
    };
    let mut protocols: Vec<String> = Vec::new();
    for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        let Ok(value) = value.to_str() else { return bad("The header Sec-WebSocket-Protocol is malformed.") };
        for protocol in value.split(',').map(str::trim) {
            if protocol.is_empty() || protocol.bytes().any(|byte| !byte.is_ascii_graphic()) {
                return bad("The header Sec-WebSocket-Protocol is malformed.");
            }
            if protocols.len() == PROTOCOLS {
                return bad("The header Sec-WebSocket-Protocol names too many subprotocols.");
            }
            protocols.push(protocol.to_owned());
        }
    }
    Ok(Opening { accept: accept(key), protocols })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(more: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::new(());
        let usual = [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for (name, value) in usual {
            if !more.iter().any(|(other, _)| *other == name) {
                request.headers_mut().append(name, value.parse().unwrap());
            }
        }
        for (name, value) in more.iter().filter(|(_, value)| !value.is_empty()) {
            request.headers_mut().append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        request.into_parts().0
    }

    #[test]
    fn a_handshake_is_taken_apart() {
        let offers = [
            ("sec-websocket-protocol", "realtime, openai-insecure-api-key.pk"),
            ("sec-websocket-protocol", "x"),
        ];
        let opening = opening(&head(&offers)).unwrap();
        assert_eq!(opening.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(opening.protocols, ["realtime", "openai-insecure-api-key.pk", "x"]);
        assert_eq!(super::opening(&head(&[])).unwrap().protocols, Vec::<String>::new());
    }

    #[test]
    fn what_is_none_is_refused() {
        for (more, kind) in [
            (&[("connection", "keep-alive")][..], ErrorKind::BadRequest),
            (&[("sec-websocket-version", "8")], ErrorKind::SocketVersion),
            (&[("sec-websocket-version", "")], ErrorKind::SocketVersion),
            (&[("sec-websocket-version", "13"), ("sec-websocket-version", "8")], ErrorKind::SocketVersion),
            (&[("sec-websocket-key", "")], ErrorKind::BadRequest),
            (&[("sec-websocket-key", "c2hvcnQ=")], ErrorKind::BadRequest),
            (&[("sec-websocket-protocol", "a,,b")], ErrorKind::BadRequest),
            (&[("sec-websocket-protocol", "a b")], ErrorKind::BadRequest),
            (&[("content-length", "3")], ErrorKind::BadRequest),
            (&[("transfer-encoding", "chunked")], ErrorKind::BadRequest),
        ] {
            assert_eq!(opening(&head(more)).unwrap_err().0, kind, "{more:?}");
        }
        let mut post = head(&[]);
        post.method = Method::POST;
        assert_eq!(opening(&post).unwrap_err().0, ErrorKind::BadRequest);
    }
}
