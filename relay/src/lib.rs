//! The media plane: two peer connections per call, bridged.
//!
//! Owns: both legs of a call on webrtc-rs's sans-IO core, the UDP port of all caller legs, a socket per
//! platform leg; sound and data channels passed on packet by packet and message by message, without
//! transcoding; what is read of the messages on the way.
//! Never does: HTTP, keys, permissions: the gateway asks for a bridge through
//! [`aiproxy_core::ports::MediaPlane`] and says when it has to end.
//!
//! - [`Media`]: the port's other end
//! - `call`: a call's task: its sockets and its clock
//! - `mux`: the UDP port of all caller legs
//! - `bridge`: a call without sockets and without a clock; `setup`: how it comes about
//! - `leg`: a peer connection with its lines; `peer`: how they are made; `channels`: data channels
//! - `messages`: what is read of the messages; `stream`: what is told of the sound
//! - `sdp`, `stun`, `handshake`: as much of SDP, STUN and DTLS as is needed

mod bridge;
mod call;
mod channels;
mod handshake;
mod leg;
mod messages;
mod mux;
mod peer;
mod sdp;
mod setup;
mod stream;
mod stun;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use aiproxy_core::ErrorKind;
use aiproxy_core::ids::random_key;
use aiproxy_core::ports::{CallLimits, MediaPlane, OpenCall};

use crate::call::{Counted, Opened, Ports};
use crate::mux::Port;

/// What the media plane is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// UDP addresses that callers send to, at most one a family.
    pub listen: Vec<SocketAddr>,
    /// What callers and platforms are told instead, where it differs, at most one a family.
    pub public: Vec<IpAddr>,
    /// UDP ports of the legs towards platforms.
    pub ports: RangeInclusive<u16>,
}

/// The media plane of a process.
#[derive(Debug)]
pub struct Media {
    port: Arc<Port>,
    ports: Ports,
    calls: Arc<AtomicUsize>,
}

/// What the media plane counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that were opened and have not ended.
    pub calls: usize,
    /// Fragments that packets are accepted for.
    pub fragments: usize,
    /// Addresses that packets are accepted from.
    pub addresses: usize,
    /// Packets that were nobody's.
    pub unknown: u64,
    /// Packets for which a call's queue had no place.
    pub dropped: u64,
}

impl Media {
    /// Listens.
    ///
    /// # Errors
    /// The system's, with the address.
    pub fn open(options: &Options) -> io::Result<Self> {
        let port = Port::open(&options.listen, &options.public)?;
        let told = port.candidates().iter().map(SocketAddr::ip).collect();
        Ok(Self { port, ports: Ports::new(options.ports.clone(), told), calls: Arc::default() })
    }

    /// Where callers are told to send.
    #[must_use]
    pub fn candidates(&self) -> Vec<SocketAddr> {
        self.port.candidates()
    }

    /// What it counts.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (fragments, addresses) = self.port.known();
        Counts {
            calls: self.calls.load(Ordering::Relaxed),
            fragments,
            addresses,
            unknown: self.port.unknown.load(Ordering::Relaxed),
            dropped: self.port.dropped.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        self.port.close();
    }
}

impl MediaPlane for Media {
    fn open(&self, offer: &str, limits: CallLimits) -> Result<Box<dyn OpenCall>, (ErrorKind, String)> {
        let counted = Counted::new(&self.calls);
        let sockets = self.ports.take().map_err(|error| {
            tracing::error!(%error, "no UDP port for a leg towards a platform; look at system.media.ports");
            (ErrorKind::Overloaded, ErrorKind::Overloaded.message().to_owned())
        })?;
        let at: Vec<SocketAddr> = sockets.iter().map(|(_, at)| *at).collect();
        let fragment = random_key("", call::FRAGMENT);
        let offered = call::guarded(|| setup::begin(offer, &at, &fragment, limits, Instant::now()))?;
        Ok(Box::new(Opened { port: Arc::clone(&self.port), sockets, offered, limits, counted }))
    }
}
