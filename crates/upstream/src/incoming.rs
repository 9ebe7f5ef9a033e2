//! A message's body on its way in, whichever stack it comes over: a caller's request, a platform's
//! answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// A body: frames as they come, uncopied.
#[derive(Debug)]
pub enum Incoming {
    /// Over HTTP/1.1 or HTTP/2.
    Hyper(hyper::body::Incoming),
    /// Over HTTP/3. It never ends early without an error.
    Quic(aiproxy_quic::Body),
}

impl From<hyper::body::Incoming> for Incoming {
    fn from(body: hyper::body::Incoming) -> Self {
        Self::Hyper(body)
    }
}

impl From<aiproxy_quic::Body> for Incoming {
    fn from(body: aiproxy_quic::Body) -> Self {
        Self::Quic(body)
    }
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    /// Over HTTP/1.1 or HTTP/2.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    /// Over HTTP/3.
    #[error(transparent)]
    Quic(#[from] aiproxy_quic::BodyError),
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = IncomingError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        match self.get_mut() {
            Self::Hyper(body) => Pin::new(body).poll_frame(cx).map_err(IncomingError::Hyper),
            Self::Quic(body) => Pin::new(body).poll_frame(cx).map_err(IncomingError::Quic),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper(body) => body.is_end_stream(),
            Self::Quic(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Hyper(body) => body.size_hint(),
            Self::Quic(body) => body.size_hint(),
        }
    }
}
