//! Connections to the platforms, and the key swap.
//!
//! Owns: resolving, connecting and TLS towards a channel; one pool of HTTP/1.1 connections per
//! thread and channel; taking the Proxy-Key out of a request and putting the channel's key in;
//! cleaning answers of what would leak the account.
//! Never does: choosing a channel, answering a caller, sharing a connection between threads.
//!
//! - [`pool`]: per-thread pools; send a request, get an answer and a lease
//! - [`connect`]: addresses, TCP, TLS
//! - [`tls`]: trust roots
//! - [`pace`]: whether a body comes fast enough
//! - [`request_body`]: the caller's body on its way up, counted, bounded and watched
//! - [`swap`]: the request's head, rewritten for the channel
//! - [`answer`]: the answer's head, cleaned for the caller
//! - [`error`]: what can go wrong, and whether sending again is safe

pub mod answer;
pub mod connect;
pub mod error;
pub mod pace;
pub mod pool;
pub mod request_body;
pub mod swap;
pub mod tls;

pub use error::{ConnectError, SendError};
pub use pace::Pace;
pub use pool::{Answer, Lease, Pool, Slot};
pub use request_body::{BodyFailure, BodyWatch, Inspect, Replay, ReplayBudget, RequestBody, Source};
