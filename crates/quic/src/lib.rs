//! HTTP/3 (RFC 9114) over QUIC, both ends of it.
//!
//! Owns: UDP sockets of QUIC endpoints and which thread's endpoint a datagram belongs to; HTTP/3's
//! frames, streams and error codes; QPACK (RFC 9204) without a dynamic table; the checks that a message
//! is well formed.
//! Never does: who may call, where to, with which key, and what it costs (`gateway`, `upstream`).
//!
//! - [`body`]: a message's body on its way in

pub mod body;

pub use body::{Body, BodyError};
