//! Connection ids, and which thread's they are.
//!
//! The kernel spreads datagrams over the threads' sockets by the addresses of both ends. A caller whose
//! address changes (RFC 9000, section 9) lands at another thread than the one that has its connection;
//! so each id says whose it is. It says so to nobody else: the thread's number is masked by a keyed
//! hash of the rest, which is random.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use quinn::{ConnectionId, ConnectionIdGenerator};

/// Bytes of an id.
pub(crate) const LENGTH: usize = 8;

/// What turns threads into ids and ids into threads, the same for all threads of a listener.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mask(Arc<RandomState>);

impl Mask {
    fn of(&self, rest: &[u8]) -> u8 {
        self.0.hash_one(rest).to_le_bytes()[0]
    }

    /// The thread whose connection a datagram belongs to, if it says so: one with a long header belongs to
    /// whom the kernel gave it to.
    pub(crate) fn owner(&self, datagram: &[u8]) -> Option<usize> {
        let (first, rest) = datagram.split_first()?;
        if first & 0x80 != 0 {
            return None;
        }
        let (masked, rest) = rest.get(..LENGTH)?.split_first()?;
        Some(usize::from(masked ^ self.of(rest)))
    }
}

/// Makes ids for the connections of one thread.
pub(crate) struct Ids {
    pub(crate) mask: Mask,
    pub(crate) thread: u8,
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; LENGTH];
        // Without random numbers there is no TLS either: no connection would come to be.
        let _ = rand::fill(&mut bytes[1..]);
        bytes[0] = self.thread ^ self.mask.of(&bytes[1..]);
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_thread_and_no_other_listener() {
        let mask = Mask::default();
        for thread in [0, 1, 7, 255] {
            let mut ids = Ids { mask: mask.clone(), thread };
            for _ in 0..100 {
                let id = ids.generate_cid();
                let datagram = [&[0x41], &id[..], b"payload"].concat();
                assert_eq!(mask.owner(&datagram), Some(usize::from(thread)));
            }
        }
        assert_eq!(mask.owner(&[0xc0; 40]), None, "a long header");
        assert_eq!(mask.owner(&[0x40; LENGTH]), None, "too short");
    }

    #[test]
    fn ids_of_one_thread_have_nothing_in_common() {
        let mut ids = Ids { mask: Mask::default(), thread: 1 };
        let firsts: std::collections::HashSet<u8> = (0..500).map(|_| ids.generate_cid()[0]).collect();
        assert!(firsts.len() > 100);
    }
}
