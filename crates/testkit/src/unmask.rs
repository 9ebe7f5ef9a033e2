//! What a WebSocket client says, without its masks.

use memchr::memmem;

/// The longest head that is waited for, in bytes.
const HEAD: usize = 64 * 1024;

/// Follows the bytes of one direction, split anywhere: once a handshake has passed, frames.
#[derive(Debug, Default)]
pub(crate) struct Unmask {
    /// The end of what passed before there were frames.
    head: Vec<u8>,
    frames: bool,
    /// The header of a frame as far as it has come.
    header: Vec<u8>,
    mask: [u8; 4],
    /// Payload of the frame under way that is still to come.
    left: u64,
    at: usize,
}

impl Unmask {
    /// The payload in these bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        let mut rest = bytes;
        if !self.frames {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let (mut begin, mut looked) = (0, before.saturating_sub(3));
            let end = loop {
                let Some(found) = memmem::find(&self.head[looked..], b"\r\n\r\n") else {
                    // Bodies are not followed; a later handshake is found all the same.
                    let surplus = self.head.len().saturating_sub(HEAD).max(begin);
                    self.head.drain(..surplus);
                    return payload;
                };
                let end = looked + found + 4;
                let head = self.head[begin..end].to_ascii_lowercase();
                if memmem::find(&head, b"\r\nsec-websocket-key:").is_some() {
                    break end;
                }
                (begin, looked) = (end, end);
            };
            self.frames = true;
            rest = &bytes[end.saturating_sub(before)..];
            self.head = Vec::new();
        }
        while let Some((&byte, behind)) = rest.split_first() {
            if self.left == 0 {
                self.header.push(byte);
                self.begin();
                rest = behind;
                continue;
            }
            let here = rest.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.unmask(&rest[..here], &mut payload);
            self.left -= here as u64;
            rest = &rest[here..];
        }
        payload
    }

    /// Eight bytes at a time: tests send a lot.
    fn unmask(&mut self, bytes: &[u8], payload: &mut Vec<u8>) {
        let mut mask = self.mask;
        mask.rotate_left(self.at % 4);
        let word: [u8; 8] = std::array::from_fn(|index| mask[index % 4]);
        let (words, rest) = bytes.as_chunks::<8>();
        for chunk in words {
            payload.extend_from_slice(&(u64::from_ne_bytes(*chunk) ^ u64::from_ne_bytes(word)).to_ne_bytes());
        }
        payload.extend(rest.iter().zip(word).map(|(byte, mask)| byte ^ mask));
        self.at += bytes.len();
    }

    /// Whether the header is whole: then payload follows.
    fn begin(&mut self) {
        let Some(second) = self.header.get(1) else { return };
        let masked = second & 0x80 != 0;
        let size = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let whole = 2 + size + if masked { 4 } else { 0 };
        if self.header.len() < whole {
            return;
        }
        self.left = match size {
            0 => u64::from(second & 0x7f),
            _ => self.header[2..2 + size].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        self.mask =
            self.header[2 + size..].first_chunk::<4>().copied().filter(|_| masked).unwrap_or_default();
        self.at = 0;
        self.header.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::{frame, opcode, part};

    #[test]
    fn what_is_said_is_heard_in_any_pieces() {
        let mut bytes = b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nbody".to_vec();
        bytes.extend_from_slice(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: x\r\n\r\n");
        bytes.extend(part(opcode::TEXT, "he", true));
        bytes.extend(part(0x80, "llo ", true));
        bytes.extend(frame(opcode::TEXT, "x".repeat(300), true));
        bytes.extend(frame(opcode::BINARY, "y".repeat(70_000), true));
        let expected = format!("hello {}{}", "x".repeat(300), "y".repeat(70_000));
        for size in [1, 3, 50, 1000, bytes.len()] {
            let mut unmask = Unmask::default();
            let heard: Vec<u8> = bytes.chunks(size).flat_map(|piece| unmask.feed(piece)).collect();
            assert!(heard == expected.as_bytes(), "{size}");
        }
    }
}
