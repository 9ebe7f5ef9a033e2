//! What AIProxy knows about each AI platform, as data.
//!
//! Owns: the table of platforms (where the key goes, which paths and models they serve, which
//! paths would let the account escape, which errors are about the account), the table of path
//! prefixes, and the matching of paths and names against patterns.
//! Never does: I/O, configuration, decisions about one caller. Adding a platform is adding a row
//! (`docs/adding-a-platform.md`).
//!
//! - [`table`]: one entry per platform
//! - [`routes`]: path prefix → API family, error shape, usage shape
//! - [`placement`]: where a key sits in a request
//! - [`first_message`]: what sockets say before a platform can be asked
//! - [`mod@pointer`]: JSON pointers
//! - [`path`]: normal form of paths, path patterns
//! - [`glob`]: model name patterns
//! - [`objects`]: what platforms keep for callers, and where its ids stand
//! - [`session`]: which requests begin realtime sessions, and where client secrets are minted
//! - [`endpoint`]: paths as one of a bounded number of templates
//! - [`price`]: usage to money
//! - [`faults`]: is this upstream error about the channel's account?

pub mod endpoint;
pub mod faults;
pub mod first_message;
pub mod glob;
pub mod objects;
pub mod path;
pub mod placement;
pub mod pointer;
pub mod price;
pub mod routes;
pub mod session;
pub mod table;

pub use faults::{AccountFault, ErrorFacts};
pub use placement::Placement;
pub use pointer::Pointer;
pub use price::{Price, PriceTable};
pub use routes::{ErrorShape, Family, Route, UsageShape, classify};
pub use table::{Forbidden, PLATFORMS, Platform, Serve, by_id, guess};
