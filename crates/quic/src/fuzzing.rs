//! Field sections for the fuzz targets, which read what a stranger may send. Nothing else needs this.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, request, response};

use crate::head::{self, HeadLimits};

/// A request's head, unless it is refused.
#[must_use]
pub fn request(block: Bytes, limits: HeadLimits) -> Option<request::Parts> {
    head::request(block, limits).ok()
}

/// An answer's head, unless it is refused.
#[must_use]
pub fn response(block: Bytes, limits: HeadLimits) -> Option<response::Parts> {
    head::response(block, limits).ok()
}

/// Trailers, unless they are refused.
#[must_use]
pub fn trailers(block: Bytes, limits: HeadLimits) -> Option<HeaderMap> {
    head::trailers(block, limits).ok()
}

/// The field section of a request.
#[must_use]
pub fn encode_request(head: &request::Parts) -> Bytes {
    let mut out = BytesMut::new();
    head::encode_request(&head.method, &head.uri, &head.headers, &mut out);
    out.freeze()
}

/// The field section of an answer.
#[must_use]
pub fn encode_response(head: &response::Parts) -> Bytes {
    let mut out = BytesMut::new();
    head::encode_response(head.status, &head.headers, &mut out);
    out.freeze()
}

/// The field section of trailers.
#[must_use]
pub fn encode_trailers(trailers: &HeaderMap) -> Bytes {
    let mut out = BytesMut::new();
    head::encode_trailers(trailers, &mut out);
    out.freeze()
}
