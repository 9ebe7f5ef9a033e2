//! The model named in a body, found while bytes pass.
//!
//! Scanners look at each byte once, keep a few hundred bytes at most and never hold a body back.
//! Where a limit on models applies they go on to the end of the body: a second `model` further
//! down would let a caller show us one name and the platform another.

mod json;
mod multipart;

pub use json::JsonScan;
pub use multipart::MultipartScan;

use crate::objects::Reference;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

/// The longest model name that is read, in raw bytes of the body.
const NAME_BYTES: usize = 256;

/// Whether a member or part of this name holds the model; ElevenLabs calls it `model_id`.
fn names_a_model(name: &str) -> bool {
    ["model", "model_id", "modelid"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// What a scanner knows so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding<'a> {
    /// More bytes may bring it.
    Pending,
    /// The model, named once so far.
    Model(&'a str),
    /// The body ended, or cannot name one.
    Absent,
    /// The body could mean different things to different readers; the reason, for people.
    Unreadable(&'static str),
}

/// A scanner for the body that these headers announce.
#[derive(Debug)]
pub enum Scan {
    /// `application/json` and relatives.
    Json(JsonScan),
    /// `multipart/form-data`.
    Multipart(MultipartScan),
    /// Of a type that is no JSON, and looked into all the same: what begins like JSON may be
    /// understood as JSON. Only for references; no model is read from it.
    Sniffed(JsonScan),
    /// No model can be read from it, and no reference.
    Opaque(Option<&'static str>),
}

impl Scan {
    /// Chooses by `Content-Type` and `Content-Encoding`.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let encoded = headers
            .get_all(CONTENT_ENCODING)
            .iter()
            .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity") && !value.is_empty());
        if encoded {
            return Self::Opaque(Some("the body is compressed"));
        }
        if headers.get_all(CONTENT_TYPE).iter().nth(1).is_some() {
            return Self::Opaque(Some("the body has two content types"));
        }
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("multipart/form-data") {
            return match multipart::boundary(kind) {
                Some(boundary) => Self::Multipart(MultipartScan::new(boundary)),
                None => Self::Opaque(Some("the multipart boundary is missing or malformed")),
            };
        }
        let subtype = essence.split_once('/').map_or("", |(_, subtype)| subtype);
        if subtype.eq_ignore_ascii_case("json") || subtype.to_ascii_lowercase().ends_with("+json") {
            return Self::Json(JsonScan::default());
        }
        Self::Opaque(None)
    }

    /// Looks at the next bytes of the body.
    pub fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Json(scan) => scan.feed(bytes),
            Self::Multipart(scan) => scan.feed(bytes),
            Self::Sniffed(scan) if scan.began() => scan.feed(bytes),
            Self::Sniffed(scan) => match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
                // The last begins a byte order mark.
                Some(b'{' | b'[' | 0xef) => scan.feed(bytes),
                Some(_) => *self = Self::Opaque(None),
                None => {}
            },
            Self::Opaque(_) => {}
        }
    }

    /// What is known so far.
    #[must_use]
    pub fn finding(&self) -> Finding<'_> {
        match self {
            Self::Json(scan) => scan.finding(),
            Self::Multipart(scan) => scan.finding(),
            Self::Opaque(None) | Self::Sniffed(_) => Finding::Absent,
            Self::Opaque(Some(reason)) => Finding::Unreadable(reason),
        }
    }

    /// Looks for references to objects as well; to be called before any bytes are fed.
    pub fn watch_references(&mut self) {
        match self {
            Self::Json(scan) | Self::Sniffed(scan) => scan.watch(),
            Self::Multipart(scan) => scan.watch(),
            Self::Opaque(None) => {
                let mut scan = JsonScan::default();
                scan.watch();
                *self = Self::Sniffed(scan);
            }
            Self::Opaque(Some(_)) => {}
        }
    }

    /// Whether more bytes may bring the model, or a reference that is looked for.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        let ids = match self {
            Self::Json(scan) | Self::Sniffed(scan) => scan.wants_ids(),
            Self::Multipart(scan) => scan.wants_ids(),
            Self::Opaque(_) => false,
        };
        ids || self.finding() == Finding::Pending
    }

    /// References found since the last call; none unless they are
    /// [looked for](Self::watch_references).
    ///
    /// # Errors
    /// Why there may be some that cannot be seen; the reason, for people.
    pub fn take_references(&mut self) -> Result<Vec<Reference>, &'static str> {
        let (watch, broken) = match self {
            Self::Json(scan) | Self::Sniffed(scan) => {
                let broken = scan.is_broken();
                (scan.watcher(), broken)
            }
            Self::Multipart(scan) => {
                let broken = scan.is_broken();
                (scan.watcher(), broken)
            }
            Self::Opaque(Some(reason)) => return Err(reason),
            Self::Opaque(None) => return Ok(Vec::new()),
        };
        let Some(watch) = watch else { return Ok(Vec::new()) };
        let found = watch.take().ok_or("the body refers to too many objects")?;
        if broken { Err("the body is malformed") } else { Ok(found) }
    }

    /// What the body's top-level `store` says, if references are looked for and it was seen.
    #[must_use]
    pub fn stored(&self) -> Option<bool> {
        match self {
            Self::Json(scan) | Self::Sniffed(scan) => scan.stored(),
            _ => None,
        }
    }
}
