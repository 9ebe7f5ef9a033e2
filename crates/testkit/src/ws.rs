//! WebSockets from both ends, frame by frame and as wrong as a test wants them.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::app::App;
use crate::config::PROXY_KEY;
use crate::raw::{Raw, RawAnswer};
use crate::upstream::{Conn, Received};
use crate::wire::Wire;

/// The key of every handshake here.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The mask of every frame of a caller here.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Kinds of frames.
pub mod opcode {
    /// Goes on with a message.
    pub const CONTINUATION: u8 = 0;
    /// Text.
    pub const TEXT: u8 = 1;
    /// Binary.
    pub const BINARY: u8 = 2;
    /// Close.
    pub const CLOSE: u8 = 8;
    /// Ping.
    pub const PING: u8 = 9;
    /// Pong.
    pub const PONG: u8 = 10;
}

/// One frame as it came, unmasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The last one of its message.
    pub fin: bool,
    /// Its kind.
    pub opcode: u8,
    /// The mask that it came with.
    pub mask: Option<[u8; 4]>,
    /// Its payload.
    pub payload: Bytes,
}

impl Frame {
    /// The payload as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// Code and reason of a close frame; 1005 where there is none.
    ///
    /// # Panics
    /// When it is another frame.
    #[must_use]
    pub fn close(&self) -> (u16, String) {
        assert_eq!(self.opcode, opcode::CLOSE, "{self:?}");
        match self.payload.split_first_chunk::<2>() {
            Some((code, reason)) => (u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned()),
            None => (1005, String::new()),
        }
    }
}

/// A whole frame that ends a message. Callers mask theirs.
#[must_use]
pub fn frame(opcode: u8, payload: impl AsRef<[u8]>, masked: bool) -> Vec<u8> {
    part(0x80 | opcode, payload, masked)
}

/// A frame with this first byte.
#[must_use]
pub fn part(first: u8, payload: impl AsRef<[u8]>, masked: bool) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = vec![first];
    let bit = u8::from(masked) << 7;
    match payload.len() {
        length @ 0..=125 => bytes.push(bit | u8::try_from(length).unwrap_or(125)),
        length @ 126..=0xffff => {
            bytes.push(bit | 126);
            bytes.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        }
        length => {
            bytes.push(bit | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if masked {
        bytes.extend_from_slice(&MASK);
        bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    } else {
        bytes.extend_from_slice(payload);
    }
    bytes
}

/// The payload of a close frame.
#[must_use]
pub fn closing(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// A handshake that is to be sent.
#[derive(Debug, Clone)]
pub struct Opening {
    to: SocketAddr,
    target: String,
    key: Option<String>,
    headers: Vec<(String, String)>,
    /// Sent in the same write as the handshake.
    behind: Vec<u8>,
}

impl Opening {
    /// To the relay, with the Proxy-Key of `user1` in the usual place.
    #[must_use]
    pub fn new(to: SocketAddr, target: &str) -> Self {
        Self {
            to,
            target: target.to_owned(),
            key: Some(PROXY_KEY.to_owned()),
            headers: Vec::new(),
            behind: Vec::new(),
        }
    }

    /// Another bearer token.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// No `Authorization`.
    #[must_use]
    pub fn no_key(mut self) -> Self {
        self.key = None;
        self
    }

    /// One more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Subprotocols, as one header.
    #[must_use]
    pub fn protocols(self, list: &str) -> Self {
        self.header("sec-websocket-protocol", list)
    }

    /// Bytes in the same write as the handshake.
    #[must_use]
    pub fn behind(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.behind = bytes.into();
        self
    }

    /// The request as it is sent.
    fn text(&self) -> Vec<u8> {
        let mut text = format!("GET {} HTTP/1.1\r\nhost: {}\r\n", self.target, self.to);
        let given = |name: &str| self.headers.iter().any(|(have, _)| have == name);
        for (name, value) in [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
        ] {
            if !given(name) {
                text += &format!("{name}: {value}\r\n");
            }
        }
        if let Some(key) = &self.key {
            text += &format!("authorization: Bearer {key}\r\n");
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        [text.as_bytes(), &self.behind].concat()
    }

    /// Sends it and expects the socket to open.
    ///
    /// # Panics
    /// When it does not.
    pub async fn open(self) -> Socket {
        let raw = Raw::connect(self.to).await;
        self.open_over(raw).await
    }

    /// As [`open`](Self::open), on a connection that is there.
    ///
    /// # Panics
    /// When the socket does not open.
    pub async fn open_over(self, mut raw: Raw) -> Socket {
        raw.send(self.text()).await;
        let answer = raw.head().await;
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(answer.head.get("sec-websocket-accept"), Some(derive_accept_key(KEY.as_bytes())));
        assert_eq!(answer.head.get("sec-websocket-extensions"), None);
        Socket { raw, answer }
    }

    /// Sends it; the status that comes, 101 or another. Then the connection ends.
    pub async fn status(self) -> u16 {
        let mut raw = Raw::connect(self.to).await;
        raw.send(self.text()).await;
        raw.head().await.status
    }

    /// Sends it and expects a refusal.
    ///
    /// # Panics
    /// When the socket opens, or nothing comes.
    pub async fn refused(self) -> RawAnswer {
        let mut raw = Raw::connect(self.to).await;
        raw.send(self.text()).await;
        let answer = raw.answer().await;
        assert_ne!(answer.status, 101);
        answer
    }

    /// Code of the refusal's JSON body, with its status.
    ///
    /// # Panics
    /// As [`refused`](Self::refused).
    pub async fn refusal(self) -> (u16, String) {
        let answer = self.refused().await;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        (answer.status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// A caller's end of an open socket.
#[derive(Debug)]
pub struct Socket {
    raw: Raw,
    /// The head of the 101.
    pub answer: RawAnswer,
}

impl Socket {
    /// The subprotocol that was taken up.
    #[must_use]
    pub fn protocol(&self) -> Option<String> {
        self.answer.head.get("sec-websocket-protocol")
    }

    /// The request's id.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn id(&self) -> String {
        self.answer.head.get("x-aiproxy-request-id").expect("an id")
    }

    /// Exact bytes.
    pub async fn bytes(&mut self, bytes: impl AsRef<[u8]>) {
        self.raw.send(bytes).await;
    }

    /// A whole message or control frame.
    pub async fn send(&mut self, opcode: u8, payload: impl AsRef<[u8]>) {
        self.raw.send(frame(opcode, payload, true)).await;
    }

    /// A text message of JSON.
    pub async fn json(&mut self, value: &serde_json::Value) {
        self.send(opcode::TEXT, value.to_string()).await;
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        let head = self.raw.exact(2).await;
        let (&first, &second) = (head.first()?, head.get(1)?);
        let (length, masked) = length(second, |count| self.raw.exact(count)).await?;
        let mask = if masked { self.raw.exact(4).await.first_chunk::<4>().copied() } else { None };
        let payload = self.raw.exact(length).await;
        (payload.len() == length).then(|| unmasked(first, mask, payload))
    }

    /// The next frame's payload as JSON.
    ///
    /// # Panics
    /// When there is none.
    pub async fn event(&mut self) -> serde_json::Value {
        let frame = self.next().await.expect("a frame");
        assert_eq!(frame.opcode, opcode::TEXT, "{frame:?}");
        serde_json::from_slice(&frame.payload).expect("JSON")
    }

    /// Reads until the close frame: its code and reason.
    ///
    /// # Panics
    /// When the connection ends without one.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            let frame = self.next().await.expect("a close frame");
            if frame.opcode == opcode::CLOSE {
                return frame.close();
            }
        }
    }

    /// Everything until the connection ends.
    pub async fn rest(&mut self) -> Bytes {
        self.raw.rest().await
    }

    /// Sends nothing any more.
    pub async fn finish(&mut self) {
        self.raw.finish().await;
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.raw.reset();
    }

    /// The stream itself.
    #[must_use]
    pub fn wire(&self) -> &Wire {
        self.raw.wire()
    }
}

/// The payload's length, from what follows the second byte; and whether a mask follows.
async fn length<F: Future<Output = Bytes>>(
    second: u8,
    read: impl FnOnce(usize) -> F,
) -> Option<(usize, bool)> {
    let length = match second & 0x7f {
        126 => u64::from(u16::from_be_bytes(*read(2).await.first_chunk()?)),
        127 => u64::from_be_bytes(*read(8).await.first_chunk()?),
        short => u64::from(short),
    };
    Some((usize::try_from(length).ok()?, second & 0x80 != 0))
}

fn unmasked(first: u8, mask: Option<[u8; 4]>, payload: Bytes) -> Frame {
    let payload = match mask {
        Some(mask) => payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect(),
        None => payload,
    };
    Frame { fin: first & 0x80 != 0, opcode: first & 0x0f, mask, payload }
}

impl Conn {
    /// Reads a handshake and accepts it with these further header lines, `behind` in the same write.
    pub async fn accept(&mut self, lines: &str, behind: impl AsRef<[u8]>) -> Option<Received> {
        let request = self.request().await?;
        let accept = derive_accept_key(request.header("sec-websocket-key")?.as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-accept: {accept}\r\n{lines}\r\n"
        );
        self.send([head.as_bytes(), behind.as_ref()].concat()).await;
        Some(request)
    }

    /// The next frame of the relay; `None` when it closes.
    pub async fn frame(&mut self) -> Option<Frame> {
        let head = self.exact(2).await;
        let (&first, &second) = (head.first()?, head.get(1)?);
        let (length, masked) = length(second, |count| self.exact(count)).await?;
        let mask = if masked { self.exact(4).await.first_chunk::<4>().copied() } else { None };
        let payload = self.exact(length).await;
        (payload.len() == length).then(|| unmasked(first, mask, payload))
    }

    /// Sends back every data frame, answers pings, and answers the close frame with the same; returns
    /// the close frame's payload.
    pub async fn echo(&mut self) -> Option<Bytes> {
        while let Some(next) = self.frame().await {
            let first = u8::from(next.fin) << 7 | next.opcode;
            match next.opcode {
                opcode::CLOSE => {
                    self.send(frame(opcode::CLOSE, &next.payload, false)).await;
                    return Some(next.payload);
                }
                opcode::PING => self.send(frame(opcode::PONG, &next.payload, false)).await,
                _ => self.send(part(first, &next.payload, false)).await,
            };
        }
        None
    }
}

impl App {
    /// A WebSocket handshake with the Proxy-Key of `user1` as a bearer token.
    #[must_use]
    pub fn socket(&self, target: &str) -> Opening {
        Opening::new(self.addr(), target)
    }
}
