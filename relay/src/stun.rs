//! As much of STUN (RFC 8489) as is needed to tell whose packet it is.

/// A binding request, and its success.
const REQUEST: [u8; 2] = [0, 1];
const SUCCESS: [u8; 2] = [1, 1];
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER: usize = 20;
const USERNAME: u16 = 0x0006;
const USE_CANDIDATE: u16 = 0x0025;

/// Whether it is a STUN message (RFC 7983 tells by the first byte).
pub(crate) fn is_message(packet: &[u8]) -> bool {
    packet.len() >= HEADER && packet[0] < 4 && packet[4..8] == COOKIE
}

/// Of a binding request: the fragment of the side that it is sent to.
pub(crate) fn asked(packet: &[u8]) -> Option<&str> {
    if !is_message(packet) || packet[..2] != REQUEST {
        return None;
    }
    let name = std::str::from_utf8(attribute(packet, USERNAME)?).ok()?;
    name.split(':').next().filter(|name| !name.is_empty())
}

/// Whether a binding request nominates its pair.
pub(crate) fn nominates(packet: &[u8]) -> bool {
    is_message(packet) && packet[..2] == REQUEST && attribute(packet, USE_CANDIDATE).is_some()
}

/// Whether it answers a request, well or not.
pub(crate) fn is_response(packet: &[u8]) -> bool {
    is_message(packet) && packet[0] & 1 == 1
}

/// Whether it is the answer to a binding request of ours.
pub(crate) fn is_success(packet: &[u8]) -> bool {
    is_message(packet) && packet[..2] == SUCCESS
}

/// What pairs a binding request of ours, or its success, with the other: its transaction.
pub(crate) fn transaction(packet: &[u8]) -> Option<[u8; 12]> {
    is_message(packet).then(|| packet[8..HEADER].try_into().ok()).flatten()
}

/// Whether it is a binding request.
pub(crate) fn is_request(packet: &[u8]) -> bool {
    is_message(packet) && packet[..2] == REQUEST
}

fn attribute(packet: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = packet.get(HEADER..)?;
    while let [a, b, c, d, tail @ ..] = rest {
        let (kind, length) = (u16::from_be_bytes([*a, *b]), usize::from(u16::from_be_bytes([*c, *d])));
        let value = tail.get(..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = tail.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut packet = vec![0, 1, 0, 0];
        packet.extend(COOKIE);
        packet.extend([7; 12]);
        for (kind, value) in attributes {
            packet.extend(kind.to_be_bytes());
            packet.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            packet.extend(*value);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        packet
    }

    #[test]
    fn whose_request_it_is() {
        let packet = request(&[(0x8022, b"abc"), (USERNAME, b"ours:theirs"), (USE_CANDIDATE, b"")]);
        assert_eq!(asked(&packet), Some("ours"));
        assert!(nominates(&packet));
        assert!(!nominates(&request(&[(USERNAME, b"ours:theirs")])));
        for end in 0..packet.len() {
            let _ = (asked(&packet[..end]), nominates(&packet[..end]), is_success(&packet[..end]));
        }
        assert_eq!(asked(&request(&[(USERNAME, b":x")])), None);
        assert_eq!(asked(&request(&[(USERNAME, b"\xff\xfe")])), None);
        assert_eq!(asked(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), None);
    }

    #[test]
    fn lengths_that_lie_are_not_followed() {
        let mut packet = request(&[(USERNAME, b"ours:theirs")]);
        packet[22..24].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(asked(&packet), None);
    }
}
