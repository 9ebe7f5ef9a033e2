//! What callers see when something fails, and that it fails once.

mod account;
mod limits;
mod platform;
mod refusals;
mod stale;
