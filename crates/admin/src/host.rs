//! Which names the listener answers to.
//!
//! A page on the web can make its visitor's browser ask `http://evil.example:9090/`, with a name
//! that it has pointed at 127.0.0.1 in the meantime (DNS rebinding), and read the answer. The
//! browser tells the name in `Host`, so unknown names are refused. An address cannot be pointed
//! elsewhere.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::HOST;
use http::{HeaderMap, Uri, Version};

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// No `Host` where there has to be one, several, or one that cannot be read.
    Malformed,
    /// A name that is not ours.
    Unknown,
}

/// Checks every name that the request gives: `Host`, and the target where it is a whole URL.
pub(crate) fn check(headers: &HeaderMap, uri: &Uri, version: Version, ours: &[String]) -> Result<(), Wrong> {
    let mut given = headers.get_all(HOST).iter();
    match (given.next(), given.next()) {
        (Some(host), None) => allowed(host.to_str().map_err(|_| Wrong::Malformed)?, ours)?,
        // Health checks of load balancers; browsers always say it.
        (None, None) if version == Version::HTTP_10 => {}
        _ => return Err(Wrong::Malformed),
    }
    uri.authority().map_or(Ok(()), |authority| allowed(authority.as_str(), ours))
}

fn allowed(host: &str, ours: &[String]) -> Result<(), Wrong> {
    let name = without_port(host).ok_or(Wrong::Malformed)?;
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let known = match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            name.parse::<Ipv4Addr>().is_ok()
                || name.eq_ignore_ascii_case("localhost")
                || ours.iter().any(|ours| name.eq_ignore_ascii_case(ours))
        }
    };
    if known { Ok(()) } else { Err(Wrong::Unknown) }
}

/// `name`, `name:80`, `[::1]` or `[::1]:80` without the port.
fn without_port(host: &str) -> Option<&str> {
    let after_address = host.rfind(']').map_or(0, |end| end + 1);
    let Some(colon) = host[after_address..].find(':') else { return Some(host) };
    let (name, port) = host.split_at(after_address + colon);
    port[1..].bytes().all(|byte| byte.is_ascii_digit()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_configured_names_are_ours() {
        let ours = ["aiproxy.internal".to_owned()];
        for host in [
            "127.0.0.1",
            "127.0.0.1:9090",
            "10.1.2.3:80",
            "[::1]",
            "[::1]:9090",
            "localhost",
            "LocalHost:9090",
            "aiproxy.internal:9090",
            "AIProxy.Internal",
        ] {
            assert_eq!(allowed(host, &ours), Ok(()), "{host}");
        }
    }

    #[test]
    fn everything_else_is_not() {
        let ours = ["aiproxy.internal".to_owned()];
        for host in [
            "",
            "evil.example",
            "evil.example:9090",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "localhost.",
            "aiproxy.internal.evil.example",
            "127.1",
            "2130706433",
            "0x7f000001",
            "[::1].evil.example",
            "[evil.example]",
            "[evil.example]:80",
            "::1",
            "127.0.0.1:80@evil.example",
            "user@127.0.0.1",
            "evil.example:80:80",
            "127.0.0.1, evil.example",
        ] {
            assert!(allowed(host, &ours).is_err(), "{host}");
        }
    }
}
