//! Connections to the platforms, and the key swap.
//!
//! Owns: resolving, egress proxies, connecting and TLS towards a channel; the HTTP/1.1, HTTP/2
//! and HTTP/3 connections of each thread and channel; taking the Proxy-Key out of a request and putting the
//! channel's key in; cleaning answers of what would leak the account.
//! Never does: choosing a channel, answering a caller, sharing a connection between threads.
//!
//! - [`pool`]: the channels of one thread; [`slot`]: send a request, get an answer and a lease
//! - [`socket`]: a WebSocket's opening handshake
//! - `supply`: which connection a request gets, which are opened and let go
//! - [`multiplex`]: an HTTP/2 connection that requests share; `empty_frames`: what h2 does not take of it
//! - `http3`: connections over HTTP/3, and whether there is a way
//! - [`connect`]: one connection, from the address to the HTTP version
//! - [`resolve`], [`race`]: addresses, and which of them wins
//! - [`environment`], [`tunnel`]: which egress proxy, and through it
//! - [`tls`]: trust roots
//! - [`pace`]: whether a body comes fast enough
//! - [`incoming`]: a body on its way in, over either stack
//! - [`request_body`]: the caller's body on its way up, counted, bounded and watched
//! - [`swap`]: the request's head, rewritten for the channel
//! - [`answer`]: the answer's head, cleaned for the caller
//! - [`error`]: what can go wrong, and whether sending again is safe

pub mod answer;
mod chance;
pub mod connect;
mod empty_frames;
pub mod environment;
pub mod error;
mod http3;
pub mod incoming;
pub mod multiplex;
pub mod pace;
pub mod pool;
pub mod race;
pub mod request_body;
pub mod resolve;
pub mod slot;
pub mod socket;
mod supply;
pub mod swap;
pub mod tls;
pub mod tunnel;

pub use error::{ConnectError, Failure, SendError};
pub use incoming::{Incoming, IncomingError};
pub use pace::Pace;
pub use pool::Pool;
pub use request_body::{BodyFailure, BodyWatch, Inspect, Replay, ReplayBudget, RequestBody, Source};
pub use slot::{Answer, Lease, Slot};
pub use socket::Handshake;
