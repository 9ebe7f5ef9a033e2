//! What the fuzz targets share.
//!
//! Owns: how a target reads its input, and oracles that are written apart from what they judge.
//! Never does: parsing anything in the way that the crates do it.
//!
//! - [`pieces`]: an input is a few bytes that say how to split, and what is split
//! - [`taps`]: what holds of every platform's tap
//! - [`tree`]: JSON as a tree
//! - [`events`]: server-sent events, all at once
//! - [`frames`]: WebSocket frames, all at once
//! - [`streams`]: the ends of a socket, in memory
//! - [`records`]: a usage event's record, written as the codec describes it
//! - [`segments`]: the files of a journal, as `docs/journal.md` describes them

pub mod events;
pub mod frames;
pub mod pieces;
pub mod records;
pub mod segments;
pub mod streams;
pub mod taps;
pub mod tree;
