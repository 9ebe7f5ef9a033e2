//! Where a key may sit in a request, whether it is the sandbox's, and how it is masked.

use crate::shape::{Fault, Shape};
use http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;

/// Headers whose value is (or may be) a key: the log shows `<key>` or `<other>` for them.
const KEY_HEADERS: [&str; 6] =
    ["authorization", "x-api-key", "api-key", "x-goog-api-key", "xi-api-key", "proxy-authorization"];
/// The same for query parameters.
const KEY_PARAMS: [&str; 3] = ["key", "api-key", "access_token"];

/// The key of the request, if it is the sandbox's own; otherwise the platform's refusal.
pub(crate) fn check(key: &str, shape: Shape, headers: &HeaderMap, query: &str) -> Result<(), Fault> {
    let mut offered = Vec::new();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    offered.extend(header("authorization").and_then(bearer));
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
    if offered.contains(&key) {
        return Ok(());
    }
    Err(refusal(shape, offered.first().copied()))
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
        (Shape::Anthropic, Some(_)) => "invalid x-api-key".to_owned(),
        (Shape::Anthropic, None) => "x-api-key header is required".to_owned(),
    };
    Fault::new(StatusCode::UNAUTHORIZED, message)
}

/// The credential of `Bearer ...`; the scheme in any case.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, key) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
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

/// A header's value as the log shows it.
pub(crate) fn logged_header(key: &str, name: &str, value: &str) -> Option<&'static str> {
    if !KEY_HEADERS.contains(&name) {
        return None;
    }
    Some(label(value == key || bearer(value) == Some(key)))
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
        assert_eq!(logged_header("k", "authorization", "bEARER k"), Some("<key>"));
        assert_eq!(logged_header("k", "api-key", "z"), Some("<other>"));
        assert_eq!(logged_header("k", "accept", "k"), None);
    }
}
