//! Proxy-Keys, by their digests.

use std::sync::Arc;

use aiproxy_core::{KeyDigest, KeyTag};

use super::user::{Found, Known, Limits, dangling, limits_of};
use super::{Builder, items};
use crate::complaint::Complaint;
use crate::model::{KeyUse, Status};
use crate::tree::Trail;
use crate::{moment, raw};

/// Shortest Proxy-Key, and longest: a head has to hold it.
const SHORTEST: usize = 8;
const LONGEST: usize = 1024;
/// Longest visible beginning of a key.
const LONGEST_PREFIX: usize = 16;

/// One key of a user.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) digest: KeyDigest,
    pub(crate) tag: Arc<KeyTag>,
    pub(crate) status: Status,
    /// Revoked for good, not only switched off.
    pub(crate) revoked: bool,
    pub(crate) limits: Limits,
    /// The end of the grace after another has taken its place.
    pub(crate) retires_at: Option<i64>,
    /// The channels, among the user's, that it may use; `None` is all.
    pub(crate) channels: Option<Vec<String>>,
    pub(crate) used: KeyUse,
}

impl Key {
    /// A key without limits of its own.
    pub(crate) fn of(digest: KeyDigest, tag: KeyTag) -> Self {
        Self {
            digest,
            tag: Arc::new(tag),
            status: Status::Active,
            revoked: false,
            limits: Limits::default(),
            retires_at: None,
            channels: None,
            used: KeyUse::default(),
        }
    }

    /// Whether it is the one key that a user may have: neither revoked nor about to retire.
    pub(crate) fn is_in_use(&self) -> bool {
        !self.revoked && self.retires_at.is_none()
    }

    /// Whether it is limited to channels of which this is one.
    pub(crate) fn names_channel(&self, id: &str) -> bool {
        self.channels.as_ref().is_some_and(|list| list.iter().any(|have| have == id))
    }
}

impl Builder<'_> {
    pub(crate) fn key(&mut self, trail: &Trail, raw: &raw::Key, known: &impl Known) -> Option<Key> {
        let limits = Limits::of(limits_of!(raw));
        self.dates(trail, &limits, None);
        for (index, name) in items(raw.channels.as_ref()) {
            if matches!(known.channel(name), Found::Nothing) {
                let complaint = dangling("channel", "channels", name, known.channel_ids());
                self.error(&trail.key("channels").index(index), complaint);
            }
        }
        let prefix = raw.prefix.as_deref().unwrap_or_default();
        if prefix.chars().count() > LONGEST_PREFIX {
            let message = format!("the visible beginning is longer than {LONGEST_PREFIX} characters");
            self.error(&trail.key("prefix"), Complaint::new(message, "write less of the key, or nothing"));
        }
        let Some(text) = raw.sha256.as_deref() else {
            // A value that was taken out was named already.
            if !self.has(&trail.key("sha256")) {
                let complaint = Complaint::new("`sha256` is missing", "write the SHA-256 of the key");
                self.error(trail, complaint);
            }
            return None;
        };
        let digest = self.take(&trail.key("sha256"), digest(text, "sha256"))?;
        let tag = KeyTag { prefix: prefix.into(), ..KeyTag::of_digest(&digest) };
        let status = raw.status.unwrap_or(raw::KeyStatus::Active);
        Some(Key {
            digest,
            tag: Arc::new(tag),
            status: if status == raw::KeyStatus::Active { Status::Active } else { Status::Disabled },
            revoked: status == raw::KeyStatus::Revoked,
            limits,
            retires_at: raw.retires_at.as_deref().and_then(|text| moment::parse(text).ok()),
            channels: raw.channels.as_ref().map(|list| list.iter().flatten().cloned().collect()),
            used: KeyUse::default(),
        })
    }
}

/// A digest as it is written.
pub(super) fn digest(text: &str, field: &str) -> Result<KeyDigest, Complaint> {
    KeyDigest::from_hex(text).ok_or_else(|| {
        Complaint::new(
            format!("`{field}` is not a SHA-256"),
            "write 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints them",
        )
    })
}

/// Whether a text can be a Proxy-Key.
pub(super) fn check(key: &str) -> Result<(), Complaint> {
    check_characters(key)?;
    if key.len() < SHORTEST {
        return Err(Complaint::new(
            format!("the Proxy-Key is shorter than {SHORTEST} characters"),
            "use a long random key: `openssl rand -hex 24` makes one",
        ));
    }
    if key.len() > LONGEST {
        return Err(Complaint::bare(format!("the Proxy-Key is longer than {LONGEST} characters")));
    }
    Ok(())
}

/// Keys travel in headers, queries and subprotocols, where white space and characters outside of
/// ASCII do not.
pub(super) fn check_characters(key: &str) -> Result<(), Complaint> {
    let Some((at, c)) = key.chars().enumerate().find(|(_, c)| !c.is_ascii_graphic()) else { return Ok(()) };
    let what = match c {
        ' ' => "a space",
        c if c.is_whitespace() => "a line break or other white space",
        c if c.is_control() => "a control character",
        _ => "a character outside of ASCII",
    };
    Err(Complaint::new(
        format!("the key has {what} at position {}, which cannot travel in a header", at + 1),
        "use letters, digits and punctuation of ASCII",
    ))
}
