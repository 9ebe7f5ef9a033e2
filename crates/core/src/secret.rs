//! Keys as types that cannot print.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// A key or password in memory. It has no `Display` and no `Serialize`, and its `Debug` shows
/// nothing of it, so that it cannot reach a log by accident. The memory is wiped when it drops.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Takes ownership of the text. Surrounding white space is kept: trimming is the reader's job.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Arc::new(Zeroizing::new(text)))
    }

    /// The text itself. Call it only where the key leaves for the one place it belongs to.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the secret is the empty string.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// SHA-256 of a Proxy-Key: what the registry looks up, so that no comparison ever runs over the
/// key itself and a dump of the table gives no key away.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// Digest of the key's bytes, exactly as presented.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Parses 64 hexadecimal digits, in any case.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        let mut out = [0u8; 32];
        for (slot, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            let high = (pair[0] as char).to_digit(16)?;
            let low = (pair[1] as char).to_digit(16)?;
            *slot = u8::try_from(high * 16 + low).ok()?;
        }
        Some(Self(out))
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// All 64 hexadecimal digits, in lower case.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// The first eight hexadecimal digits: enough to tell keys apart in a log.
    #[must_use]
    pub fn short(&self) -> String {
        hex(&self.0[..4])
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDigest({}…)", self.short())
    }
}

/// How a Proxy-Key is named where people see it: the beginning of the key (at most eight
/// characters and never more than a quarter of it) and the beginning of its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTag {
    /// Visible beginning of the key; empty where only the digest is known.
    pub prefix: Box<str>,
    /// First eight hexadecimal digits of the SHA-256.
    pub digest: Box<str>,
}

impl KeyTag {
    /// The tag of a key whose text is known.
    #[must_use]
    pub fn of(key: &str) -> Self {
        let shown = (key.chars().count() / 4).min(8);
        Self {
            prefix: key.chars().take(shown).collect::<String>().into(),
            digest: KeyDigest::of(key.as_bytes()).short().into(),
        }
    }

    /// The tag of a key of which only the digest was configured.
    #[must_use]
    pub fn of_digest(digest: &KeyDigest) -> Self {
        Self { prefix: "".into(), digest: digest.short().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_a_secret() {
        let secret = Secret::new("sk-very-secret".into());
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        assert_eq!(secret.expose(), "sk-very-secret");
    }

    #[test]
    fn digest_round_trips_through_hex() {
        let digest = KeyDigest::of(b"abc");
        let hex = "BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyDigest::from_hex(hex), Some(digest));
        assert_eq!(digest.short(), "ba7816bf");
        assert_eq!(digest.hex(), hex.to_lowercase());
        assert_eq!(KeyDigest::from_hex("ba78"), None);
        assert_eq!(KeyDigest::from_hex(&"zz".repeat(32)), None);
    }

    #[test]
    fn a_tag_never_shows_more_than_a_quarter() {
        assert_eq!(&*KeyTag::of("pk_user1_xxx").prefix, "pk_");
        assert_eq!(&*KeyTag::of("abc").prefix, "");
        assert_eq!(&*KeyTag::of(&"pk_0123456789".repeat(4)).prefix, "pk_01234");
        assert_eq!(&*KeyTag::of("钥匙钥匙钥匙钥匙").prefix, "钥匙");
    }
}
