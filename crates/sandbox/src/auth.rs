//! Where a key may sit in a request, whether it is the sandbox's, and how it is masked.

use crate::shape::{Fault, Shape};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;

/// Headers whose value is (or may be) a key: the log shows `<key>` or `<other>` for them.
const KEY_HEADERS: [&str; 6] =
    ["authorization", "x-api-key", "api-key", "x-goog-api-key", "xi-api-key", "proxy-authorization"];
/// The same for query parameters.
const KEY_PARAMS: [&str; 3] = ["key", "api-key", "access_token"];
/// What stands before a key in a WebSocket subprotocol: OpenAI's, xAI's.
const KEY_PROTOCOLS: [&str; 2] = ["openai-insecure-api-key.", "xai-client-secret."];
/// Deepgram's subprotocols that a key follows, which are its schemes in `Authorization` too.
const SCHEMES: [&str; 2] = ["token", "bearer"];

/// The key of the request, if it is the sandbox's own; otherwise the platform's refusal.
pub(crate) fn check(key: &str, shape: Shape, headers: &HeaderMap, query: &str) -> Result<(), Fault> {
    let mut offered = Vec::new();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    offered.extend(header("authorization").and_then(|value| match shape {
        Shape::Deepgram => SCHEMES.iter().find_map(|scheme| after(scheme, value)),
        _ => after("bearer", value),
    }));
    if shape == Shape::Anthropic {
        offered.extend(header("x-api-key"));
    }
    offered.extend(header("api-key"));
    offered.extend(header("x-goog-api-key"));
    let in_query = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("key="))
        .map(|value| percent_decode_str(value).decode_utf8_lossy());
    offered.extend(in_query.as_deref());
    let protocols = protocols(headers);
    offered.extend(
        keys_in(&protocols).filter(|one| one.paired == (shape == Shape::Deepgram)).map(|one| one.key),
    );
    if offered.contains(&key) {
        return Ok(());
    }
    Err(refusal(shape, offered.first().copied()))
}

/// The subprotocols that a handshake offers, in order.
pub(crate) fn protocols(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).collect()
}

/// Whether a subprotocol holds a key by its own look.
pub(crate) fn holds_key(protocol: &str) -> bool {
    KEY_PROTOCOLS.iter().any(|prefix| protocol.starts_with(prefix))
}

/// A key in the subprotocol with this index.
struct InProtocol<'a> {
    index: usize,
    before: &'static str,
    key: &'a str,
    /// It stands behind `token` or `bearer`.
    paired: bool,
}

fn keys_in<'a>(protocols: &'a [&'a str]) -> impl Iterator<Item = InProtocol<'a>> {
    let mut follows = false;
    protocols.iter().enumerate().filter_map(move |(index, protocol)| {
        if std::mem::replace(&mut follows, SCHEMES.contains(protocol)) {
            return Some(InProtocol { index, before: "", key: protocol, paired: true });
        }
        KEY_PROTOCOLS.iter().find_map(|before| {
            let key = protocol.strip_prefix(before)?;
            Some(InProtocol { index, before, key, paired: false })
        })
    })
}

fn refusal(shape: Shape, offered: Option<&str>) -> Fault {
    let message = match (shape, offered) {
        (Shape::OpenAi, Some(key)) => format!(
            "Incorrect API key provided: {}. You can find your API key at \
             https://platform.openai.com/account/api-keys.",
            masked(key)
        ),
        (Shape::OpenAi, None) => "You didn't provide an API key. You need to provide your API key \
                                  in an Authorization header using Bearer auth (i.e. \
                                  Authorization: Bearer YOUR_KEY)."
            .to_owned(),
        (Shape::DashScope, Some(_)) => "Invalid API-key provided.".to_owned(),
        (Shape::DashScope, None) => "No API-key provided.".to_owned(),
        (Shape::Deepgram, _) => "Invalid credentials.".to_owned(),
        (Shape::Anthropic, Some(_)) => "invalid x-api-key".to_owned(),
        (Shape::Anthropic, None) => "x-api-key header is required".to_owned(),
    };
    Fault::new(StatusCode::UNAUTHORIZED, message)
}

/// The credential of `Bearer ...` or the like; the scheme in any case.
fn after<'v>(wanted: &str, value: &'v str) -> Option<&'v str> {
    let (scheme, key) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case(wanted).then(|| key.trim())
}

/// `sk-ab****yz`; short keys show nothing.
fn masked(key: &str) -> String {
    let chars: Vec<char> = key.chars().collect();
    if chars.len() < 12 {
        return "*".repeat(chars.len());
    }
    let head: String = chars[..5].iter().collect();
    let tail: String = chars[chars.len() - 2..].iter().collect();
    format!("{head}****{tail}")
}

/// A header's value as the log shows it, where that differs from what it is.
pub(crate) fn logged_header(key: &str, name: &str, value: &str) -> Option<String> {
    if name == SEC_WEBSOCKET_PROTOCOL {
        let protocols: Vec<&str> = value.split(',').map(str::trim).collect();
        let mut shown: Vec<String> = protocols.iter().map(|protocol| (*protocol).to_owned()).collect();
        for InProtocol { index, before, key: found, .. } in keys_in(&protocols) {
            shown[index] = format!("{before}{}", label(found == key));
        }
        return Some(shown.join(", "));
    }
    if !KEY_HEADERS.contains(&name) {
        return None;
    }
    let ours = value == key || SCHEMES.iter().any(|scheme| after(scheme, value) == Some(key));
    Some(label(ours).to_owned())
}

/// Path and query as the log shows them: key parameters replaced.
pub(crate) fn logged_path(key: &str, path: &str, query: Option<&str>) -> String {
    let Some(query) = query else {
        return path.to_owned();
    };
    let pairs: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if KEY_PARAMS.contains(&name) => {
                let same = percent_decode_str(value).decode_utf8_lossy() == key;
                format!("{name}={}", label(same))
            }
            _ => pair.to_owned(),
        })
        .collect();
    format!("{path}?{}", pairs.join("&"))
}

fn label(ours: bool) -> &'static str {
    if ours { "<key>" } else { "<other>" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_masked() {
        assert_eq!(masked("sk-abcdefghxyz"), "sk-ab****yz");
        assert_eq!(masked("short"), "*****");
        assert_eq!(logged_path("k", "/a", Some("x=1&key=k")), "/a?x=1&key=<key>");
        assert_eq!(logged_path("k", "/a", Some("key=z")), "/a?key=<other>");
        for (name, value, shown) in [
            ("authorization", "bEARER k", "<key>"),
            ("authorization", "Token k", "<key>"),
            ("api-key", "z", "<other>"),
            ("sec-websocket-protocol", "token, k", "token, <key>"),
            (
                "sec-websocket-protocol",
                "realtime,openai-insecure-api-key.k",
                "realtime, openai-insecure-api-key.<key>",
            ),
            ("sec-websocket-protocol", "bearer,z, x", "bearer, <other>, x"),
        ] {
            assert_eq!(logged_header("k", name, value).as_deref(), Some(shown), "{name}: {value}");
        }
        assert_eq!(logged_header("k", "accept", "k"), None);
    }
}
