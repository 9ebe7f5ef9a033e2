//! Accept sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

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
