//! The relay from outside: the built program between real callers and a stand-in platform.
//!
//! One module per behaviour. Every test goes through [`aiproxy_testkit::App`], whose leak guard
//! searches all that passes and all that is printed for keys.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod admin;
mod architecture;
mod calls;
mod cli;
mod control;
mod cutting;
mod docs;
mod doors;
mod drain;
mod examples;
mod failover;
mod failure;
mod guard;
mod http;
mod log;
mod objects;
mod openapi;
mod quickstart;
mod reload;
mod routing;
mod sdk;
mod secrets;
mod sockets;
mod swap;
mod upstream;
mod usage;

use aiproxy_testkit::{App, Builder};
use serde_json::{Value, json};

/// The program that was built with these tests.
const BINARY: &str = env!("CARGO_BIN_EXE_aiproxy");

/// A relay in front of the sandbox, unless the test says otherwise.
fn relay() -> Builder {
    App::builder(BINARY)
}

/// A chat request.
fn chat(model: &str, text: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": text}]})
}

/// A streaming chat request.
fn chat_stream(model: &str, text: &str) -> Value {
    json!({"model": model, "stream": true, "messages": [{"role": "user", "content": text}]})
}
