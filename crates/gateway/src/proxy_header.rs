//! The PROXY protocol, versions 1 and 2: what a load balancer says about a connection before it
//! begins. Pure: bytes in, verdict out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header that is read. Version 1 ends within 107 bytes; of version 2 this leaves room
/// for what clouds put into its TLVs.
pub(crate) const LONGEST: usize = 4096;

const V1_LONGEST: usize = 107;
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// The beginning of a header.
    Partial,
    /// A whole header of so many bytes, and whom it names; `None` where it names nobody: a health
    /// check of the load balancer itself, or a family without addresses.
    Whole(usize, Option<SocketAddr>),
    /// No header.
    Bad,
}

/// Reads a header at the beginning of `bytes`.
pub(crate) fn parse(bytes: &[u8]) -> Header {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(have, want)| have == want);
    if begins(V2_SIGNATURE) {
        version_2(bytes)
    } else if begins(b"PROXY ") {
        version_1(bytes)
    } else {
        Header::Bad
    }
}

fn version_1(bytes: &[u8]) -> Header {
    let within = &bytes[..bytes.len().min(V1_LONGEST)];
    let Some(end) = memchr::memchr(b'\n', within) else {
        return if within.len() < V1_LONGEST { Header::Partial } else { Header::Bad };
    };
    let line = within[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    match line.and_then(named_in) {
        Some(caller) => Header::Whole(end + 1, caller),
        None => Header::Bad,
    }
}

/// Whom a line of version 1 names.
fn named_in(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // What follows is to be ignored.
        return Some(None);
    }
    let [source, target, port, target_port] = [words.next()?, words.next()?, words.next()?, words.next()?];
    if words.next().is_some() {
        return None;
    }
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => None,
    };
    let number = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| plain)
    };
    let _ = (address(target)?, number(target_port)?);
    Some(Some(SocketAddr::new(address(source)?, number(port)?)))
}

fn version_2(bytes: &[u8]) -> Header {
    let Some((&[command, family, high, low], rest)) =
        bytes.get(V2_SIGNATURE.len()..).and_then(|rest| rest.split_first_chunk::<4>())
    else {
        return Header::Partial;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let whole = V2_SIGNATURE.len() + 4 + length;
    if command >> 4 != 2 || command & 0xf > 1 || whole > LONGEST {
        return Header::Bad;
    }
    let Some(rest) = rest.get(..length) else { return Header::Partial };
    let local = command & 0xf == 0;
    let caller = match family {
        _ if local => None,
        // TCP over IPv4: two addresses, two ports; TLVs follow.
        0x11 => match rest.first_chunk::<12>() {
            Some(&[a, b, c, d, _, _, _, _, high, low, ..]) => {
                Some(SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low]))))
            }
            None => return Header::Bad,
        },
        // TCP over IPv6.
        0x21 => match (rest.first_chunk::<16>(), rest.get(..36)) {
            (Some(address), Some(block)) => {
                let port = u16::from_be_bytes([block[32], block[33]]);
                Some(SocketAddr::new(Ipv6Addr::from(*address).into(), port))
            }
            _ => return Header::Bad,
        },
        // Datagrams do not come over TCP.
        0x12 | 0x22 => return Header::Bad,
        // UNIX sockets, and families that nobody has specified: no address.
        _ => None,
    };
    Header::Whole(whole, caller)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&V2_SIGNATURE[..], &[command, family], &length, block].concat()
    }

    #[test]
    fn version_1_names_the_caller() {
        let caller = |text: &str| Some(text.parse::<SocketAddr>().unwrap());
        for (line, expected) in [
            ("PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n", caller("203.0.113.9:4711")),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n", caller("[2001:db8::1]:4711")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff:f...f:ffff ffff:f 65535 65535\r\n", None),
        ] {
            assert_eq!(
                parse(format!("{line}GET /").as_bytes()),
                Header::Whole(line.len(), expected),
                "{line}"
            );
            for cut in 0..line.len() {
                assert_eq!(parse(&line.as_bytes()[..cut]), Header::Partial, "{line} {cut}");
            }
        }
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 4711\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 4711 443 1\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 +4711 443\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 70000 443\r\n",
            "PROXY TCP4 2001:db8::1 10.0.0.1 4711 443\r\n",
            "PROXY TCP4  203.0.113.9 10.0.0.1 4711 443\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\n",
            "PROXY UDP4 203.0.113.9 10.0.0.1 4711 443\r\n",
            "proxy TCP4 203.0.113.9 10.0.0.1 4711 443\r\n",
            "PROXY\t",
        ] {
            assert_eq!(parse(line.as_bytes()), Header::Bad, "{line}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
        assert_eq!(parse(endless.as_bytes()), Header::Bad);
    }

    #[test]
    fn version_2_names_the_caller_and_skips_what_follows() {
        let four = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 1, 0xbb];
        let mut six = [0; 36];
        six[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        six[15] = 1;
        six[33] = 7;
        let tlv = [4, 0, 1, 0];
        for (command, family, block, expected) in [
            (0x21, 0x11, four.to_vec(), Some("203.0.113.9:4711")),
            (0x21, 0x11, [&four[..], &tlv].concat(), Some("203.0.113.9:4711")),
            (0x21, 0x21, six.to_vec(), Some("[2001:db8::1]:7")),
            (0x20, 0x00, vec![], None),
            (0x20, 0x11, four.to_vec(), None),
            (0x21, 0x31, vec![0; 216], None),
            (0x21, 0x00, tlv.to_vec(), None),
        ] {
            let header = v2(command, family, &block);
            let expected = Header::Whole(header.len(), expected.map(|text| text.parse().unwrap()));
            assert_eq!(parse(&[&header[..], b"GET"].concat()), expected);
            for cut in 0..header.len() {
                assert_eq!(parse(&header[..cut]), Header::Partial, "{cut}");
            }
        }
        for (command, family, block) in [
            (0x11, 0x11, four.to_vec()),
            (0x22, 0x11, four.to_vec()),
            (0x21, 0x11, four[..11].to_vec()),
            (0x21, 0x21, six[..35].to_vec()),
            (0x21, 0x12, four.to_vec()),
            (0x21, 0x11, vec![0; LONGEST]),
        ] {
            assert_eq!(parse(&v2(command, family, &block)), Header::Bad);
        }
    }
}
