//! HTTP/3 (RFC 9114) over QUIC, both ends of it.
//!
//! Owns: UDP sockets of QUIC endpoints and which thread's endpoint a datagram belongs to; HTTP/3's
//! frames, streams and error codes; QPACK (RFC 9204) without a dynamic table; the checks that a message
//! is well formed.
//! Never does: who may call, where to, with which key, and what it costs (`gateway`, `upstream`).
//!
//! The framing is our own: of h3 0.0.8, duplicate pseudo-headers overwrite each other, HEADERS and unknown
//! frames of any announced length are kept in memory, and a caller that leaves shows only when something
//! is written (docs/quic.md).
//!
//! - [`endpoint`]: sockets, handshakes, what is agreed on there
//! - `cid`, `routed`: datagrams find the thread that has their connection
//! - [`server`], [`client`]: the two sides of a connection
//! - `streams`: the streams that go one way
//! - [`body`], [`message`]: a message on its way in, and out
//! - `head`, `qpack`: field sections (`fuzzing`: for fuzz targets)
//! - `frames`, `varint`: how it is all cut
//! - `flood`: what a peer may cost
//! - [`code`]: error codes

pub mod body;
mod cid;
pub mod client;
pub mod code;
pub mod endpoint;
mod flood;
mod frames;
#[doc(hidden)]
pub mod fuzzing;
mod head;
pub mod message;
mod qpack;
mod routed;
pub mod server;
mod shared;
mod streams;
mod varint;

pub use body::{Body, BodyError};
pub use code::Code;
pub use head::HeadLimits;
