//! Header names and values as people write them.

use aiproxy_platform::placement::CALLER_HEADERS;
use http::{HeaderName, HeaderValue};

use crate::complaint::{Complaint, shown};

/// Headers that say where a message goes or how it is framed, which is not the configuration's
/// to say.
const OURS: &[&str] = &[
    "host",
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A header name.
pub(crate) fn name(text: &str) -> Result<HeaderName, Complaint> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        Complaint::new(
            format!("{} is not a header name", shown(text)),
            "use letters, digits and `-`, without a colon or space",
        )
    })?;
    if OURS.contains(&name.as_str())
        || name.as_str().starts_with("proxy-")
        || name.as_str().starts_with("sec-websocket-")
    {
        return Err(Complaint::new(format!("the header `{name}` is AIProxy's own business"), "remove it"));
    }
    Ok(name)
}

/// A header value. The message does not show it.
pub(crate) fn value(text: &str) -> Result<HeaderValue, Complaint> {
    let clean = !text.is_empty()
        && text.trim() == text
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    HeaderValue::from_str(text).ok().filter(|_| clean).ok_or_else(|| {
        Complaint::bare("a header value has visible ASCII characters, and spaces only between them")
    })
}

/// Whether callers may send their Proxy-Key in this header.
pub(crate) fn carries_proxy_key(name: &HeaderName) -> bool {
    CALLER_HEADERS.contains(&name.as_str())
}

/// A word of the characters that HTTP calls a token.
pub(crate) fn token(text: &str) -> Result<(), Complaint> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.bytes().all(fits) {
        return Ok(());
    }
    Err(Complaint::new(
        format!("{} is not a single word of ASCII characters", shown(text)),
        "write it like `Token`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values() {
        assert!(name("X-Test").is_ok() && name("openai-project").is_ok());
        for text in
            ["", "a b", "a:", "标题", "Host", "content-length", "Proxy-Authorization", "sec-websocket-key"]
        {
            assert!(name(text).is_err(), "{text}");
        }
        assert!(value("a b").is_ok());
        for text in ["", " a", "a\r\nb", "值", "a\0"] {
            assert!(value(text).is_err(), "{text:?}");
        }
        assert!(token("Token").is_ok());
        assert!(token("a b").is_err() && token("").is_err());
    }
}
