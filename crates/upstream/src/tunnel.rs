//! Through an egress proxy: HTTP `CONNECT`, and SOCKS5 (RFC 1928, RFC 1929).
//!
//! Platforms without TLS are reached by `CONNECT` too: the proxy then sees a tunnel and not a
//! request, so that no key stands in its log, and there is one code path. A proxy that allows
//! `CONNECT` to few ports has to allow the platform's.

use std::net::IpAddr;

use aiproxy_config::model::{BaseUrl, EgressProxy};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::error::ConnectError;

/// Longest head of a proxy's answer.
const LONGEST_HEAD: usize = 16 * 1024;

/// Where a SOCKS proxy is to connect to.
#[derive(Debug, Clone, Copy)]
pub enum Destination<'a> {
    /// The proxy resolves the name.
    Name(&'a str),
    /// Resolved here.
    Address(IpAddr),
}

/// Asks an HTTP proxy for a tunnel.
///
/// # Errors
/// The proxy's refusal.
pub async fn connect<S>(stream: &mut S, proxy: &EgressProxy, base: &BaseUrl) -> Result<(), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let host = if base.host.contains(':') { format!("[{}]", base.host) } else { base.host.clone() };
    let target = format!("{host}:{}", base.port);
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some((user, password)) = &proxy.credentials {
        let credentials = STANDARD.encode(format!("{}:{}", user.expose(), password.expose()));
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(&credentials);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    write(stream, request.as_bytes()).await?;
    let mut head = answer_head(stream).await?;
    for _ in 0..INTERIM {
        if !head.split(' ').nth(1).is_some_and(|status| status.len() == 3 && status.starts_with('1')) {
            break;
        }
        head = answer_head(stream).await?;
    }
    let mut words = head.split(' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().and_then(|word| word.trim_end().parse::<u16>().ok());
    match status.filter(|_| version.starts_with("HTTP/1.")) {
        Some(200..=299) => Ok(()),
        // Some proxies (tinyproxy) say 401 where the credentials are wrong.
        Some(401 | 407) => Err(ConnectError::ProxyCredentials),
        Some(status) => Err(ConnectError::ProxyRefused(format!("it answered {status}"))),
        None => Err(ConnectError::ProxyProtocol("it does not speak HTTP/1.1")),
    }
}

/// Interim answers (1xx) before the one that counts.
const INTERIM: usize = 8;

/// The answer's status line, its head read to the end and not a byte further: what follows is the
/// platform's, and may come at once.
async fn answer_head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<String, ConnectError> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        if head.len() == LONGEST_HEAD {
            return Err(ConnectError::ProxyProtocol("its head is too long"));
        }
        // One byte at a time: only that never takes what belongs to the platform.
        let byte =
            stream.read_u8().await.map_err(|_| ConnectError::ProxyProtocol("it closed the connection"))?;
        head.push(byte);
    }
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

/// Asks a SOCKS5 proxy for a tunnel.
///
/// # Errors
/// The proxy's refusal.
pub async fn socks5<S>(
    stream: &mut S,
    proxy: &EgressProxy,
    to: Destination<'_>,
    port: u16,
) -> Result<(), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    const NONE: u8 = 0;
    const PASSWORD: u8 = 2;
    let offer: &[u8] = if proxy.credentials.is_some() { &[5, 2, NONE, PASSWORD] } else { &[5, 1, NONE] };
    write(stream, offer).await?;
    let [version, method] = read(stream).await?;
    match (version, method, &proxy.credentials) {
        (5, NONE, _) => {}
        (5, PASSWORD, Some((user, password))) => {
            let mut message = vec![1];
            for part in [user, password] {
                let part = part.expose().as_bytes();
                let length = u8::try_from(part.len()).map_err(|_| ConnectError::ProxyCredentials)?;
                message.push(length);
                message.extend_from_slice(part);
            }
            write(stream, &message).await?;
            let [_, status] = read(stream).await?;
            if status != 0 {
                return Err(ConnectError::ProxyCredentials);
            }
        }
        // No acceptable method: it wants credentials, or others.
        (5, ..) => return Err(ConnectError::ProxyCredentials),
        _ => return Err(ConnectError::ProxyProtocol("it does not speak SOCKS5")),
    }
    let mut message = vec![5, 1, 0];
    match to {
        Destination::Address(IpAddr::V4(address)) => {
            message.push(1);
            message.extend_from_slice(&address.octets());
        }
        Destination::Address(IpAddr::V6(address)) => {
            message.push(4);
            message.extend_from_slice(&address.octets());
        }
        Destination::Name(name) => {
            let length = u8::try_from(name.len())
                .map_err(|_| ConnectError::ProxyRefused("the host's name is too long for it".into()))?;
            message.extend_from_slice(&[3, length]);
            message.extend_from_slice(name.as_bytes());
        }
    }
    message.extend_from_slice(&port.to_be_bytes());
    write(stream, &message).await?;
    let [version, reply, _, kind] = read(stream).await?;
    if version != 5 {
        return Err(ConnectError::ProxyProtocol("it does not speak SOCKS5"));
    }
    if reply != 0 {
        return Err(ConnectError::ProxyRefused(said(reply).to_owned()));
    }
    // Where it is bound says nothing to us.
    let rest = match kind {
        1 => 4,
        4 => 16,
        3 => {
            let [length] = read(stream).await?;
            usize::from(length)
        }
        _ => return Err(ConnectError::ProxyProtocol("its answer names no kind of address")),
    };
    let mut bound = vec![0; rest + 2];
    stream.read_exact(&mut bound).await.map_err(|_| CLOSED)?;
    Ok(())
}

const CLOSED: ConnectError = ConnectError::ProxyProtocol("it closed the connection");

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), ConnectError> {
    stream.write_all(bytes).await.map_err(|_| CLOSED)?;
    stream.flush().await.map_err(|_| CLOSED)
}

async fn read<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> Result<[u8; N], ConnectError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(|_| CLOSED)?;
    Ok(bytes)
}

/// RFC 1928, section 6.
fn said(reply: u8) -> &'static str {
    match reply {
        2 => "its rules do not allow it",
        3 => "it found the network unreachable",
        4 => "it found the host unreachable, or could not resolve its name",
        5 => "the platform refused the connection",
        6 => "the way was too long",
        8 => "it does not take this kind of address",
        _ => "it failed",
    }
}

#[cfg(test)]
#[path = "tunnel_tests.rs"]
mod tests;
