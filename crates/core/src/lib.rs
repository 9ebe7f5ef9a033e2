//! The vocabulary that every other crate shares.
//!
//! Owns: identifiers, secrets that cannot print, the error kinds and the answers they map to,
//! the usage event, and the ports (traits) through which sibling crates meet.
//! Never does: I/O of any kind, clocks, threads, logging.
//!
//! - [`secret`]: keys as types that cannot print, their digests and visible prefixes
//! - [`error`]: one table of everything that AIProxy itself may answer
//! - [`ids`]: request ids and random keys
//! - [`usage`]: the one record of one request
//! - [`websocket`]: the arithmetic of the opening handshake
//! - [`entity`]: what administrators manage, as documents
//! - [`ports`]: what L4 crates implement for, and call through, each other

pub mod entity;
pub mod error;
pub mod ids;
pub mod ports;
pub mod secret;
pub mod usage;
pub mod websocket;

pub use entity::{EntityKind, Fields, Record};
pub use error::{ErrorKind, Fault};
pub use ids::RequestId;
pub use secret::{KeyDigest, KeyTag, Secret};
pub use usage::{
    CallFigures, Cost, ErrorClass, Finish, LegFigures, Outcome, PassedOver, Protocol, SocketFigures, Tokens,
    Usage, UsageEvent, Why,
};
