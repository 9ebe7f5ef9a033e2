//! Client secrets: what a browser is given in place of a Proxy-Key.
//!
//! Owns: what such a secret says, the sealed token (`ek_…`) that says it, the keys that seal and open
//! tokens, and the file in which an installation keeps a key of its own.
//! Never does: deciding who may mint or use one (the gateway), counting them (`registry`), clocks,
//! network. A token is all there is: nothing is kept about it here.
//!
//! - [`claims`]: what a secret says
//! - [`keyring`]: sealing and opening
//! - [`key_file`]: the installation's own key

pub mod claims;
pub mod key_file;
pub mod keyring;

pub use claims::{Claims, Kind};
pub use keyring::{Keyring, LONGEST_TOKEN, OpenError, PREFIX};
