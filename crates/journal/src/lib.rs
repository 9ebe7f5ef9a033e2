//! A journal of records that survive `kill -9`, and costs no system call a record.
//!
//! Owns: a folder of preallocated, memory-mapped segment files; one appender a thread; the reader
//! that hands every record out; the checkpoint that says what has been consumed.
//! Never does: knowing what a record means, waiting on an appender's behalf. A journal that is full
//! drops records and counts them.
//!
//! The bytes on disk and what a crash can take are in `docs/journal.md`.
//!
//! - `map`: memory that one thread appends to while others read; the only unsafe code
//! - `record`: the bytes of a record, and reading them back from a dead process's segment
//! - `header`: the first 64 bytes of a segment
//! - `segment`: a segment file, being made and in use
//! - [`journal`]: the folder: options, the state that threads share, counters
//! - `home`: the folder, and whether it is still ours
//! - `recovery`: what earlier processes left
//! - [`writer`]: one thread's end of the journal
//! - `upkeep`: the threads that prepare segments and sync
//! - [`reader`]: follows all segments in order
//! - [`history`]: consumed segments that are kept, and reading everything from outside
//! - [`checkpoint`]: the file that says what has been consumed

pub mod checkpoint;
mod header;
pub mod history;
mod home;
pub mod journal;
mod map;
pub mod reader;
mod record;
mod recovery;
mod segment;
mod upkeep;
pub mod writer;

pub use checkpoint::{Checkpoint, Saved};
pub use history::History;
pub use journal::{Counters, Journal, Options};
pub use reader::{Position, Positions, Reader};
pub use record::checksum;
pub use segment::{Allocate, Fallocate};
pub use writer::{Dropped, Writer};
