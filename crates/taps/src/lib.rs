//! Reads token usage out of answers while their bytes pass by.
//!
//! Owns: the parsers that find usage, model and end of an answer in what a platform sends; the
//! edit of a request that makes a platform report usage, and the filter that takes the report out
//! of the answer again; the estimate where nothing was reported.
//! Never does: I/O, clocks, tasks, logging, decisions about a caller. A tap never changes and
//! never delays a byte; only [`StripUsage`] changes bytes, and only those that [`inject`] caused.
//!
//! All of it reads bytes as they come, split anywhere, in constant memory: JSON is never built
//! into a tree, an event is never kept, and an answer of any length costs a few hundred bytes.
//! [`fields`] alone takes a message that somebody else holds.
//!
//! - [`tap`]: [`Tap`], one per answer
//! - [`report`]: [`Usage`], what a tap found
//! - [`inject`]: [`RequestScan`] and [`BodyEdit`], `stream_options.include_usage` for a caller who
//!   did not ask for it
//! - [`strip`]: [`StripUsage`], the answer to such a request as the caller expects it
//! - [`estimate`]: bytes of text to tokens, where no platform counted
//! - [`socket`]: messages of WebSockets, both ways
//! - [`fields`]: single members of a message, found and replaced
//! - `json` (with `key` and `escape`), `sse`: the streaming scanners
//! - `places`: where each platform puts what; `reader`: collects it

mod escape;
pub mod estimate;
pub mod fields;
pub mod inject;
mod json;
mod key;
mod places;
mod reader;
pub mod report;
pub mod socket;
mod sse;
pub mod strip;
pub mod tap;
#[cfg(test)]
mod tests;

pub use inject::{BodyEdit, RequestScan};
pub use report::{Finish, Usage};
pub use strip::StripUsage;
pub use tap::Tap;
