//! The configuration file is followed, and nobody who is served notices.

mod listeners;
mod noticed;
mod under_load;
