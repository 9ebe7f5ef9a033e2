//! What can go wrong towards a platform.

use std::io;
use std::sync::Arc;

use crate::request_body::BodyFailure;

/// Why no connection came to be. Nothing was sent: another try is safe. Several requests may have
/// waited for the same one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The host has no address.
    #[error("the host name cannot be resolved")]
    Resolve(#[source] Arc<io::Error>),
    /// No address of the host took the connection.
    #[error("the connection was not accepted")]
    Tcp(#[source] Arc<io::Error>),
    /// TLS failed: usually the certificate.
    #[error("TLS failed")]
    Tls(#[source] Arc<io::Error>),
    /// The channel's trust roots cannot be used.
    #[error("the trust roots cannot be used: {0}")]
    Roots(String),
    /// The channel's own certificate cannot be used.
    #[error("the client certificate cannot be used: {0}")]
    Identity(String),
    /// The platform speaks none of the channel's `http_versions`.
    #[error("the platform does not offer HTTP/2, and the channel's `http_versions` allow nothing else")]
    Version,
    /// The HTTP/2 preface failed.
    #[error("the HTTP/2 connection could not be set up")]
    Preface(#[source] Arc<hyper::Error>),
    /// No connection over HTTP/3, and the channel's `http_versions` allow nothing else.
    #[error("no connection over HTTP/3")]
    Quic(#[source] aiproxy_quic::endpoint::DialError),
    /// No connection to the egress proxy.
    #[error("the egress proxy cannot be reached")]
    ProxyUnreachable(#[source] Box<ConnectError>),
    /// 407, or its likeness in SOCKS.
    #[error("the egress proxy refused our credentials")]
    ProxyCredentials,
    /// The proxy did not connect to the platform.
    #[error("the egress proxy did not connect to the platform: {0}")]
    ProxyRefused(String),
    /// The proxy broke off, or said something else than its protocol has.
    #[error("the egress proxy's answer is not understood: {0}")]
    ProxyProtocol(&'static str),
    /// All of it took longer than `timeouts.connect`.
    #[error("connecting took too long")]
    Timeout,
}

impl ConnectError {
    /// Whether this process ran out of something (file descriptors, ports, memory): that says
    /// nothing about the platform.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        let error = match self {
            Self::Tcp(error) | Self::Resolve(error) => error,
            Self::ProxyUnreachable(error) => return error.is_ours(),
            _ => return false,
        };
        // EMFILE, ENFILE, EADDRNOTAVAIL, ENOBUFS, ENOMEM: std has no names for most of them.
        matches!(error.raw_os_error(), Some(24 | 23 | 99 | 105 | 12))
    }

    pub(crate) fn tcp(error: io::Error) -> Self {
        Self::Tcp(Arc::new(error))
    }

    pub(crate) fn tls(error: io::Error) -> Self {
        Self::Tls(Arc::new(error))
    }
}

/// What the stack that sent a request says of its failure.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Over HTTP/1.1 or HTTP/2.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    /// Over HTTP/3.
    #[error(transparent)]
    Quic(#[from] aiproxy_quic::BodyError),
}

/// Why a request got no answer head.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection came to be.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The platform said that it has done nothing about the request (HTTP/2's `REFUSED_STREAM`, or a
    /// `GOAWAY` that leaves it out), and no further connection took it, or its body had begun and is
    /// not kept.
    #[error("the platform did not take the request")]
    NotProcessed(#[source] Failure),
    /// The connection broke before the answer began; the platform may have acted on the request.
    #[error("the connection broke before the answer began")]
    Broken(#[source] Failure),
    /// What came back is not HTTP.
    #[error("the answer is not understood")]
    Protocol(#[source] Failure),
    /// A 101 that does not answer the handshake that was sent.
    #[error("the platform's 101 does not open the WebSocket that was asked for")]
    NotASocket,
    /// No answer within `timeouts.first_byte`, or the platform stopped reading the body.
    #[error("no answer in time")]
    Timeout,
    /// The caller stopped sending its body for longer than `timeouts.idle`.
    #[error("the caller stopped sending")]
    CallerStalled,
    /// The caller's body failed.
    #[error("the request body failed: {0:?}")]
    Body(BodyFailure),
}

/// Whether the platform has provably done nothing about a request that failed so.
///
/// A remote `GOAWAY` reaches only the streams behind the last one that the platform answers for;
/// the others go on, or end with the connection's own error.
pub(crate) fn is_unprocessed(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// Whether the connection ended under the request.
pub(crate) fn is_broken(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
        || source.is_some_and(|source| {
            source.is::<io::Error>() || source.downcast_ref::<h2::Error>().is_some_and(h2::Error::is_io)
        })
}

/// Whether what came is not the protocol that was spoken.
pub(crate) fn is_nonsense(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_parse() || source.is_some_and(h2::Error::is_library)
}
