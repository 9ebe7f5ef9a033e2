//! Several addresses, one connection (RFC 8305, "happy eyeballs").
//!
//! Families alternate, beginning with the system's preference; the next address is tried when the
//! one before has failed or has not answered for a moment, and the first connection wins.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// The head start of each address (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses that are tried for one connection.
const TRIED: usize = 16;

/// Connects to the first address that takes it. Runs on a `LocalSet`; the wait is the caller's to
/// bound.
///
/// # Errors
/// The last address's.
pub async fn connect(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    if let [only] = addresses {
        return TcpStream::connect((*only, port)).await;
    }
    let mut waiting = interleaved(addresses);
    waiting.truncate(TRIED);
    // Dropping it ends the attempts that lost.
    let mut racing = JoinSet::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    let mut next = Instant::now();
    loop {
        if racing.is_empty() {
            next = Instant::now();
        }
        tokio::select! {
            biased;
            Some(outcome) = racing.join_next() => match outcome.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    last = error;
                    next = Instant::now();
                }
            },
            () = sleep_until(next), if !waiting.is_empty() => {
                let address = waiting.pop_front().map(|ip| SocketAddr::new(ip, port));
                if let Some(address) = address {
                    racing.spawn_local(TcpStream::connect(address));
                }
                next = Instant::now() + HEAD_START;
            }
            else => return Err(last),
        }
    }
}

/// Families take turns.
fn interleaved(addresses: &[IpAddr]) -> VecDeque<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<IpAddr>, Vec<IpAddr>) =
        addresses.iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all = VecDeque::with_capacity(addresses.len());
    loop {
        let (one, other) = (first.next(), second.next());
        if one.is_none() && other.is_none() {
            return all;
        }
        all.extend(one.into_iter().chain(other));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_take_turns() {
        let all = ["2001:db8::1", "2001:db8::2", "10.0.0.1", "10.0.0.2", "10.0.0.3"].map(ip);
        let expected = ["2001:db8::1", "10.0.0.1", "2001:db8::2", "10.0.0.2", "10.0.0.3"].map(ip);
        assert_eq!(interleaved(&all), expected);
        assert_eq!(interleaved(&all[2..]), &all[2..]);
    }

    #[tokio::test(flavor = "local")]
    async fn an_address_that_refuses_hands_over_at_once() {
        let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = connect(&[ip("127.0.0.3"), ip("127.0.0.4"), ip("127.0.0.2")], port).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip(), ip("127.0.0.2"));
        drop(listener);
        assert!(connect(&[ip("127.0.0.3"), ip("127.0.0.2")], port).await.is_err());
        assert!(connect(&[], port).await.is_err());
    }

    #[tokio::test(flavor = "local")]
    async fn an_address_that_says_nothing_loses() {
        // Its queue is full: the handshake never ends.
        let silent = std::net::TcpListener::bind("127.0.0.3:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        let mut queued = Vec::new();
        drop(silent);
        socket.bind(format!("127.0.0.3:{port}").parse().unwrap()).unwrap();
        let _silent = socket.listen(1).unwrap();
        let full = Duration::from_millis(200);
        while let Ok(Ok(stream)) =
            tokio::time::timeout(full, TcpStream::connect((ip("127.0.0.3"), port))).await
        {
            queued.push(stream);
        }
        let _listener = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        let stream = connect(&[ip("127.0.0.3"), ip("127.0.0.2")], port).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip(), ip("127.0.0.2"));
    }
}
