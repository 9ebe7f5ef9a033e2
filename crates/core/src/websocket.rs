//! The arithmetic of WebSocket's opening handshake (RFC 6455, section 4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use sha1::{Digest as _, Sha1};

use crate::error::ErrorKind;

/// What a server appends to the key (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key`.
#[must_use]
pub fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    STANDARD.encode(hash.finalize())
}

/// A `Sec-WebSocket-Key`: sixteen random bytes. It is no secret; it shows that the answer is one to
/// this request.
///
/// # Panics
/// When the operating system has no randomness to give.
#[must_use]
pub fn fresh_key() -> String {
    let mut key = [0; 16];
    fill(&mut key);
    STANDARD.encode(key)
}

/// Bytes from the operating system, as keys and masks want them.
///
/// # Panics
/// When the operating system has no randomness to give.
pub fn fill(bytes: &mut [u8]) {
    crate::ids::fill(bytes);
}

/// Whether this is a key that a client may send: sixteen bytes in base64.
#[must_use]
pub fn is_key(key: &str) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// The close code of a refusal after the 101: 4000 and the status that would have been answered before
/// it. No SDK connects again on one of these.
#[must_use]
pub const fn refusal(kind: ErrorKind) -> u16 {
    4000 + kind.status().as_u16()
}

/// Whether a header that is a list has this word in it, however its letters are written.
#[must_use]
pub fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_the_application_s_codes() {
        assert_eq!((refusal(ErrorKind::MissingKey), refusal(ErrorKind::ModelNotAllowed)), (4401, 4403));
        assert!(ErrorKind::ALL.iter().all(|kind| (4400..4600).contains(&refusal(*kind))));
    }

    #[test]
    fn the_example_of_the_standard_holds() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(is_key("dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(!is_key("short") && !is_key(""));
        assert!(is_key(&fresh_key()));
        assert_ne!(fresh_key(), fresh_key());
    }
}
