//! What HTTP promises, kept both ways.

mod bodies;
mod connections;
mod cors;
mod headers;
mod leaving;
mod methods;
mod streaming;
