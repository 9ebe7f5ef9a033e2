//! HTTP/2 frames by hand (RFC 9113, section 6), for platforms that do what no library would.

use aiproxy_testkit::{Bytes, Conn};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PREFACE: usize = 24;

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// `GOAWAY` without an error: streams behind `last` have not been looked at.
pub(crate) fn goaway(last: u32) -> Vec<u8> {
    let mut payload = last.to_be_bytes().to_vec();
    payload.extend_from_slice(&[0; 4]);
    frame(GOAWAY, 0, 0, &payload)
}

/// A whole answer with status 200, the eighth entry of HPACK's static table.
pub(crate) fn answer(stream: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &[0x88]);
    bytes.extend(frame(DATA, END_STREAM, stream, body));
    bytes
}

/// The beginning of an answer with status 200 and this part of its body.
pub(crate) fn beginning(stream: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &[0x88]);
    bytes.extend(frame(DATA, 0, stream, body));
    bytes
}

/// `RST_STREAM` with this error code.
pub(crate) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// An empty piece of a body, and its end.
pub(crate) fn nothing(stream: u32, end: bool) -> Vec<u8> {
    frame(DATA, u8::from(end), stream, b"")
}

/// The platform's end of a connection that takes one stream at a time.
pub(crate) struct Peer(Conn);

impl Peer {
    /// Exchanges prefaces; `None` when the relay closes.
    pub(crate) async fn greet(mut conn: Conn) -> Option<Self> {
        let preface = conn.exact(PREFACE).await;
        if &preface[..] != b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
            return None;
        }
        // SETTINGS_MAX_CONCURRENT_STREAMS: 1.
        conn.send(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1])).await;
        Some(Self(conn))
    }

    /// Number of the connection.
    pub(crate) fn index(&self) -> usize {
        self.0.index()
    }

    /// Reads a whole request; its stream. `None` when the relay closes.
    pub(crate) async fn request(&mut self) -> Option<u32> {
        loop {
            let (kind, flags, stream, _) = self.frame().await?;
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                return Some(stream);
            }
        }
    }

    async fn frame(&mut self) -> Option<(u8, u8, u32, Bytes)> {
        let head = self.0.exact(9).await;
        if head.len() < 9 {
            return None;
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.0.exact(length).await;
        if head[3] == SETTINGS && head[4] == 0 {
            self.0.send(frame(SETTINGS, 1, 0, &[])).await;
        }
        Some((head[3], head[4], stream, payload))
    }

    /// Sends frames.
    pub(crate) async fn send(&mut self, bytes: Vec<u8>) {
        self.0.send(bytes).await;
    }

    /// Sends nothing any more.
    pub(crate) async fn half_close(&mut self) {
        self.0.half_close().await;
    }

    /// Waits until the relay closes.
    pub(crate) async fn closed(&mut self) {
        self.0.closed().await;
    }
}
