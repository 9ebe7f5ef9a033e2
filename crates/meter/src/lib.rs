//! Records of use.
//!
//! Owns: the access log (one JSON line a request, written by a thread of its own), and the sums over
//! what the journal holds.
//! Never does: waiting on a request's behalf. A caller's thread puts an event into the journal (or
//! a line into a bounded buffer, where there is no journal); when the disk cannot follow, events
//! are dropped, counted and reported.
//!
//! - [`sink`]: a thread's events into the journal
//! - [`codec`]: an event as a record of the journal, and back
//! - [`consumer`]: the thread that turns the journal into the access log, exactly once
//! - [`log_file`]: the access log's file: resumed, appended to, moved aside
//! - [`rotation`]: when a file is moved aside, and how long it is kept
//! - [`access_log`]: the access log without a journal: a sink and its writer thread
//! - [`filter`]: which records are meant
//! - [`sums`]: records added up by user, channel, model and the like
//! - [`aborted`]: sessions that were open when the process ended
//! - [`mod@line`]: one usage event as one line

pub mod aborted;
pub mod access_log;
pub mod codec;
pub mod consumer;
pub mod filter;
pub mod line;
pub mod log_file;
pub mod rotation;
pub mod sink;
pub mod sums;
#[cfg(test)]
mod testing;

pub use access_log::{AccessLog, Target};
pub use consumer::Consumer;
pub use filter::Filter;
pub use rotation::Rotation;
pub use sink::JournalSink;
pub use sums::{By, Open, Row, Sums};
