//! Signaling of WebSockets and of WebRTC calls.
//!
//! Owns: the bodies that carry SDP offers and answers, in all their shapes; the opening handshake as callers send it, following frames in the buffers that they pass
//! in, closing both sides of a socket properly, reading usage and models out of passing messages,
//! holding messages that somebody has to see as a whole.
//! Never does: deciding who may open a socket and where to (the gateway keeps the phases of a
//! request and calls this crate through [`aiproxy_core::ports::UpgradeHandler`] and
//! [`aiproxy_core::ports::SdpHandler`]), dialling (`upstream`), media (`relay`).
//!
//! - [`Offers`]: bodies of calls; `multipart`: those in parts
//! - [`WebSockets`]: the other end of the port of WebSockets
//! - `handshake`: is it an opening handshake?
//! - `frame`: frames in passing bytes; `mask`: their masks
//! - `first`: the first message, where it says what has to be known before a platform is asked
//! - `gather`: messages that are rewritten
//! - `way`: one direction; `pump`: both, and how a socket ends
//! - `buffer`: what is borrowed while bytes are under way
//! - `observe`: what is read of the messages

mod buffer;
mod first;
mod frame;
mod gather;
mod handshake;
mod mask;
mod multipart;
mod observe;
mod offers;
mod pump;
mod way;

use std::future::poll_fn;

use aiproxy_core::ErrorKind;
use aiproxy_core::ports::{
    FirstAsk, FirstEnd, FirstMessage, Opening, PortFuture, SocketEnd, SocketStream, Sockets, UpgradeHandler,
};
use http::request;

pub use crate::offers::Offers;
use crate::pump::Pump;

/// Relays WebSockets.
#[derive(Debug, Default)]
pub struct WebSockets;

impl UpgradeHandler for WebSockets {
    fn opening(&self, head: &request::Parts) -> Result<Opening, (ErrorKind, &'static str)> {
        handshake::opening(head)
    }

    fn relay(&self, sockets: Sockets) -> PortFuture<'static, SocketEnd> {
        // Boxed piece by piece: an idle socket is not to carry more than it needs.
        let mut pump = Box::new(Pump::new(sockets));
        Box::pin(async move {
            poll_fn(|cx| pump.poll(cx)).await;
            pump.into_end()
        })
    }

    fn first<'a>(&'a self, ask: FirstAsk<'a>) -> PortFuture<'a, Result<FirstMessage, FirstEnd>> {
        Box::pin(first::receive(ask))
    }

    fn part(&self, caller: Box<dyn SocketStream>, told: Option<(u16, String)>) -> PortFuture<'static, ()> {
        Box::pin(first::part(caller, told))
    }
}
