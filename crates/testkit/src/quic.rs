//! Callers over QUIC that write exact bytes: HTTP/3 frame by frame, well or badly.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, Endpoint, ReadToEndError, RecvStream, SendStream, TransportConfig, VarInt};

use crate::authority::Authority;
use crate::wait::within;

/// Types of frames.
pub mod kind {
    #![allow(missing_docs, reason = "RFC 9114, section 7.2, in its order")]
    pub const DATA: u64 = 0x0;
    pub const HEADERS: u64 = 0x1;
    pub const CANCEL_PUSH: u64 = 0x3;
    pub const SETTINGS: u64 = 0x4;
    pub const PUSH_PROMISE: u64 = 0x5;
    pub const GOAWAY: u64 = 0x7;
    pub const MAX_PUSH_ID: u64 = 0xd;
}

/// Types of streams that go one way.
pub mod uni {
    #![allow(missing_docs, reason = "RFC 9114, section 6.2, and RFC 9204, section 4.2")]
    pub const CONTROL: u64 = 0x0;
    pub const PUSH: u64 = 0x1;
    pub const ENCODER: u64 = 0x2;
    pub const DECODER: u64 = 0x3;
}

/// Error codes.
pub mod code {
    #![allow(missing_docs, reason = "RFC 9114, section 8.1, and RFC 9204, section 6")]
    pub const NO_ERROR: u64 = 0x100;
    pub const INTERNAL_ERROR: u64 = 0x102;
    pub const STREAM_CREATION_ERROR: u64 = 0x103;
    pub const CLOSED_CRITICAL_STREAM: u64 = 0x104;
    pub const FRAME_UNEXPECTED: u64 = 0x105;
    pub const FRAME_ERROR: u64 = 0x106;
    pub const EXCESSIVE_LOAD: u64 = 0x107;
    pub const ID_ERROR: u64 = 0x108;
    pub const SETTINGS_ERROR: u64 = 0x109;
    pub const MISSING_SETTINGS: u64 = 0x10a;
    pub const REQUEST_REJECTED: u64 = 0x10b;
    pub const REQUEST_CANCELLED: u64 = 0x10c;
    pub const REQUEST_INCOMPLETE: u64 = 0x10d;
    pub const MESSAGE_ERROR: u64 = 0x10e;
    pub const QPACK_DECOMPRESSION_FAILED: u64 = 0x200;
    pub const QPACK_ENCODER_STREAM_ERROR: u64 = 0x201;
    pub const QPACK_DECODER_STREAM_ERROR: u64 = 0x202;
}

/// What became of a request, or of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An answer: status and body.
    Answer(u16, Bytes),
    /// The stream was reset with this code.
    Reset(u64),
    /// The connection was closed with this code of HTTP/3.
    Closed(u64),
    /// The connection ended otherwise.
    Lost(ConnectionError),
}

/// A number as QUIC writes it (RFC 9000, section 16), as short as can be.
///
/// # Panics
/// When it takes more than 62 bits.
#[must_use]
pub fn varint(value: u64) -> Vec<u8> {
    let short = |value: u64, bytes: usize| value.to_be_bytes()[8 - bytes..].to_vec();
    match value {
        0..0x40 => short(value, 1),
        0x40..0x4000 => short(value | 0x4000, 2),
        0x4000..0x4000_0000 => short(value | 0x8000_0000, 4),
        0x4000_0000..0x4000_0000_0000_0000 => short(value | 0xc000_0000_0000_0000, 8),
        _ => panic!("{value} is too large"),
    }
}

/// The beginning of a frame that says that it has so many bytes.
#[must_use]
pub fn announced(kind: u64, length: u64) -> Vec<u8> {
    [varint(kind), varint(length)].concat()
}

/// A frame.
#[must_use]
pub fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    [&announced(kind, payload.len() as u64), payload].concat()
}

/// A field section: literals that are not compressed.
#[must_use]
pub fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![0, 0];
    for (name, value) in fields {
        prefixed(0x20, 3, name.len(), &mut bytes);
        bytes.extend_from_slice(name.as_bytes());
        prefixed(0, 7, value.len(), &mut bytes);
        bytes.extend_from_slice(value.as_bytes());
    }
    bytes
}

/// A `HEADERS` frame.
#[must_use]
pub fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(kind::HEADERS, &section(fields))
}

/// A number in so many bits behind flags, and as many bytes more as it takes (RFC 7541, section 5.1).
///
/// # Panics
/// Never.
pub fn prefixed(flags: u8, bits: u32, value: usize, out: &mut Vec<u8>) {
    let low = |value: usize| u8::try_from(value).expect("eight bits");
    let most = (1 << bits) - 1;
    if value < most {
        return out.push(flags | low(value));
    }
    out.push(flags | low(most));
    let mut rest = value - most;
    while rest >= 128 {
        out.push(low(rest % 128 + 128));
        rest /= 128;
    }
    out.push(low(rest));
}

/// Somebody who connects, from one address. Its connections share their session tickets.
#[derive(Debug)]
pub struct Caller {
    endpoint: Endpoint,
    config: quinn::ClientConfig,
}

impl Caller {
    /// From any port, trusting this authority.
    #[must_use]
    pub fn new(authority: &Authority) -> Self {
        Self::at(authority, Ipv4Addr::LOCALHOST.into())
    }

    /// From this address.
    ///
    /// # Panics
    /// When it cannot be used.
    #[must_use]
    pub fn at(authority: &Authority, address: IpAddr) -> Self {
        let provider = rustls::crypto::CryptoProvider {
            // So that what begins a handshake fits into one datagram.
            kx_groups: vec![rustls::crypto::aws_lc_rs::kx_group::X25519],
            ..rustls::crypto::aws_lc_rs::default_provider()
        };
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        tls.enable_early_data = true;
        let crypto = QuicClientConfig::try_from(tls).expect("a configuration for QUIC");
        let endpoint = Endpoint::client(SocketAddr::from((address, 0))).expect("a free port");
        Self { endpoint, config: quinn::ClientConfig::new(Arc::new(crypto)) }
    }

    /// Lets so many bytes of each stream wait, and of all of them.
    #[must_use]
    pub fn windows(mut self, stream: u32, all: u32) -> Self {
        let mut transport = TransportConfig::default();
        transport
            .stream_receive_window(VarInt::from_u32(stream))
            .receive_window(VarInt::from_u32(all))
            .max_concurrent_uni_streams(VarInt::from_u32(3));
        self.config.transport_config(Arc::new(transport));
        self
    }

    /// Begins a connection to `relay.test`.
    ///
    /// # Panics
    /// When the address cannot be one.
    #[must_use]
    pub fn begin(&self, to: SocketAddr) -> quinn::Connecting {
        self.endpoint.connect_with(self.config.clone(), to, "relay.test").expect("an address")
    }

    /// Connects, and says nothing.
    ///
    /// # Errors
    /// Why there is no connection.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn try_connect(&self, to: SocketAddr) -> Result<Raw, ConnectionError> {
        Ok(Raw { quic: within("a QUIC handshake", self.begin(to)).await?, kept: Vec::new() })
    }

    /// Connects, and says nothing.
    ///
    /// # Panics
    /// When there is no connection.
    pub async fn silent(&self, to: SocketAddr) -> Raw {
        self.try_connect(to).await.expect("a connection")
    }

    /// Connects, and says on streams of its own what HTTP/3 begins with.
    ///
    /// # Panics
    /// When there is no connection.
    pub async fn connect(&self, to: SocketAddr) -> Raw {
        let mut raw = self.silent(to).await;
        raw.uni([varint(uni::CONTROL), frame(kind::SETTINGS, &[])].concat()).await;
        raw.uni(varint(uni::ENCODER)).await;
        raw.uni(varint(uni::DECODER)).await;
        raw
    }

    /// Ends all its connections.
    pub fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0x100), b"");
    }

    /// Goes on from another address.
    ///
    /// # Panics
    /// When it cannot be used.
    pub fn rebind(&self, address: IpAddr) {
        let socket = UdpSocket::bind(SocketAddr::from((address, 0))).expect("a free port");
        self.endpoint.rebind(socket).expect("a socket");
    }
}

/// A connection on which a test writes and reads bytes.
#[derive(Debug)]
pub struct Raw {
    quic: quinn::Connection,
    /// Streams that stay open.
    kept: Vec<SendStream>,
}

impl Raw {
    /// The connection itself.
    #[must_use]
    pub fn quic(&self) -> &quinn::Connection {
        &self.quic
    }

    /// A stream that goes one way, which stays open. A peer that has gone away is for the reader to find
    /// out.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn uni(&mut self, bytes: impl AsRef<[u8]>) {
        let Ok(mut stream) = within("a stream", self.quic.open_uni()).await else { return };
        let _ = within("bytes being taken", stream.write_all(bytes.as_ref())).await;
        self.kept.push(stream);
    }

    /// The stream that was opened last by [`Raw::uni`], or one before it.
    pub fn kept(&mut self, before: usize) -> Option<&mut SendStream> {
        let last = self.kept.len().checked_sub(before + 1)?;
        self.kept.get_mut(last)
    }

    /// A request stream with nothing on it; `None` when the connection has ended.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn bidi(&self) -> Option<Stream> {
        let (send, recv) = within("a stream", self.quic.open_bi()).await.ok()?;
        Some(Stream { send, recv })
    }

    /// What becomes of a stream on which these bytes are all there is.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn ask(&self, bytes: impl AsRef<[u8]>) -> Outcome {
        let Some(mut stream) = self.bidi().await else { return self.closed().await };
        stream.send(bytes).await;
        let _ = stream.send.finish();
        stream.outcome().await
    }

    /// Waits for the connection's end.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn closed(&self) -> Outcome {
        within("the end of the connection", self.quic.closed()).await.into()
    }

    /// How the connection has ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<Outcome> {
        self.quic.close_reason().map(Outcome::from)
    }
}

impl From<ConnectionError> for Outcome {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::Closed(close.error_code.into_inner()),
            other => Self::Lost(other),
        }
    }
}

/// One request stream.
#[derive(Debug)]
pub struct Stream {
    /// The way there.
    pub send: SendStream,
    /// The way back.
    pub recv: RecvStream,
}

impl Stream {
    /// Writes these bytes; false when they are not taken any more.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within("bytes being taken", self.send.write_all(bytes.as_ref())).await.is_ok()
    }

    /// Gives up the way there.
    pub fn reset(&mut self, code: u64) {
        let _ = self.send.reset(VarInt::try_from(code).expect("a code"));
    }

    /// Wants nothing on the way back.
    pub fn stop(&mut self, code: u64) {
        let _ = self.recv.stop(VarInt::try_from(code).expect("a code"));
    }

    /// Waits for what becomes of it.
    ///
    /// # Panics
    /// After [`crate::BOUND`], or when what comes is not HTTP/3.
    pub async fn outcome(&mut self) -> Outcome {
        match within("an answer", self.recv.read_to_end(1 << 20)).await {
            Ok(bytes) => answer(bytes.into()).expect("an answer"),
            Err(ReadToEndError::Read(quinn::ReadError::Reset(code))) => Outcome::Reset(code.into_inner()),
            Err(ReadToEndError::Read(quinn::ReadError::ConnectionLost(error))) => error.into(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn answer(mut bytes: Bytes) -> Option<Outcome> {
    let (mut status, mut body) = (None, Vec::new());
    while !bytes.is_empty() {
        let (kind, length) = (number(&mut bytes)?, number(&mut bytes)?);
        let length = usize::try_from(length).ok().filter(|length| *length <= bytes.len())?;
        let payload = bytes.split_to(length);
        match kind {
            kind::HEADERS if status.is_none() => status = Some(self::status(&payload)?),
            kind::DATA if status.is_some() => body.extend_from_slice(&payload),
            _ => {}
        }
    }
    Some(Outcome::Answer(status?, body.into()))
}

/// The first line of the section: a line of the static table (RFC 9204, appendix A), or a name of it.
fn status(section: &[u8]) -> Option<u16> {
    const TABLE: [(u8, u16); 14] = [
        (24, 103),
        (25, 200),
        (26, 304),
        (27, 404),
        (28, 503),
        (63, 100),
        (64, 204),
        (65, 206),
        (66, 302),
        (67, 400),
        (68, 403),
        (69, 421),
        (70, 425),
        (71, 500),
    ];
    let of = |index| TABLE.iter().find(|(have, _)| *have == index).map(|(_, status)| *status);
    match section.get(2..)? {
        [0xff, rest, ..] => of(63 + rest),
        [first, ..] if *first >= 0xc0 => of(first & 0x3f),
        [0x5f, _, 3, digits @ ..] => str::from_utf8(digits.get(..3)?).ok()?.parse().ok(),
        _ => None,
    }
}

fn number(bytes: &mut Bytes) -> Option<u64> {
    let size = 1_usize << (bytes.first()? >> 6);
    if bytes.len() < size {
        return None;
    }
    let first = u64::from(bytes.get_u8() & 0x3f);
    Some((1..size).fold(first, |value, _| value << 8 | u64::from(bytes.get_u8())))
}
