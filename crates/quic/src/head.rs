//! stub
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Uri, request, response};
#[derive(Debug)]
pub(crate) enum HeadError {
    TooLarge,
    Malformed(&'static str),
    Qpack,
}
/// Bounds
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// b
    pub bytes: usize,
    /// f
    pub fields: usize,
}
pub(crate) fn request(_: Bytes, _: HeadLimits) -> Result<request::Parts, HeadError> {
    Err(HeadError::Qpack)
}
pub(crate) fn response(_: Bytes, _: HeadLimits) -> Result<response::Parts, HeadError> {
    Err(HeadError::TooLarge)
}
pub(crate) fn trailers(_: Bytes, _: HeadLimits) -> Result<HeaderMap, HeadError> {
    Err(HeadError::Malformed(""))
}
pub(crate) fn encode_request(_: &Method, _: &Uri, _: &HeaderMap, _: &mut BytesMut) {}
pub(crate) fn encode_response(_: StatusCode, _: &HeaderMap, _: &mut BytesMut) {}
pub(crate) fn encode_trailers(_: &HeaderMap, _: &mut BytesMut) {}
