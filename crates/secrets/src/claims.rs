//! What a client secret says.

use aiproxy_core::KeyDigest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The kind of session that a secret begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Speech in, speech out.
    Realtime,
    /// Speech in, text out.
    Transcription,
    /// Speech in, speech of another language out.
    Translation,
}

impl Kind {
    /// As `session.type` says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Realtime => "realtime",
            Self::Transcription => "transcription",
            Self::Translation => "translation",
        }
    }

    /// The kind that `session.type` says.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Realtime, Self::Transcription, Self::Translation]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// All that a client secret says. Times are Unix time in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// Names the secret in records, and where it is counted as used. No secret itself.
    pub id: String,
    /// Id of the user for whom it stands.
    pub user: String,
    /// Digest of the Proxy-Key that minted it, with which it dies.
    pub parent: KeyDigest,
    /// Id of the only channel.
    pub channel: String,
    /// The only model.
    pub model: String,
    /// The only kind of session.
    pub kind: Kind,
    /// What the session begins with, as in `session.update`; none where the platform's own settings
    /// stand.
    pub settings: Option<Map<String, Value>>,
    /// Origins of pages that may use it, as browsers write them; empty is no limit.
    pub origins: Vec<String>,
    /// When it was minted.
    pub issued: i64,
    /// From when on it begins nothing any more.
    pub expires: i64,
    /// Whether it begins one session only.
    pub single_use: bool,
}

/// The claims inside of a token of version 1. A member that is not known is a restriction that would be
/// passed over: such a token does not open.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sealed {
    i: String,
    u: String,
    p: String,
    c: String,
    m: String,
    k: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    o: Vec<String>,
    a: i64,
    e: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    x: bool,
}

impl From<&Claims> for Sealed {
    fn from(claims: &Claims) -> Self {
        let claims = claims.clone();
        Self {
            i: claims.id,
            u: claims.user,
            p: claims.parent.hex(),
            c: claims.channel,
            m: claims.model,
            k: claims.kind,
            s: claims.settings,
            o: claims.origins,
            a: claims.issued,
            e: claims.expires,
            x: claims.single_use,
        }
    }
}

impl Sealed {
    pub(crate) fn into_claims(self) -> Option<Claims> {
        Some(Claims {
            id: self.i,
            user: self.u,
            parent: KeyDigest::from_hex(&self.p)?,
            channel: self.c,
            model: self.m,
            kind: self.k,
            settings: self.s,
            origins: self.o,
            issued: self.a,
            expires: self.e,
            single_use: self.x,
        })
    }
}
