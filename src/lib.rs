//! AIProxy: a relay between a company's people and realtime AI platforms.
//!
//! Owns: the command line, and the wiring: the only place where the parts meet.
//! Never does: what the parts do. `docs/architecture.md` says which part does what.
//!
//! - [`certificates`]: those of the HTTPS listeners, read again when they change
//! - [`cli`]: arguments and exit codes
//! - `control`: the command line over the admin API
//! - [`serve`]: the relay from a configuration file
//! - [`demo`]: the relay in front of the sandbox platform
//! - [`sandbox`]: the sandbox platform alone
//! - [`init`]: a first configuration
//! - [`reload`]: following the configuration file
//! - [`transfer`]: documents from a file into the database, and out of it
//! - [`migrate`]: the database's schema
//! - [`own_usage`]: what users are told of their own use
//! - [`records`]: journal and access log
//! - [`table`]: usage as aligned columns
//! - [`usage`]: what the journal says, for people
//! - [`wiring`]: snapshot → registry, sink, gateway
//! - [`signals`]: what ends the process

pub mod certificates;
pub mod cli;
mod control;
pub mod demo;
pub mod init;
pub mod migrate;
pub mod own_usage;
pub mod records;
pub mod reload;
pub mod sandbox;
pub mod serve;
pub mod signals;
pub mod table;
pub mod transfer;
pub mod usage;
pub mod wiring;
