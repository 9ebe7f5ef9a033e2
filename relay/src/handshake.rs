//! Which DTLS packets the library gets to see (RFC 6347) while a handshake is under way, and which of
//! those that belong to none.
//!
//! Two weaknesses of it are kept from harm here:
//!
//! - It forgets its timer for its own last flight whenever a handshake packet comes, a repeated one too.
//!   When a flight is lost, the peer's repetition would silence the one side that could cure it, and the
//!   call would never stand: one lost packet in thirty is enough for every eighth call. So repetitions are
//!   kept from it until the handshake is through.
//! - It puts fragments together by calling itself for each, whatever they say. So nonsense is kept from
//!   it, and what is sense is counted.
//!
//! Alerts that are not encrypted can be forged by anybody; a handshake that fails is noticed by its time.

/// Messages and fragments of one handshake, at most: it has about fifteen.
const MOST: usize = 128;
/// Packets of handshakes after it is through: the peer may repeat its last flight.
const AFTERWARDS: u32 = 32;
/// Bytes of a message: what is long is a chain of certificates.
const MESSAGE: u32 = 1 << 17;
const RECORD: usize = 13;
const HEADER: usize = 12;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const FIRST_HELLO: (u8, [u8; 2]) = (1, [0, 0]);

/// What has come of a handshake.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    seen: Vec<Fragment>,
    afterwards: u32,
}

/// A message's type, its number and the place of its fragment.
type Fragment = (u8, [u8; 2], u32);

/// Whether the packet is one of DTLS (RFC 7983).
pub(crate) fn is_dtls(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| (20..64).contains(first))
}

impl Handshake {
    /// Whether the library is to see the packet. `through`: its handshake is.
    pub(crate) fn admits(&mut self, packet: &[u8], through: bool) -> bool {
        let (mut news, mut clear) = (false, false);
        let mut rest = packet;
        while !rest.is_empty() {
            let Some((header, tail)) = rest.split_at_checked(RECORD) else { return false };
            let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
            let Some((body, next)) = tail.split_at_checked(length) else { return false };
            rest = next;
            let encrypted = header[3..5] != [0, 0];
            match header[0] {
                _ if encrypted => news = true,
                ALERT => return false,
                HANDSHAKE => {
                    clear = true;
                    match self.messages(body) {
                        Some(new) => news |= new,
                        None => return false,
                    }
                }
                _ => news = true,
            }
        }
        if through && clear {
            self.afterwards += 1;
            return self.afterwards <= AFTERWARDS;
        }
        through || news
    }

    /// Whether a record holds anything that is new; none where it holds what is none.
    fn messages(&mut self, mut body: &[u8]) -> Option<bool> {
        let mut news = false;
        while !body.is_empty() {
            let (header, tail) = body.split_at_checked(HEADER)?;
            let number = |at: usize| u32::from_be_bytes([0, header[at], header[at + 1], header[at + 2]]);
            let (whole, offset, length) = (number(1), number(6), number(9));
            // An empty message is one fragment; of others none is empty.
            let sound = whole <= MESSAGE && offset + length <= whole && (length > 0 || whole == 0);
            let (_, next) = tail.split_at_checked(length as usize).filter(|_| sound)?;
            body = next;
            let fragment = (header[0], [header[4], header[5]], offset);
            // The first hello starts no timer, and may have come before the library listened.
            if (fragment.0, fragment.1) == FIRST_HELLO {
                news = true;
            } else if !self.seen.contains(&fragment) {
                if self.seen.len() >= MOST {
                    return None;
                }
                self.seen.push(fragment);
                news = true;
            }
        }
        Some(news)
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

    fn fragment(kind: u8, number: u8, whole: u8, offset: u8, length: u8) -> Vec<u8> {
        let mut body = vec![kind, 0, 0, whole, 0, number, 0, 0, offset, 0, 0, length];
        body.extend(vec![7; usize::from(length)]);
        body
    }

    fn message(kind: u8, number: u8, offset: u8) -> Vec<u8> {
        record(HANDSHAKE, 0, &fragment(kind, number, 4, offset, 2))
    }

    #[test]
    fn what_says_nothing_new_is_kept_back() {
        let mut handshake = Handshake::default();
        let flight = [message(2, 1, 0), message(11, 2, 0), message(11, 2, 2)].concat();
        assert!(handshake.admits(&flight, false));
        assert!(!handshake.admits(&flight, false));
        assert!(!handshake.admits(&message(11, 2, 2), false));
        assert!(handshake.admits(&[flight.clone(), message(14, 3, 0)].concat(), false));
        for news in [record(20, 0, &[1]), record(HANDSHAKE, 1, &[9; 40]), record(23, 1, &[9; 40])] {
            assert!(handshake.admits(&[flight.clone(), news.clone()].concat(), false));
            assert!(handshake.admits(&news, false));
        }
        for _ in 0..3 {
            assert!(handshake.admits(&message(1, 0, 0), false));
        }
        assert!(handshake.admits(&message(1, 1, 0), false));
        assert!(!handshake.admits(&message(1, 1, 0), false));
        // Several messages in one record, of which the last is new.
        let packed = [fragment(2, 1, 4, 0, 2), fragment(16, 4, 4, 0, 4)].concat();
        assert!(handshake.admits(&record(HANDSHAKE, 0, &packed), false));
        assert!(!handshake.admits(&record(HANDSHAKE, 0, &packed), false));
        // The last flight may be repeated when all is through, but not for ever.
        let times = (0..100).filter(|_| handshake.admits(&flight, true)).count();
        assert_eq!(times, 32);
        assert!(handshake.admits(&record(23, 1, &[9; 40]), true));
    }

    #[test]
    fn nonsense_is_kept_back() {
        let mut handshake = Handshake::default();
        let sound = message(11, 2, 0);
        for end in 1..sound.len() {
            assert!(!handshake.admits(&sound[..end], false), "{end}");
        }
        for body in [
            // Beyond its end; empty; longer than any.
            fragment(11, 2, 4, 3, 2),
            fragment(11, 2, 4, 1, 0),
            vec![11, 2, 0, 1, 0, 2, 0, 0, 0, 0, 0, 1, 7],
            vec![11, 0, 0],
        ] {
            assert!(!handshake.admits(&record(HANDSHAKE, 0, &body), false), "{body:?}");
        }
        assert!(!handshake.admits(&record(ALERT, 0, &[2, 40]), false));
        assert!(!handshake.admits(&[sound, record(ALERT, 0, &[2, 40])].concat(), false));
        // So many fragments has no handshake.
        let whole = 250;
        let admitted = (0..whole).filter(|offset| {
            handshake.admits(&record(HANDSHAKE, 0, &fragment(11, 9, whole, *offset, 1)), false)
        });
        assert!(admitted.count() <= MOST);
    }
}
