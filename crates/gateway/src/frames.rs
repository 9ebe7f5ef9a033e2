//! What an HTTP/2 connection costs against what it is good for.
//!
//! A caller may send control frames as fast as it likes, and each is answered: the protocol has no
//! bound on PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA or requests that are reset at once.
//! Each connection has credit, which these frames use up and which time and served requests bring
//! back; who runs out of it is flooding. Pure: bytes in, verdict out; nothing is decoded but the
//! nine bytes before each frame.

/// Credit of a connection, at first and at most.
const MOST: i64 = 2000;
/// What each second brings back.
pub(crate) const A_SECOND: i64 = 200;
/// What a request that was answered to its end brings back.
pub(crate) const A_REQUEST: i64 = 12;
/// What RST_STREAM costs, and what it brings back where the request was worked on.
pub(crate) const A_RESET: i64 = 10;
/// What a piece of an answer brings back, besides one for each [`BYTES`].
const A_PIECE: i64 = 4;
/// Callers give credit of their own for so many bytes, at the most often.
const BYTES: usize = 2048;

/// The connection preface, which no frame header is in.
const PREFACE: usize = 24;
const HEAD: usize = 9;
const SETTINGS: u8 = 4;

/// Follows the frames of one connection.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Bytes until the next frame header.
    skip: usize,
    head: [u8; HEAD],
    /// Of which so many have come.
    filled: usize,
    /// Whether there was a frame.
    begun: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self { skip: PREFACE, head: [0; HEAD], filled: 0, begun: false }
    }
}

impl Frames {
    /// What these bytes cost, the next ones of the connection.
    pub(crate) fn cost(&mut self, mut bytes: &[u8]) -> i64 {
        let mut cost = 0;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD {
                self.filled = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                cost += price(kind, flags, self.skip);
                // Whoever does not begin as the protocol has it (section 3.4) has no credit at all.
                if !std::mem::replace(&mut self.begun, true) && kind != SETTINGS {
                    cost += MOST + 1;
                }
            }
        }
        cost
    }
}

/// By RFC 9113, section 6.
fn price(kind: u8, flags: u8, length: usize) -> i64 {
    match kind {
        // DATA, which is work, unless it is nothing at all.
        0 if length > 0 || flags & 1 != 0 => 0,
        // RST_STREAM: work that was begun for nothing.
        3 => A_RESET,
        // SETTINGS, PING: each is answered.
        4 | 6 => 4,
        // GOAWAY ends it.
        7 => 0,
        _ => 1,
    }
}

/// Credit after something was paid or earned.
pub(crate) fn credit(now: i64, earned: i64) -> i64 {
    (now + earned).min(MOST)
}

/// Credit of a connection that begins.
pub(crate) const fn full() -> i64 {
    MOST
}

/// What a piece of an answer brings back.
pub(crate) fn piece(bytes: usize) -> i64 {
    A_PIECE + i64::try_from(bytes / BYTES).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
        let mut bytes = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        bytes.resize(HEAD + length, 0xff);
        bytes
    }

    #[test]
    fn frames_are_counted_wherever_reads_cut_them() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for (kind, flags, length) in [
            (4, 0, 18),
            (1, 4, 300),
            (0, 0, 70_000),
            (0, 0, 0),
            (0, 1, 0),
            (6, 0, 8),
            (3, 0, 4),
            (8, 0, 4),
            (0x42, 0, 1),
        ] {
            bytes.extend(frame(kind, flags, length));
        }
        let expected = 4 + 1 + 1 + 4 + 10 + 1 + 1;
        for size in [1, 2, 8, 9, 10, 1000, 1 << 20] {
            let mut frames = Frames::default();
            let cost: i64 = bytes.chunks(size).map(|piece| frames.cost(piece)).sum();
            assert_eq!(cost, expected, "reads of {size} bytes");
        }
    }

    #[test]
    fn the_first_frame_is_settings() {
        let cost = |kind| Frames { skip: 0, ..Frames::default() }.cost(&frame(kind, 0, 0));
        assert!(cost(SETTINGS) < MOST && cost(1) > MOST);
    }

    #[test]
    fn credit_ends_at_its_bound() {
        assert_eq!(credit(MOST - 1, 50), MOST);
        assert_eq!(credit(5, -50), -45);
        assert!(piece(64 * 1024) >= 2 * 4, "two updates for each frame of 16 KiB");
    }
}
