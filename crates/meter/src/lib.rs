//! Records of use.
//!
//! Owns: the access log: one JSON line a request, written by a thread of its own.
//! Never does: waiting on a request's behalf. A caller's thread formats a line and appends it to
//! a bounded buffer; when the disk cannot follow, lines are dropped, counted and reported.
//!
//! - [`access_log`]: the sink and its writer thread
//! - [`line`]: one usage event as one line

pub mod access_log;
pub mod line;

pub use access_log::{AccessLog, Target};
