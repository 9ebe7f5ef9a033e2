//! Request ids and random keys.

use std::cell::Cell;
use std::fmt;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// `req_` and twenty characters.
const REQUEST_ID_LEN: usize = 24;

/// Names one request in answers (`x-aiproxy-request-id`), in the access log and in the process
/// log: `req_` and twenty base-62 characters (119 bits), unique across instances.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; REQUEST_ID_LEN]);

impl RequestId {
    /// A fresh id. Ids are names, not secrets: each thread draws a random start from the
    /// operating system once and then walks a mixing sequence, without a system call per id.
    #[must_use]
    pub fn fresh() -> Self {
        thread_local! {
            static STATE: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
        }
        let (start, count) = STATE.get().unwrap_or_else(|| (random_u64(), random_u64()));
        STATE.set(Some((start, count.wrapping_add(1))));
        let mut text = *b"req_00000000000000000000";
        // The counter is mixed by a bijection, so one thread never repeats itself; its random
        // start keeps threads and instances apart.
        encode(mix(count), &mut text[4..14]);
        encode(mix(start ^ mix(count).rotate_left(17)), &mut text[14..24]);
        Self(text)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("req_invalid")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A number to choose by, not to be kept secret: each thread walks a mixing sequence from a random start.
#[must_use]
pub fn draw() -> u64 {
    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }
    let count = STATE.get().unwrap_or_else(random_u64);
    STATE.set(Some(count.wrapping_add(0x9e37_79b9_7f4a_7c15)));
    mix(count)
}

/// A fresh random key: the prefix and `length` base-62 characters from the operating system's
/// generator, without modulo bias (40 characters hold 238 bits).
///
/// # Panics
/// When the operating system has no randomness to give: nothing safe can be done then.
#[must_use]
pub fn random_key(prefix: &str, length: usize) -> String {
    let mut key = String::with_capacity(prefix.len() + length);
    key.push_str(prefix);
    let end = key.len() + length;
    let mut pool = [0u8; 64];
    while key.len() < end {
        fill(&mut pool);
        // 248 is the largest multiple of 62 in a byte.
        for byte in pool.iter().filter(|byte| **byte < 248) {
            if key.len() < end {
                key.push(BASE62[usize::from(byte % 62)] as char);
            }
        }
    }
    key
}

fn encode(mut value: u64, out: &mut [u8]) {
    for slot in out.iter_mut().rev() {
        *slot = BASE62[(value % 62) as usize];
        value /= 62;
    }
}

/// The finaliser of SplitMix64: a bijection on 64 bits.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn random_u64() -> u64 {
    let mut bytes = [0u8; 8];
    fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

#[expect(clippy::expect_used, reason = "without randomness no key and no id can be safe")]
pub(crate) fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system's random generator answers");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_unique_and_of_one_shape() {
        let ids: HashSet<_> = (0..10_000).map(|_| RequestId::fresh()).collect();
        assert_eq!(ids.len(), 10_000);
        for id in ids.iter().take(100) {
            let text = id.as_str();
            assert_eq!(text.len(), 24);
            assert!(text.starts_with("req_"));
            assert!(text[4..].bytes().all(|byte| byte.is_ascii_alphanumeric()));
        }
    }

    #[test]
    fn keys_have_the_length_asked_for() {
        let key = random_key("pk_", 40);
        assert_eq!(key.len(), 43);
        assert!(key.starts_with("pk_"));
        assert_ne!(key, random_key("pk_", 40));
    }
}
