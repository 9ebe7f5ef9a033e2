//! Searching passing bytes for keys.

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem::Finder;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What URLs keep as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Secrets that must not appear somewhere; clones share them, and more may be added at any time.
#[derive(Debug, Clone, Default)]
pub struct Needles(Arc<RwLock<Vec<Needle>>>);

#[derive(Debug)]
struct Needle {
    name: String,
    finders: Vec<Finder<'static>>,
}

impl Needles {
    /// Adds a secret: as it is, percent-encoded, and inside of Base64 at any offset. `name` is
    /// what a report calls it: a report never holds the secret.
    pub fn add(&self, name: &str, secret: &str) {
        let mut needles = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if needles.iter().any(|needle| needle.name == name && needle.is(secret)) {
            return;
        }
        let mut forms = vec![secret.as_bytes().to_vec()];
        for set in [UNRESERVED, NON_ALPHANUMERIC] {
            forms.push(utf8_percent_encode(secret, set).to_string().into_bytes());
        }
        for shift in 0..3 {
            forms.push(inside_base64(&STANDARD_NO_PAD, secret, shift));
            forms.push(inside_base64(&URL_SAFE_NO_PAD, secret, shift));
        }
        forms.sort();
        forms.dedup();
        let finders = forms.iter().map(|form| Finder::new(form).into_owned()).collect();
        needles.push(Needle { name: name.to_owned(), finders });
    }

    /// The name of a secret that the bytes hold.
    #[must_use]
    pub fn search(&self, bytes: &[u8]) -> Option<String> {
        let needles = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found =
            needles.iter().find(|needle| needle.finders.iter().any(|form| form.find(bytes).is_some()));
        found.map(|needle| needle.name.clone())
    }

    /// A search over bytes that come in pieces.
    #[must_use]
    pub fn scanner(&self) -> Scanner {
        Scanner { needles: self.clone(), tail: Vec::new() }
    }

    fn longest(&self) -> usize {
        let needles = self.0.read().unwrap_or_else(PoisonError::into_inner);
        needles.iter().flat_map(|needle| &needle.finders).map(|form| form.needle().len()).max().unwrap_or(0)
    }
}

impl Needle {
    fn is(&self, secret: &str) -> bool {
        self.finders.iter().any(|form| form.needle() == secret.as_bytes())
    }
}

/// The characters that Base64 of any text has, where the secret stands `shift` bytes behind a
/// multiple of three.
fn inside_base64(engine: &impl Engine, secret: &str, shift: usize) -> Vec<u8> {
    let mut text = vec![0; shift];
    text.extend_from_slice(secret.as_bytes());
    // A last group of fewer than three bytes depends on what follows.
    text.truncate(text.len() / 3 * 3);
    // The first groups hold bytes before the secret.
    let skip = [0, 2, 3][shift];
    engine.encode(text).into_bytes().split_off(skip)
}

/// A search over bytes that come in pieces: a secret on the seam is found too.
#[derive(Debug)]
pub struct Scanner {
    needles: Needles,
    tail: Vec<u8>,
}

impl Scanner {
    /// Looks at the next bytes; the name of a secret that they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<String> {
        let keep = self.needles.longest().saturating_sub(1);
        let seam = bytes.len().min(keep);
        self.tail.extend_from_slice(&bytes[..seam]);
        let found = self.needles.search(&self.tail).or_else(|| self.needles.search(bytes));
        if bytes.len() >= keep {
            self.tail.clear();
            self.tail.extend_from_slice(&bytes[bytes.len() - keep..]);
        } else {
            let surplus = self.tail.len().saturating_sub(keep);
            self.tail.drain(..surplus);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    const SECRET: &str = "sk-secret/+=0123456789";

    fn needles() -> Needles {
        let needles = Needles::default();
        needles.add("other", "pk_another_key_42");
        needles.add("channel", SECRET);
        needles
    }

    #[test]
    fn a_secret_is_found_in_every_form() {
        for text in [
            format!("Bearer {SECRET}\r\n"),
            "?key=sk%2Dsecret%2F%2B%3D0123456789&a=b".to_owned(),
            "?key=sk-secret%2F%2B%3D0123456789&a=b".to_owned(),
            STANDARD.encode(format!("x{SECRET}y")),
            STANDARD.encode(format!("xx:{SECRET}")),
            STANDARD.encode(SECRET),
            URL_SAFE_NO_PAD.encode(format!("user:{SECRET}@host")),
        ] {
            assert_eq!(needles().search(text.as_bytes()).as_deref(), Some("channel"), "{text}");
        }
        assert_eq!(needles().search(b"sk-secret/+=012345678"), None);
    }

    #[test]
    fn a_secret_is_found_on_any_seam() {
        let text = format!("some bytes before {SECRET} and some after");
        for size in [1, 2, 3, 7, 16, 22, 40] {
            let mut scanner = needles().scanner();
            let found: Vec<_> =
                text.as_bytes().chunks(size).filter_map(|piece| scanner.feed(piece)).collect();
            assert_eq!(found.first().map(String::as_str), Some("channel"), "{size}");
        }
    }
}
