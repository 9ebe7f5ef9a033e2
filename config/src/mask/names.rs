//! Which names of fields stand before secrets.

use std::sync::LazyLock;

use crate::schema::{self, Schema};
use crate::suggest;

/// What stands behind a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A secret, or something that looks like its name.
    Secret,
    /// A field of the schema that is none.
    Plain,
    /// Anything.
    Unknown,
}

struct Known {
    secret: Vec<&'static str>,
    plain: Vec<&'static str>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let mut known = Known { secret: Vec::new(), plain: Vec::new() };
    schema::each_field(&mut |name, field| {
        // Called `key` as well: the path of a file here, a key wherever else people write it.
        if field.kind() == Some("pem-file") {
            return;
        }
        let list =
            if field.is_secret() || field.holds_secrets() { &mut known.secret } else { &mut known.plain };
        list.push(name);
    });
    known
});

/// Parts of names that people give to secrets.
const WORDS: &[&str] = &[
    "key",
    "secret",
    "token",
    "passw",
    "pwd",
    "credential",
    "auth",
    "bearer",
    "cookie",
    "signature",
    "private",
];

/// Shortest name that counts as a slip: shorter ones are near to everything.
const SHORTEST: usize = 4;

/// What probably stands behind this name.
pub(crate) fn class(name: &str) -> Class {
    let name = name.to_lowercase().replace('-', "_");
    let known = &*KNOWN;
    if known.secret.contains(&name.as_str()) {
        return Class::Secret;
    }
    if known.plain.contains(&name.as_str()) {
        return Class::Plain;
    }
    if WORDS.iter().any(|word| name.contains(word)) {
        return Class::Secret;
    }
    if name.chars().count() < SHORTEST {
        return Class::Unknown;
    }
    let all = known.secret.iter().chain(&known.plain).copied();
    match suggest::nearest(&name, all) {
        Some(near) if known.secret.contains(&near) => Class::Secret,
        Some(_) => Class::Plain,
        None => Class::Unknown,
    }
}

/// The field that a misspelt name stands for, if that is clear and nothing secret is near.
pub(crate) fn typo(name: &str, shape: &'static Schema) -> Option<&'static Schema> {
    if class(name) == Class::Secret {
        return None;
    }
    suggest::nearest(name, shape.properties.names()).and_then(|near| shape.properties.get(near))
}
