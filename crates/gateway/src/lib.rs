//! Listeners and the HTTP forwarder.
//!
//! Owns: one single-threaded runtime per core, each with its own accept socket and its own
//! upstream pool; the life of a request from accept to record; the answers that AIProxy makes
//! itself.
//! Never does: deciding who may do what (`routing`), dialling platforms (`upstream`), writing
//! records (`meter`), reading configuration files (`config`).
//!
//! - [`server`]: threads, shutdown
//! - `listen`: listeners and their sockets
//! - [`checks`]: active health checks
//! - [`tls`]: certificates of the HTTPS listeners
//! - `door`: from an accepted socket to a connection of which it is known what is spoken
//! - `proxy_header`: what a load balancer says about a connection
//! - `per_ip`: connections by the caller's address
//! - `socket`: a caller's socket, with or without TLS
//! - `sockets`: WebSockets, as far as they are requests; `late`: those whose platform is asked after the 101
//! - `first_message`: keys in their first messages
//! - [`secrets`]: client secrets: minting them, and who may begin a session with one
//! - `switch`: WebSockets behind their 101
//! - `watched`: a stream that notes what goes over it
//! - `frames`: what an HTTP/2 connection costs against what it is good for
//! - `activity`: what connections are doing, and since when
//! - `connection`: one caller's connection, request by request
//! - `quic`: callers over HTTP/3; `clock`: the date of their answers
//! - `phases`: the life of a request, to be read first
//! - `attempts`: trying channels in order until one answers
//! - `models`: the list of models that a caller may use
//! - `pages`: lists of which nothing on the first page is the caller's
//! - `peek`: the beginning of a body, read ahead for the model
//! - `calls`: WebRTC calls, as far as they are requests
//! - `account`: is an error answer about the channel's account?
//! - `objects`: what requests refer to at the platforms, and what answers say about it
//! - `relayed`: an answer's body on its way down
//! - `reading`: what a request says before it is planned
//! - `metering`: what a request uses, read from its body and its answer
//! - `endpoints`: the endpoints that records name
//! - `record`: the guard that turns into the usage event
//! - `refuse`: causes as answers in the shape that the caller's SDK parses
//! - `cors`: browsers' access

mod account;
mod activity;
mod attempts;
mod calls;
pub mod checks;
mod clock;
mod connection;
mod cors;
mod door;
mod endpoints;
mod first_message;
mod frames;
mod late;
mod listen;
mod me;
mod metering;
mod models;
mod objects;
mod pages;
mod peek;
mod per_ip;
mod phases;
mod proxy_header;
mod quic;
mod reading;
mod record;
mod refuse;
mod relayed;
pub mod secrets;
pub mod server;
mod socket;
mod sockets;
mod switch;
pub mod tls;
mod watched;

pub use calls::Calls;
pub use listen::Kind;
pub use server::{Options, QuicListeners, Server};
