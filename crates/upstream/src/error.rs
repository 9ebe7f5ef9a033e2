//! What can go wrong towards a platform.

use std::io;

use crate::request_body::BodyFailure;

/// Why no connection came to be. Nothing was sent: another try is safe.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host has no address.
    #[error("the host name cannot be resolved")]
    Resolve(#[source] io::Error),
    /// No address of the host took the connection.
    #[error("the connection was not accepted")]
    Tcp(#[source] io::Error),
    /// TLS failed: usually the certificate.
    #[error("TLS failed")]
    Tls(#[source] io::Error),
    /// The channel's trust roots cannot be used.
    #[error("the trust roots cannot be used: {0}")]
    Roots(String),
    /// All of it took longer than `timeouts.connect`.
    #[error("connecting took too long")]
    Timeout,
}

impl ConnectError {
    /// Whether this process ran out of something (file descriptors, ports, memory): that says
    /// nothing about the platform.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        // EMFILE, ENFILE, EADDRNOTAVAIL, ENOBUFS, ENOMEM: std has no names for most of them.
        let (Self::Tcp(error) | Self::Resolve(error)) = self else { return false };
        matches!(error.raw_os_error(), Some(24 | 23 | 99 | 105 | 12))
    }
}

/// Why a request got no answer head.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection came to be.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke before the answer began; the platform may have acted on the request.
    #[error("the connection broke before the answer began")]
    Broken(#[source] hyper::Error),
    /// What came back is not HTTP/1.1.
    #[error("the answer is not understood")]
    Protocol(#[source] hyper::Error),
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
