//! Listeners: what is open, and what is to be.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use aiproxy_quic::endpoint::Listener as UdpListener;
use socket2::{Domain, Protocol, Socket, Type};

use crate::server::QuicListeners;

/// The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Free ports that are tried until one is free for UDP as well.
const PORTS: usize = 16;

/// What a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTTP/1.1 and HTTP/2 without TLS.
    Http,
    /// HTTP/1.1 and HTTP/2 over TLS.
    Https,
    /// HTTP/3.
    Quic,
}

/// One listener: a socket for each thread.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) kind: Kind,
    /// The address as configured; its port may be 0.
    wanted: SocketAddr,
    /// The address as it is.
    pub(crate) local: SocketAddr,
    pub(crate) sockets: Sockets,
}

/// Its sockets.
#[derive(Debug)]
pub(crate) enum Sockets {
    Tcp(Vec<TcpListener>),
    Udp(UdpListener),
}

impl Bound {
    /// Opens a listener that is configured as `wanted` at `address`, which is the same but where the port
    /// of another one is to be shared.
    fn open(kind: Kind, wanted: SocketAddr, address: SocketAddr, workers: usize) -> io::Result<Arc<Self>> {
        let open = || {
            let (local, sockets) = if kind == Kind::Quic {
                let listener = UdpListener::bind(address, workers)?;
                (listener.local(), Sockets::Udp(listener))
            } else {
                let sockets = bind(address, workers)?;
                (sockets.first().map_or(Ok(address), TcpListener::local_addr)?, Sockets::Tcp(sockets))
            };
            Ok(Arc::new(Self { kind, wanted, local, sockets }))
        };
        let what = if kind == Kind::Quic { " (UDP)" } else { "" };
        open().map_err(|error: io::Error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}{what}: {error}"))
        })
    }
}

/// The listeners that are wanted, those that are there already among them; and which are new.
type Opened = (Vec<Arc<Bound>>, Vec<(SocketAddr, Kind)>);

/// Opens what is not open yet.
///
/// # Errors
/// When an address cannot be bound; the message names it.
pub(crate) fn open(
    old: &[Arc<Bound>],
    http: &[SocketAddr],
    https: &[SocketAddr],
    quic: &QuicListeners,
    workers: usize,
) -> io::Result<Opened> {
    let mut opening = Opening { old: old.to_vec(), new: Vec::new(), opened: Vec::new(), workers };
    for address in http {
        opening.listener(Kind::Http, *address, *address)?;
    }
    for address in https {
        opening.https(*address, quic.like_https)?;
    }
    for address in &quic.at {
        opening.listener(Kind::Quic, *address, *address)?;
    }
    Ok((opening.new, opening.opened))
}

struct Opening {
    /// Those that may be taken over.
    old: Vec<Arc<Bound>>,
    new: Vec<Arc<Bound>>,
    opened: Vec<(SocketAddr, Kind)>,
    workers: usize,
}

impl Opening {
    fn listener(&mut self, kind: Kind, wanted: SocketAddr, address: SocketAddr) -> io::Result<SocketAddr> {
        let same = |bound: &Arc<Bound>| {
            (bound.kind, bound.wanted) == (kind, wanted) && (address == wanted || bound.local == address)
        };
        let bound = match self.old.iter().position(same) {
            Some(index) => self.old.swap_remove(index),
            None => {
                let bound = Bound::open(kind, wanted, address, self.workers)?;
                self.opened.push((bound.local, kind));
                bound
            }
        };
        let local = bound.local;
        self.new.push(bound);
        Ok(local)
    }

    /// An HTTPS listener, and one for HTTP/3 on its port's number.
    fn https(&mut self, wanted: SocketAddr, quic: bool) -> io::Result<()> {
        for tries in 1.. {
            let opened = self.opened.len();
            let local = self.listener(Kind::Https, wanted, wanted)?;
            if !quic {
                break;
            }
            match self.listener(Kind::Quic, wanted, local) {
                Ok(_) => break,
                // Any port will do, but for this one.
                Err(error) if wanted.port() == 0 && self.opened.len() > opened && tries < PORTS => {
                    tracing::debug!(%error, "trying another port");
                    self.new.pop();
                    self.opened.truncate(opened);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// One accept socket per thread on the same address, the kernel spreading connections over them.
/// Port 0 is resolved once, for all.
///
/// # Errors
/// When the address cannot be bound, or somebody else listens there: without asking first,
/// `SO_REUSEPORT` would let two processes share the port in silence.
pub(crate) fn bind(address: SocketAddr, sockets: usize) -> io::Result<Vec<TcpListener>> {
    if address.port() != 0 {
        socket(address)?.bind(&address.into())?;
    }
    let mut address = address;
    let mut out = Vec::with_capacity(sockets);
    for _ in 0..sockets.max(1) {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        address = listener.local_addr()?;
        out.push(listener);
    }
    Ok(out)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sockets_share_one_port_and_nobody_else_does() {
        let sockets = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 3).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        let error = bind(address, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
