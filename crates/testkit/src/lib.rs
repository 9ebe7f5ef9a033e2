//! What the integration tests stand on: the built relay between a caller and a platform, with
//! every byte that passes searched for keys.
//!
//! Owns: starting and ending the relay's process, the wiretaps around it, callers and platforms
//! that behave or misbehave exactly as a test says, and bounds on every wait.
//! Never does: testing a part from inside (that is the part's own business), fixed ports,
//! measuring time.
//!
//! - [`App`]: the relay from a configuration, in front of a [`Sandbox`] or a [`RawUpstream`];
//!   ends with the leak guard
//! - [`Ask`], [`Client`], [`Answer`]: an HTTP/1.1 caller; [`Raw`]: exact bytes
//! - [`Wire`], [`Tls`], [`Authority`]: callers' streams, with or without TLS; [`H2`]: frames
//! - [`Caller3`], [`H3`]: a caller over HTTP/3; [`BadLine`]: between namespaces, with loss and delay
//! - [`quic`]: callers over QUIC that write exact bytes
//! - [`RawUpstream`], [`Conn`]: a platform that does what the test says
//! - [`Platform`], [`Exchange`], [`TestCa`]: one that speaks HTTP/2 over TLS
//! - [`Proxy`], [`Hosts`]: egress proxies and a name service between the two
//! - [`Wiretap`], [`Needles`]: who saw which key
//! - [`Process`], [`run`]: programs and what they print
//! - [`ws`]: WebSockets from both ends
//! - [`within`], [`until`], [`Gate`]: waiting with a bound

mod app;
mod authority;
mod caller;
mod client;
mod config;
mod gate;
pub mod h2;
mod h3;
mod http1;
mod line;
mod needles;
mod net;
mod platform;
mod process;
mod proxy;
pub mod quic;
mod raw;
mod tls;
mod unmask;
mod upstream;
mod wait;
mod wire;
mod wiretap;
pub mod ws;

pub use aiproxy_sandbox::{Outcome, Sandbox, SeenCall, SeenRequest};
pub use bytes::Bytes;
pub use http::{HeaderMap, StatusCode, Version};

pub use self::h3::{Answer3, Caller3, Failure, H3};
pub use app::{App, Builder, sandbox};
pub use authority::{Authority, Issued};
pub use caller::Caller;
pub use client::{Answer, Ask, Body, Client, Upload};
pub use config::{CHANNEL_KEY, PROXY_KEY, standard};
pub use gate::Gate;
pub use h2::H2;
pub use http1::Head;
pub use line::{BadLine, Carried, End, Impairment, NoLine};
pub use needles::{Needles, Scanner};
pub use platform::{Answering, Exchange, Manner, Platform, Record};
pub use process::{Finished, Process, run};
pub use proxy::{Hosts, Proxy};
pub use raw::{Raw, RawAnswer};
pub use tls::{TestCa, TlsFront};
pub use upstream::{Conn, Hanging, RawUpstream, Received, refusing};
pub use wait::{BOUND, until, within};
pub use wire::{Tls, Wire};
pub use wiretap::Wiretap;
pub use ws::{Frame, Opening, Socket};
