//! Which DTLS handshake packets say nothing new (RFC 6347, section 4.2).
//!
//! The library forgets its timer for its own last flight whenever a handshake packet comes, a repeated
//! one too. When a flight is lost, the peer's repetition would silence the one side that could cure
//! it, and the call would never stand: one lost packet in thirty is enough for every eighth call. So
//! repetitions are kept from it until the handshake is through.

/// Messages that are told apart: a handshake has about fifteen.
const MOST: usize = 64;
const RECORD: usize = 13;
const HANDSHAKE: u8 = 22;
const FIRST_HELLO: (u8, [u8; 2]) = (1, [0, 0]);

/// What has come of a handshake.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    seen: Vec<Message>,
}

/// A message's type, its number and the place of its fragment.
type Message = (u8, [u8; 2], [u8; 3]);

impl Handshake {
    /// Whether the packet holds nothing but what came before.
    pub(crate) fn is_repeated(&mut self, packet: &[u8]) -> bool {
        if !packet.first().is_some_and(|first| (20..64).contains(first)) {
            return false;
        }
        let mut new = false;
        let mut rest = packet;
        while let Some((header, tail)) = rest.split_at_checked(RECORD) {
            let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
            let Some((body, next)) = tail.split_at_checked(length) else { break };
            rest = next;
            // What is encrypted, and what is no handshake message, is always news.
            let clear = header[3..5] == [0, 0];
            let message = match body {
                [kind, _, _, _, n, m, a, b, c, ..] if clear && header[0] == HANDSHAKE => {
                    (*kind, [*n, *m], [*a, *b, *c])
                }
                _ => return false,
            };
            // The first hello starts no timer, and may have come before the library listened.
            if !self.seen.contains(&message) || (message.0, message.1) == FIRST_HELLO {
                new = true;
                if self.seen.len() < MOST {
                    self.seen.push(message);
                }
            }
        }
        !new && rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content: u8, epoch: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        let mut record = vec![content, 254, 253, 0, epoch, 0, 0, 0, 0, 0, 1, length[0], length[1]];
        record.extend(body);
        record
    }

    fn message(kind: u8, number: u8, offset: u8) -> Vec<u8> {
        record(HANDSHAKE, 0, &[kind, 0, 0, 4, 0, number, 0, 0, offset, 0, 0, 2, 7, 7])
    }

    #[test]
    fn only_what_says_nothing_new_is_repeated() {
        let mut handshake = Handshake::default();
        let flight = [message(2, 1, 0), message(11, 2, 0), message(11, 2, 2)].concat();
        assert!(!handshake.is_repeated(&flight));
        assert!(handshake.is_repeated(&flight));
        assert!(handshake.is_repeated(&message(11, 2, 2)));
        assert!(!handshake.is_repeated(&[flight.clone(), message(14, 3, 0)].concat()));
        for news in [record(20, 0, &[1]), record(HANDSHAKE, 1, &[9; 40]), record(23, 1, &[9; 40])] {
            assert!(!handshake.is_repeated(&[flight.clone(), news.clone()].concat()));
            assert!(!handshake.is_repeated(&news));
        }
        for end in 0..flight.len() {
            let _ = handshake.is_repeated(&flight[..end]);
        }
        assert!(!handshake.is_repeated(b"\0\x01 no DTLS"));
        for _ in 0..3 {
            assert!(!handshake.is_repeated(&message(1, 0, 0)));
        }
        assert!(!handshake.is_repeated(&message(1, 1, 0)));
        assert!(handshake.is_repeated(&message(1, 1, 0)));
    }
}
