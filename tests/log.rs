//! The access log, and following the configuration file.

mod access;
mod reload;
mod shutdown;
