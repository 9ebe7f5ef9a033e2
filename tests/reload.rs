//! The configuration file is followed, and nobody who is served notices.

mod noticed;
mod under_load;
