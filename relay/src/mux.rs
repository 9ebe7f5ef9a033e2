//! The UDP port of all caller legs.
//!
//! One thread reads it and never waits for anybody: each call has a queue of its own, and what does
//! not fit is thrown away and counted. Whose packet it is, the user name of a connectivity check says;
//! for the others, where it comes from.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::BytesMut;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::{mpsc, watch};

use crate::stun;

/// Packets that wait for a call: a fifth of a second of twenty tracks.
const QUEUE: usize = 256;
/// Addresses of one call, at most: a caller has a few networks.
const ADDRESSES: usize = 16;
/// No packet is larger: what is, is cut, and no one's.
const PACKET: usize = 2048;
/// Packets that are read before others have their turn.
const BATCH: usize = 64;
/// What the system is asked to hold for the port.
const BUFFER: usize = 4 << 20;

/// A packet for a call.
pub(crate) struct Inbound {
    pub(crate) packet: BytesMut,
    pub(crate) from: SocketAddr,
    /// The candidate of ours that it was sent to.
    pub(crate) local: SocketAddr,
}

/// An address that is listened on.
#[derive(Debug)]
struct Face {
    socket: UdpSocket,
    /// What callers are told.
    candidate: SocketAddr,
}

#[derive(Debug, Clone)]
struct Route {
    call: u64,
    queue: mpsc::Sender<Inbound>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Routes {
    fragments: HashMap<String, Route>,
    addresses: HashMap<SocketAddr, Route>,
    /// Addresses of each call.
    calls: HashMap<u64, Vec<SocketAddr>>,
}

/// The port.
#[derive(Debug)]
pub(crate) struct Port {
    faces: Vec<Face>,
    routes: RwLock<Routes>,
    next: AtomicU64,
    /// Packets that were nobody's.
    pub(crate) unknown: AtomicU64,
    /// Packets for which a call's queue had no place.
    pub(crate) dropped: AtomicU64,
    stop: watch::Sender<bool>,
}

impl Port {
    /// Listens on these addresses. Callers are told `public` ones of the same family, or the address
    /// itself.
    ///
    /// # Errors
    /// The system's, with the address.
    pub(crate) fn open(listen: &[SocketAddr], public: &[IpAddr]) -> io::Result<Arc<Self>> {
        let mut faces = Vec::new();
        for address in listen {
            let named = |error: io::Error| {
                io::Error::new(error.kind(), format!("cannot listen on UDP {address}: {error}"))
            };
            let socket = bind(*address).map_err(named)?;
            widen(&socket);
            let local = socket.local_addr().map_err(named)?;
            let public = public.iter().find(|ip| ip.is_ipv4() == local.is_ipv4());
            let candidate = SocketAddr::new(public.copied().unwrap_or(local.ip()), local.port());
            faces.push(Face { socket, candidate });
        }
        let port = Arc::new(Self {
            faces,
            routes: RwLock::default(),
            next: AtomicU64::new(1),
            unknown: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            stop: watch::Sender::new(false),
        });
        let reader = Arc::clone(&port);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        std::thread::Builder::new().name("media".to_owned()).spawn(move || reader.read(&runtime))?;
        Ok(port)
    }

    /// Where callers can reach us.
    pub(crate) fn candidates(&self) -> Vec<SocketAddr> {
        self.faces.iter().map(|face| face.candidate).collect()
    }

    /// Ends the reading.
    pub(crate) fn close(&self) {
        self.stop.send_replace(true);
    }

    /// Sends from the port. What the system has no place for is lost, as packets are.
    pub(crate) fn send(&self, to: SocketAddr, packet: &[u8]) -> bool {
        let face = self.faces.iter().find(|face| face.candidate.is_ipv4() == to.is_ipv4());
        face.is_some_and(|face| face.socket.send_to(packet, to).is_ok())
    }

    /// Receives what is sent to a fragment, and then from where that came.
    pub(crate) fn receive(self: &Arc<Self>, fragment: &str) -> Reception {
        let (queue, packets) = mpsc::channel(QUEUE);
        let call = self.next.fetch_add(1, Ordering::Relaxed);
        let dropped = Arc::new(AtomicU64::new(0));
        let route = Route { call, queue, dropped: Arc::clone(&dropped) };
        self.write().fragments.insert(fragment.to_owned(), route.clone());
        Reception { port: Arc::clone(self), fragment: fragment.to_owned(), route, packets, dropped }
    }

    fn learn(&self, address: SocketAddr, route: &Route) {
        if self.routes().addresses.get(&address).is_some_and(|known| known.call == route.call) {
            return;
        }
        let mut routes = self.write();
        // Nobody takes over an address whose call goes on: where packets come from can be forged.
        if routes.addresses.get(&address).is_some_and(|known| !known.queue.is_closed()) {
            return;
        }
        let known = routes.calls.entry(route.call).or_default();
        if known.len() < ADDRESSES {
            known.push(address);
            routes.addresses.insert(address, route.clone());
        }
    }

    fn read(&self, runtime: &tokio::runtime::Runtime) {
        runtime.block_on(async {
            let faces: Vec<_> = self.faces.iter().map(|face| self.read_face(face)).collect();
            futures_util::future::join_all(faces).await;
        });
    }

    async fn read_face(&self, face: &Face) {
        let socket = face.socket.try_clone().and_then(tokio::net::UdpSocket::from_std);
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(%error, "the media port cannot be read");
                return;
            }
        };
        let mut stop = self.stop.subscribe();
        let mut buffer = vec![0; PACKET];
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                ready = socket.readable() => if ready.is_err() { return },
            }
            for _ in 0..BATCH {
                match socket.try_recv_from(&mut buffer) {
                    Ok((length, from)) => self.deliver(&buffer[..length], from, face.candidate),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An ICMP error of somebody who has left.
                    Err(_) => {}
                }
            }
        }
    }

    fn deliver(&self, packet: &[u8], from: SocketAddr, local: SocketAddr) {
        let asked = stun::asked(packet);
        let route = {
            let routes = self.routes();
            let named = asked.and_then(|fragment| routes.fragments.get(fragment));
            named.or_else(|| routes.addresses.get(&from)).cloned()
        };
        let Some(route) = route else {
            self.unknown.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if asked.is_some() {
            self.learn(from, &route);
        }
        if route.queue.try_send(Inbound { packet: packet.into(), from, local }).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            route.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn routes(&self) -> RwLockReadGuard<'_, Routes> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Routes> {
        self.routes.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fragments and addresses that are known.
    pub(crate) fn known(&self) -> (usize, usize) {
        let routes = self.routes();
        (routes.fragments.len(), routes.addresses.len())
    }
}

/// What a call receives at the port, until it drops.
pub(crate) struct Reception {
    port: Arc<Port>,
    fragment: String,
    route: Route,
    pub(crate) packets: mpsc::Receiver<Inbound>,
    dropped: Arc<AtomicU64>,
}

impl Reception {
    /// Sends to the caller.
    pub(crate) fn send(&self, to: SocketAddr, packet: &[u8]) -> bool {
        if stun::is_message(packet) {
            self.port.learn(to, &self.route);
        }
        self.port.send(to, packet)
    }

    /// Packets that were thrown away since this was asked last.
    pub(crate) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        let mut routes = self.port.write();
        routes.fragments.remove(&self.fragment);
        for address in routes.calls.remove(&self.route.call).unwrap_or_default() {
            if routes.addresses.get(&address).is_some_and(|known| known.call == self.route.call) {
                routes.addresses.remove(&address);
            }
        }
    }
}

/// A socket that never blocks.
///
/// # Errors
/// The system's.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Asks the system to hold more for a socket that many share. It gives what it may.
fn widen(socket: &UdpSocket) {
    let socket = SockRef::from(socket);
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
}
