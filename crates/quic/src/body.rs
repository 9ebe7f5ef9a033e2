//! A message's body on its way in.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// Why a body ended before its end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BodyError {
    /// The other side gave it up, with this error code (RFC 9114, section 8.1).
    #[error("the stream was reset with error {0:#x}")]
    Reset(u64),
    /// It is not what HTTP/3 allows.
    #[error("the message is malformed: {0}")]
    Malformed(&'static str),
    /// The connection ended.
    #[error("the connection ended: {0}")]
    Closed(quinn::ConnectionError),
}

/// A message's body: frames as they come, uncopied.
#[derive(Debug)]
pub struct Body {
    _nothing: Infallible,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self._nothing {}
    }

    fn is_end_stream(&self) -> bool {
        match self._nothing {}
    }

    fn size_hint(&self) -> SizeHint {
        match self._nothing {}
    }
}
