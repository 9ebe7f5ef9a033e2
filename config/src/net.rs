//! Addresses, networks, listeners and origins as people write them.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use url::Url;

use crate::complaint::{Complaint, shown};

/// An address or a network.
pub(crate) fn cidr(text: &str) -> Result<IpNet, Complaint> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let net = address.or_else(|_| text.parse::<IpNet>()).map_err(|_| {
        Complaint::new(
            format!("{} is neither an IP address nor a network", shown(text)),
            "write it like `10.1.2.3`, `10.0.0.0/8` or `2001:db8::/32`",
        )
    })?;
    if net.addr() != net.network() {
        return Err(Complaint::new(
            format!("{} has bits beyond its prefix length", shown(text)),
            format!("write `{}` for the network or `{}` for the one address", net.trunc(), net.addr()),
        ));
    }
    Ok(net)
}

/// One address.
pub(crate) fn address(text: &str) -> Result<IpAddr, Complaint> {
    text.parse().map_err(|_| {
        Complaint::new(
            format!("{} is not an IP address", shown(text)),
            "write it like `10.1.2.3` or `2001:db8::1`",
        )
    })
}

/// A host's name.
pub(crate) fn host(text: &str) -> Result<(), Complaint> {
    let clean = !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        && text.parse::<IpAddr>().is_err();
    if clean {
        return Ok(());
    }
    Err(Complaint::new(
        format!("{} is not a host's name", shown(text)),
        "write the host alone, as it stands in `base_url`, such as `api.openai.com`",
    ))
}

/// Address and port of a listener.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, Complaint> {
    text.parse().map_err(|_| {
        let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        let host = text.rsplit_once(':').map_or("", |(host, _)| host);
        let suggestion = match (port, host) {
            (Some(port), "" | "localhost") if text != format!(":{port}") => {
                format!("write `127.0.0.1:{port}`")
            }
            (Some(port), "" | "*") => {
                format!("write `127.0.0.1:{port}`, or `0.0.0.0:{port}` for every address of the machine")
            }
            _ => "write it like `127.0.0.1:8080` or `[::1]:8080`".to_owned(),
        };
        Complaint::new(format!("{} is not an IP address with a port", shown(text)), suggestion)
    })
}

/// Address and port of a listener, or nothing for `off`.
pub(crate) fn listen_or_off(text: &str) -> Result<Option<SocketAddr>, Complaint> {
    if text == "off" {
        return Ok(None);
    }
    listen(text).map(Some).map_err(|complaint| match text.bytes().any(|byte| byte.is_ascii_digit()) {
        true => complaint,
        false => {
            Complaint { suggestion: Some("write it like `127.0.0.1:8081`, or `off`".to_owned()), ..complaint }
        }
    })
}

/// Whether what reaches one listener could be meant for the other. Port 0 is another port each
/// time, and `[::]` is every address, those of IPv4 included.
pub(crate) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let (one, two) = (a.ip().to_canonical(), b.ip().to_canonical());
    let every = |ip: IpAddr, other: IpAddr| ip.is_unspecified() && (ip.is_ipv6() || other.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (one == two || every(one, two) || every(two, one))
}

/// An origin as browsers send it, or `*`.
pub(crate) fn origin(text: &str) -> Result<(), Complaint> {
    if text == "*" {
        return Ok(());
    }
    let clean = Url::parse(text).ok().map(|url| url.origin()).filter(url::Origin::is_tuple);
    let Some(clean) = clean.map(|origin| origin.ascii_serialization()) else {
        return Err(Complaint::new(
            format!("{} is not an origin", shown(text)),
            "write scheme and host, such as `https://chat.example.com`, or `*`",
        ));
    };
    if clean != text {
        return Err(Complaint::new(
            format!("{} is not an origin as browsers send it", shown(text)),
            format!("write `{clean}`"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for text in ["10.1.2.3", "10.0.0.0/8", "::1", "2001:db8::/32", "0.0.0.0/0"] {
            assert!(cidr(text).is_ok(), "{text}");
        }
        for text in ["", "10.0.0", "10.1.2.3/8", "10.0.0.0/33", "localhost", "10.0.0.0-10.0.0.9", "10.*"] {
            assert!(cidr(text).is_err(), "{text}");
        }
    }

    #[test]
    fn listeners() {
        for text in ["127.0.0.1:8080", "[::1]:8080", "0.0.0.0:0"] {
            assert!(listen(text).is_ok(), "{text}");
        }
        for (text, suggestion) in [
            ("8080", "write `127.0.0.1:8080`"),
            ("localhost:8080", "write `127.0.0.1:8080`"),
            (":8080", "write `127.0.0.1:8080`, or `0.0.0.0:8080` for every address of the machine"),
            ("127.0.0.1", "write it like `127.0.0.1:8080` or `[::1]:8080`"),
            ("http://x", "write it like `127.0.0.1:8080` or `[::1]:8080`"),
        ] {
            assert_eq!(listen(text).unwrap_err().suggestion.as_deref(), Some(suggestion), "{text}");
        }
    }

    #[test]
    fn overlaps() {
        for (a, b, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:1", "[::ffff:127.0.0.1]:1", true),
            ("127.0.0.1:1", "0.0.0.0:1", true),
            ("127.0.0.1:1", "[::]:1", true),
            ("[::1]:1", "[::]:1", true),
            ("[::1]:1", "0.0.0.0:1", false),
            ("[::1]:1", "127.0.0.1:1", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("0.0.0.0:0", "127.0.0.1:0", false),
        ] {
            let (a, b) = (listen(a).unwrap(), listen(b).unwrap());
            assert_eq!((overlap(a, b), overlap(b, a)), (expected, expected), "{a} {b}");
        }
        assert_eq!(listen_or_off("off"), Ok(None));
        assert!(listen_or_off("127.0.0.1:0").is_ok());
        for (text, suggestion) in
            [("none", "write it like `127.0.0.1:8081`, or `off`"), ("8081", "write `127.0.0.1:8081`")]
        {
            assert_eq!(listen_or_off(text).unwrap_err().suggestion.as_deref(), Some(suggestion), "{text}");
        }
    }

    #[test]
    fn origins() {
        for text in ["*", "https://chat.example.com", "http://localhost:3000"] {
            assert!(origin(text).is_ok(), "{text}");
        }
        for text in ["", "chat.example.com", "https://chat.example.com/", "https://Chat.example.com", "null"]
        {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
