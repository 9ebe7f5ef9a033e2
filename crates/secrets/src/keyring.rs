//! Sealing and opening.
//!
//! A token is `ek_` and, in base64url without padding:
//!
//! ```text
//! version (1) | id of the key (8) | nonce (12) | sealed claims | tag (16)
//! ```
//!
//! The seal is AES-256-GCM-SIV, which forgives a nonce that comes twice; version and id of the key are
//! under the tag too. The key is derived from the text that the operator has (HKDF-SHA256), as its id
//! is: the id tells nothing about the key.

use std::fmt;

use aiproxy_core::{Secret, websocket};
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::claims::{Claims, Sealed};

/// What client secrets begin with: browsers' SDKs accept no other keys.
pub const PREFIX: &str = "ek_";
/// A longer text is none of ours.
pub const LONGEST_TOKEN: usize = 48 * 1024;
/// Characters of a text that a key is derived from, at least.
pub const SHORTEST_KEY: usize = 32;

const VERSION: u8 = 1;
const ID: usize = 8;
/// Before the nonce.
const HEAD: usize = 1 + ID;

/// Why a token does not open. It says nothing about the token's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is no token: another beginning, other characters, too short or too long.
    #[error("this is no client secret")]
    Malformed,
    /// Of a version that this program does not know.
    #[error("the client secret is of another version")]
    Version,
    /// No key here sealed it.
    #[error("the client secret was sealed with another key")]
    UnknownKey,
    /// It was changed.
    #[error("the client secret was changed")]
    Tampered,
}

/// The keys of an installation: the first seals, all open.
pub struct Keyring {
    keys: Vec<Key>,
}

struct Key {
    id: [u8; ID],
    seal: LessSafeKey,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.keys.len())
    }
}

impl Keyring {
    /// Keys from these texts, in this order. None are none: nothing opens then, and nothing can be
    /// sealed.
    #[must_use]
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a Secret>) -> Self {
        Self { keys: texts.into_iter().filter_map(|text| Key::derive(text).ok()).collect() }
    }

    /// The token that says this; `None` where there is no key.
    #[must_use]
    pub fn seal(&self, claims: &Claims) -> Option<Secret> {
        let key = self.keys.first()?;
        let mut token = vec![VERSION];
        token.extend_from_slice(&key.id);
        let mut nonce = [0; NONCE_LEN];
        websocket::fill(&mut nonce);
        token.extend_from_slice(&nonce);
        let mut sealed = serde_json::to_vec(&Sealed::from(claims)).ok()?;
        let aad = Aad::from(&token[..HEAD]);
        key.seal.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        token.extend_from_slice(&sealed);
        let mut text = String::with_capacity(PREFIX.len() + token.len().div_ceil(3) * 4);
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(token, &mut text);
        Some(Secret::new(text))
    }

    /// What a token says, if one of the keys sealed it. Whether its time is over is not looked at.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, token: &str) -> Result<Claims, OpenError> {
        let text = token.strip_prefix(PREFIX).filter(|text| text.len() <= LONGEST_TOKEN);
        let mut bytes =
            URL_SAFE_NO_PAD.decode(text.ok_or(OpenError::Malformed)?).map_err(|_| OpenError::Malformed)?;
        if *bytes.first().ok_or(OpenError::Malformed)? != VERSION {
            return Err(OpenError::Version);
        }
        let (head, rest) = bytes.split_at_mut_checked(HEAD).ok_or(OpenError::Malformed)?;
        let (nonce, sealed) = rest.split_first_chunk_mut::<NONCE_LEN>().ok_or(OpenError::Malformed)?;
        let key = self.keys.iter().find(|key| key.id == head[1..]).ok_or(OpenError::UnknownKey)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain =
            key.seal.open_in_place(nonce, Aad::from(&*head), sealed).map_err(|_| OpenError::Tampered)?;
        // What we have sealed reads; what a later program has sealed may not.
        let sealed: Sealed = serde_json::from_slice(plain).map_err(|_| OpenError::Version)?;
        sealed.into_claims().ok_or(OpenError::Version)
    }
}

/// So many bytes.
struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

impl Key {
    fn derive(text: &Secret) -> Result<Self, Unspecified> {
        let base = Salt::new(HKDF_SHA256, b"aiproxy client secrets").extract(text.expose().as_bytes());
        let mut id = [0; ID];
        base.expand(&[b"id"], Bytes(ID))?.fill(&mut id)?;
        let seal = UnboundKey::from(base.expand(&[b"seal"], &AES_256_GCM_SIV)?);
        Ok(Self { id, seal: LessSafeKey::new(seal) })
    }
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;
