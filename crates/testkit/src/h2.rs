//! A caller that speaks HTTP/2 frame by frame, well or badly.

use std::collections::HashMap;
use std::net::SocketAddr;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::wait::within;
use crate::wire::Wire;

/// How a connection begins.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames.
pub mod kind {
    #![allow(missing_docs, reason = "RFC 9113, section 6, in its order")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub mod flag {
    #![allow(missing_docs, reason = "RFC 9113, section 6")]
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What it holds.
    pub payload: Bytes,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An answer: status and body.
    Answer(u16, Bytes),
    /// `RST_STREAM` with this code.
    Reset(u32),
    /// `GOAWAY` with this code.
    GoAway(u32),
    /// The connection ended without a word.
    Closed,
}

/// A connection.
#[derive(Debug)]
pub struct H2 {
    wire: Wire,
    buffer: BytesMut,
    /// Status and body so far, by stream.
    answers: HashMap<u32, (u16, Vec<u8>)>,
}

/// The bytes of a frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A field block: literals that are never indexed and not compressed.
#[must_use]
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0x10);
        for text in [name, value] {
            integer(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// A length in seven bits and as many more as it takes (RFC 7541, section 5.1).
fn integer(bytes: &mut Vec<u8>, value: usize) {
    if value < 127 {
        return bytes.push(u8::try_from(value).expect("seven bits"));
    }
    bytes.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128 + 128).expect("eight bits"));
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).expect("seven bits"));
}

/// A `HEADERS` frame that holds the whole block.
#[must_use]
pub fn headers(stream: u32, end: bool, fields: &[(&str, &str)]) -> Vec<u8> {
    let flags = flag::END_HEADERS | if end { flag::END_STREAM } else { 0 };
    frame(kind::HEADERS, flags, stream, &block(fields))
}

/// The `SETTINGS` frame with these values.
#[must_use]
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = values
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    frame(kind::SETTINGS, 0, 0, &payload)
}

impl H2 {
    /// A connection on which nothing has been said.
    #[must_use]
    pub fn over(wire: Wire) -> Self {
        Self { wire, buffer: BytesMut::new(), answers: HashMap::new() }
    }

    /// Connects without TLS, by prior knowledge, and exchanges settings.
    ///
    /// # Panics
    /// When the other side does not speak HTTP/2.
    pub async fn connect(to: SocketAddr) -> Self {
        let mut this = Self::over(Wire::Plain(Wire::tcp(to).await));
        this.begin(&[]).await;
        this
    }

    /// Says the preface and these settings, and takes the other side's.
    ///
    /// # Panics
    /// When the other side does not speak HTTP/2.
    pub async fn begin(&mut self, values: &[(u16, u32)]) {
        self.send(PREFACE).await;
        // Nothing is put into a table that only a whole decoder could follow.
        let values = [&[(1, 0)], values].concat();
        self.send(settings(&values)).await;
        loop {
            let frame = self.next().await.expect("a connection that speaks HTTP/2");
            if frame.kind == kind::SETTINGS && frame.flags & flag::ACK == 0 {
                break;
            }
        }
        self.send(frame(kind::SETTINGS, flag::ACK, 0, &[])).await;
    }

    /// Writes these bytes. A peer that has gone away is for the reader to find out.
    ///
    /// # Panics
    /// When they are not taken within [`crate::BOUND`].
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within("bytes being taken", self.wire.write_all(bytes.as_ref())).await;
        let _ = within("bytes being taken", self.wire.flush()).await;
    }

    /// Writes these bytes; false when the other side has gone, or takes no more of them for now.
    pub async fn offer(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let writing = self.wire.write_all(bytes.as_ref());
        matches!(tokio::time::timeout(std::time::Duration::from_millis(500), writing).await, Ok(Ok(())))
    }

    /// The next frame; `None` when the connection ends.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn next(&mut self) -> Option<Frame> {
        within("a frame", async {
            loop {
                if let Some(length) = self.buffer.first_chunk::<3>() {
                    let [a, b, c] = *length;
                    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                    if self.buffer.len() >= 9 + length {
                        self.buffer.advance(3);
                        let (kind, flags) = (self.buffer.get_u8(), self.buffer.get_u8());
                        let stream = self.buffer.get_u32() & 0x7fff_ffff;
                        let payload = self.buffer.split_to(length).freeze();
                        return Some(Frame { kind, flags, stream, payload });
                    }
                }
                if !matches!(self.wire.read_buf(&mut self.buffer).await, Ok(1..)) {
                    return None;
                }
            }
        })
        .await
    }

    /// Waits for what becomes of a stream; acknowledges settings and gives credit meanwhile.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            let Some(next) = self.next().await else { return Outcome::Closed };
            if let Some(outcome) = self.take(next, stream).await {
                return outcome;
            }
        }
    }

    async fn take(&mut self, next: Frame, stream: u32) -> Option<Outcome> {
        let code = |bytes: &[u8]| bytes.first_chunk().map_or(u32::MAX, |code| u32::from_be_bytes(*code));
        match next.kind {
            kind::GOAWAY => return Some(Outcome::GoAway(code(next.payload.get(4..).unwrap_or_default()))),
            kind::RST_STREAM if next.stream == stream => return Some(Outcome::Reset(code(&next.payload))),
            kind::SETTINGS if next.flags & flag::ACK == 0 => {
                self.send(frame(kind::SETTINGS, flag::ACK, 0, &[])).await;
            }
            kind::HEADERS => {
                let entry = self.answers.entry(next.stream).or_default();
                // Trailers have none.
                entry.0 = status(&next.payload).unwrap_or(entry.0);
            }
            kind::DATA => {
                self.answers.entry(next.stream).or_default().1.extend_from_slice(&next.payload);
                if let Ok(bytes @ 1..) = u32::try_from(next.payload.len()) {
                    self.send(frame(kind::WINDOW_UPDATE, 0, 0, &bytes.to_be_bytes())).await;
                    if next.flags & flag::END_STREAM == 0 {
                        self.send(frame(kind::WINDOW_UPDATE, 0, next.stream, &bytes.to_be_bytes())).await;
                    }
                }
            }
            _ => {}
        }
        let ends = matches!(next.kind, kind::HEADERS | kind::DATA) && next.flags & flag::END_STREAM != 0;
        if ends && next.stream == stream {
            let (status, body) = self.answers.remove(&stream).unwrap_or_default();
            return Some(Outcome::Answer(status, body.into()));
        }
        None
    }

    /// Waits for the next piece of a stream's answer, without giving credit for more; `None` when
    /// the stream or the connection ends.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn piece(&mut self, stream: u32) -> Option<Bytes> {
        loop {
            let next = self.next().await?;
            if next.stream != stream {
                continue;
            }
            match next.kind {
                kind::DATA if !next.payload.is_empty() => return Some(next.payload),
                kind::RST_STREAM => return None,
                kind::DATA | kind::HEADERS if next.flags & flag::END_STREAM != 0 => return None,
                _ => {}
            }
        }
    }

    /// Whether the connection still answers a `PING`.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn is_alive(&mut self) -> bool {
        self.send(frame(kind::PING, 0, 0, b"are you?")).await;
        loop {
            let Some(next) = self.next().await else { return false };
            match next.kind {
                kind::PING if next.flags & flag::ACK != 0 && next.payload == b"are you?"[..] => return true,
                kind::GOAWAY => return false,
                kind::SETTINGS if next.flags & flag::ACK == 0 => {
                    self.send(frame(kind::SETTINGS, flag::ACK, 0, &[])).await;
                }
                _ => {}
            }
        }
    }

    /// Waits for the connection's end: the code of the last `GOAWAY`, where there was one.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn end(&mut self) -> Option<u32> {
        let mut said = None;
        while let Some(next) = self.next().await {
            if next.kind == kind::PING && next.flags & flag::ACK == 0 {
                self.send(frame(kind::PING, flag::ACK, 0, &next.payload)).await;
            }
            if let (kind::GOAWAY, Some(code)) =
                (next.kind, next.payload.get(4..).and_then(<[u8]>::first_chunk))
            {
                said = Some(u32::from_be_bytes(*code));
            }
        }
        said
    }

    /// The stream itself.
    #[must_use]
    pub fn wire(&self) -> &Wire {
        &self.wire
    }
}

/// The status in a field block that begins with it, as it has to.
fn status(block: &[u8]) -> Option<u16> {
    // Updates of the table's size come first.
    let start = block.iter().position(|byte| byte >> 5 != 1)?;
    match block[start..] {
        [index @ 0x88..=0x8e, ..] => Some([200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)]),
        [0x08 | 0x18 | 0x48, 0x03, a, b, c, ..] => std::str::from_utf8(&[a, b, c]).ok()?.parse().ok(),
        [0x08 | 0x18 | 0x48, length @ 0x81..=0x84, ..] => {
            digits(block.get(start + 2..start + 2 + usize::from(length & 0x7f))?)
        }
        _ => None,
    }
}

/// A number in the static Huffman code: 0, 1 and 2 have five bits, the other digits six.
fn digits(bytes: &[u8]) -> Option<u16> {
    let bits = bytes.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let mut left = bytes.len() * 8;
    let mut number = 0_u16;
    for _ in 0..3 {
        let take = |count: usize| bits >> left.saturating_sub(count) & ((1 << count) - 1);
        let (digit, count) = match take(5) {
            short @ 0..=2 => (short, 5),
            _ => (take(6).checked_sub(0x19)? + 3, 6),
        };
        left = left.checked_sub(count)?;
        number = number * 10 + u16::try_from(digit).ok()?;
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_in_every_form() {
        assert_eq!(status(&[0x88]), Some(200));
        assert_eq!(status(&[0x20, 0x8d]), Some(404));
        assert_eq!(status(b"\x08\x03503"), Some(503));
        // RFC 7541, appendix C.6.1: 302.
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
    }

    #[test]
    fn lengths_take_as_many_bytes_as_they_need() {
        let mut bytes = Vec::new();
        integer(&mut bytes, 126);
        integer(&mut bytes, 127);
        integer(&mut bytes, 1337 + 96);
        assert_eq!(bytes, [126, 127, 0, 127, 154, 10]);
    }
}
