//! A stand-in AI platform on plain HTTP/1.1, for `aiproxy demo`, the examples and the tests.
//!
//! Owns: the wire shapes of OpenAI, DashScope, Anthropic and Deepgram as their SDKs expect them,
//! deterministic answers (an echo of the last user message), the `x-sandbox` scenarios that make a
//! platform misbehave on request, and a record of every request seen.
//! Never: calls another host, writes to disk, thinks, or knows that a relay exists. It holds one
//! API key and prints it nowhere.
//!
//! - [`Sandbox`] (`server`): the listener and its life
//! - `route`: the fixed order of a request: record, key, scenario, endpoint, answer
//! - `auth`: where a key may sit, and how it is masked
//! - `scenario`: the `x-sandbox` header; `gates`: what `hold=` waits for
//! - `pace`: an answer turned into paced, cut or held body frames
//! - `seen`: the request log and the counters; `control`: `/sandbox/...`
//! - `shape`: a fault in each platform's own error body
//! - `http`: answers, request bodies, server-sent events; `multipart`: a small streaming parser
//! - `sockets`: realtime sessions, inference tasks and live transcription over WebSocket
//! - `calls`: calls over WebRTC; `session`: what a realtime session says, on sockets and in calls
//! - `text`: words, echoes and token counts; `ids`: ids and the clock
//! - `openai`, `dashscope`, `anthropic`: the endpoints

mod anthropic;
mod auth;
mod calls;
mod control;
mod dashscope;
mod gates;
mod http;
mod ids;
mod multipart;
mod openai;
mod pace;
mod route;
mod scenario;
mod seen;
mod server;
mod session;
mod shape;
mod sockets;
mod text;

#[cfg(test)]
mod tests;

pub use calls::SeenCall;
pub use seen::{Counters, Outcome, SeenRequest, Tokens};
pub use server::{Options, Sandbox};

/// The models that the sandbox serves; any other name gets the platform's "model not found", as
/// long as it is not one of [`Options::extra_models`].
pub const MODELS: &[&str] = &[
    "sandbox-chat",
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1",
    "gpt-4.1-mini",
    "gpt-5",
    "gpt-5-mini",
    "gpt-realtime",
    "o4-mini",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "text-embedding-ada-002",
    "text-embedding-v4",
    "tts-1",
    "tts-1-hd",
    "gpt-4o-mini-tts",
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-image-1",
    "dall-e-3",
    "qwen-plus",
    "qwen-turbo",
    "qwen-max",
    "qwen3-max",
    "qwen-vl-plus",
    "qwen-vl-max",
    "deepseek-v3",
    "claude-sandbox",
    "claude-opus-4-1",
    "claude-sonnet-4-5",
    "claude-haiku-4-5",
    "claude-3-5-haiku-latest",
];
