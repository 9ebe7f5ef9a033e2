//! Passwords: what they have to be, and their Argon2id hashes (19 MiB, two passes, one lane).

use std::sync::OnceLock;

use aiproxy_core::Secret;
use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use http::StatusCode;
use serde::{Deserialize, Deserializer};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::api::error::{ApiError, ApiResult};

/// Characters of a password.
pub(crate) const LENGTH: std::ops::RangeInclusive<usize> = 12..=256;
/// Hashes computed at one time: each takes a core and 19 MiB.
const AT_ONCE: usize = 2;

/// A password in a body: it cannot print.
#[derive(Debug, Clone)]
pub(crate) struct Password(pub(crate) Secret);

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

/// Hashes and verifies away from the threads that serve requests.
#[derive(Debug)]
pub(crate) struct Hasher {
    places: Semaphore,
}

impl Default for Hasher {
    fn default() -> Self {
        Self { places: Semaphore::new(AT_ONCE) }
    }
}

impl Hasher {
    /// The hash to store, a PHC string.
    pub(crate) async fn hash(&self, password: &Secret) -> ApiResult<Secret> {
        let _place = self.places.acquire().await;
        let password = password.clone();
        spawn_blocking(move || hash(&password)).await.ok().flatten().ok_or_else(broken)
    }

    /// Whether the password is the one of the hash. Without a hash it costs the same and is not.
    pub(crate) async fn verify(&self, password: &Secret, hash: Option<Secret>) -> ApiResult<bool> {
        let _place = self.places.acquire().await;
        let password = password.clone();
        spawn_blocking(move || {
            let known = hash.is_some();
            let hash = hash.as_ref().or_else(|| nobodys())?;
            let right =
                Argon2::default().verify_password(password.expose().as_bytes(), hash.expose()).is_ok();
            Some(right && known)
        })
        .await
        .ok()
        .flatten()
        .ok_or_else(broken)
    }
}

/// The hash to store, a PHC string; computed here and now. None without memory or randomness.
pub(crate) fn hash(password: &Secret) -> Option<Secret> {
    let hash = Argon2::default().hash_password(password.expose().as_bytes()).ok()?;
    Some(Secret::new(hash.to_string()))
}

/// The hash that unknown names are verified against.
fn nobodys() -> Option<&'static Secret> {
    static HASH: OnceLock<Option<Secret>> = OnceLock::new();
    HASH.get_or_init(|| hash(&Secret::new(aiproxy_core::ids::random_key("", 24)))).as_ref()
}

fn broken() -> ApiError {
    tracing::error!("a password cannot be hashed");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "The password cannot be checked at the moment.")
        .retry_after(2)
}

/// Whether a new password will do for this name.
///
/// # Errors
/// Why not; holds nothing of the password.
pub(crate) fn check(password: &Secret, name: &str) -> Result<(), &'static str> {
    let text = password.expose();
    if !LENGTH.contains(&text.chars().count()) {
        return Err("a password has 12 to 256 characters");
    }
    let lower = text.to_lowercase();
    if lower.contains(&name.to_lowercase()) && text.chars().count() < name.chars().count() + *LENGTH.start() {
        return Err("a password is not the name, nor the name with a few characters more");
    }
    let mut distinct: Vec<char> = text.chars().collect();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < 5 {
        return Err("a password has at least five different characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.into())
    }

    #[test]
    fn short_long_and_obvious_passwords_are_refused() {
        for wrong in
            ["", "elevenchars", "administrator", "ADMINISTRATOR1", "aaaaaaaaaaaaaaaa", "abababababababab"]
        {
            assert!(check(&secret(wrong), "administrator").is_err(), "{wrong}");
        }
        assert!(check(&secret(&"correct horse ".repeat(20)), "admin").is_err());
        for right in ["correct horse battery", "一二三四五六七八九十甲乙", "tr0ub4dor&3xy"] {
            assert_eq!(check(&secret(right), "administrator"), Ok(()), "{right}");
        }
    }

    #[tokio::test]
    async fn the_right_password_verifies_and_nobody_has_one() {
        let hasher = Hasher::default();
        let right = secret("correct horse battery");
        let hash = hasher.hash(&right).await.unwrap();
        assert!(hash.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.expose());
        assert!(hasher.verify(&right, Some(hash.clone())).await.unwrap());
        assert!(!hasher.verify(&secret("correct horse batterz"), Some(hash)).await.unwrap());
        assert!(!hasher.verify(&right, None).await.unwrap());
        assert!(!hasher.verify(&right, Some(secret("not a hash"))).await.unwrap());
    }
}
