//! What outlives the process.
//!
//! Owns: the file of owned objects in the data folder, read at start and appended to by a thread
//! of its own.
//! Never does: deciding who owns what (`registry`, `routing`), blocking a request, failing one
//! because a disk is full.
//!
//! - [`object_file`]: the file and its writer thread
//! - `load`: reading it back, whatever a crash left in it
//! - `line`: one change as one JSON line

mod line;
mod load;
pub mod object_file;

pub use load::Loaded;
pub use object_file::{FILE_NAME, ObjectFile};
