//! Frames (RFC 6455, section 5), followed in the buffers that they pass in.
//!
//! No socket and no clock: bytes in, places out. A [`Walker`] knows at each byte whether it belongs
//! to a header, a data frame's payload or a control frame, and says so piece by piece. Payload is
//! never copied. A control frame is one piece: it is at most 131 bytes long, and its sender sent it
//! at once.

use crate::mask;

/// Who sends the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// Its frames are masked.
    Client,
    /// Its are not.
    Server,
}

/// What no frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    ReservedBits,
    Opcode,
    /// Not in the shortest form, or beyond 2^63.
    Length,
    /// A control frame in fragments.
    FragmentedControl,
    /// A control frame of more than 125 bytes.
    LongControl,
    /// Masked by a server, or not masked by a client.
    Mask,
    /// A continuation of nothing, or a message within a message.
    Continuation,
    /// A close frame with half a code, or a code that must not be sent.
    CloseCode,
    /// Larger than the bounds say: 1009 instead of 1002.
    TooLarge,
}

/// The next piece of what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// More bytes are needed to tell: nothing of what is left may pass.
    Partial,
    /// A data frame's header of so many bytes.
    Header(usize),
    /// So many bytes of a data frame's payload.
    Payload {
        bytes: usize,
        /// The frame ends with them.
        frame_ends: bool,
    },
    /// A ping or pong of so many bytes.
    Control(usize),
    /// A close frame of so many bytes, with its code.
    Close(usize, Option<u16>),
}

/// Bounds of frames and messages, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) frame: u64,
    pub(crate) message: u64,
}

/// Follows one direction.
#[derive(Debug)]
pub(crate) struct Walker {
    sender: Sender,
    bounds: Bounds,
    /// Payload of the data frame under way that is still to come.
    left: u64,
    /// Payload of it that has passed.
    passed: u64,
    /// Of the data frame under way.
    mask: [u8; 4],
    fin: bool,
    /// A message is under way; whether it is text.
    message: Option<bool>,
    /// Bytes of the message under way, the frame under way included.
    length: u64,
}

impl Walker {
    pub(crate) fn new(sender: Sender, bounds: Bounds) -> Self {
        Self { sender, bounds, left: 0, passed: 0, mask: [0; 4], fin: true, message: None, length: 0 }
    }

    /// Whether the next byte begins a frame.
    pub(crate) fn at_boundary(&self) -> bool {
        self.left == 0
    }

    /// The mask of the data frame under way, and which byte of its payload is next.
    pub(crate) fn mask(&self) -> ([u8; 4], u64) {
        (self.mask, self.passed)
    }

    /// Whether the message under way is text; none between messages.
    pub(crate) fn message_is_text(&self) -> Option<bool> {
        self.message
    }

    /// Whether the frame under way, or the one that has just ended, is the last of its message.
    pub(crate) fn is_last(&self) -> bool {
        self.fin
    }

    /// The message under way has ended; to be called when its last frame has.
    pub(crate) fn message_ended(&mut self) {
        self.message = None;
        self.length = 0;
    }

    /// What the beginning of these bytes is; never empty-handed where there is a byte.
    ///
    /// # Errors
    /// See [`Violation`]; the bytes before have been told and stand.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Result<Piece, Violation> {
        if self.left > 0 {
            let here = self.left.min(bytes.len() as u64);
            self.left -= here;
            self.passed += here;
            return Ok(Piece::Payload { bytes: here as usize, frame_ends: self.left == 0 });
        }
        let Some((&first, rest)) = bytes.split_first() else { return Ok(Piece::Partial) };
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        match (opcode, self.message) {
            (0x3..=0x7 | 0xb..=0xf, _) => return Err(Violation::Opcode),
            (0x8..=0xa, _) if !fin => return Err(Violation::FragmentedControl),
            (0x0, None) | (0x1 | 0x2, Some(_)) => return Err(Violation::Continuation),
            _ => {}
        }
        let Some(&second) = rest.first() else { return Ok(Piece::Partial) };
        let masked = second & 0x80 != 0;
        if masked != (self.sender == Sender::Client) {
            return Err(Violation::Mask);
        }
        let short = second & 0x7f;
        let control = opcode >= 0x8;
        if control && short > 125 {
            return Err(Violation::LongControl);
        }
        let (length, at) = match short {
            126 => match bytes.get(2..4) {
                Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
                _ => return Ok(Piece::Partial),
            },
            127 => match bytes.get(2..10).and_then(|bytes| bytes.first_chunk::<8>()) {
                Some(bytes) => (u64::from_be_bytes(*bytes), 10),
                None => return Ok(Piece::Partial),
            },
            short => (u64::from(short), 2),
        };
        if (short == 126 && length < 126) || (short == 127 && (length <= 0xffff || length > i64::MAX as u64))
        {
            return Err(Violation::Length);
        }
        let header = at + if masked { 4 } else { 0 };
        if control {
            return self.control(bytes, opcode, header, length as usize);
        }
        let message = self.length.saturating_add(length);
        if length > self.bounds.frame || message > self.bounds.message {
            return Err(Violation::TooLarge);
        }
        if bytes.len() < header {
            return Ok(Piece::Partial);
        }
        self.mask = bytes[..header].last_chunk::<4>().filter(|_| masked).copied().unwrap_or_default();
        (self.left, self.passed, self.fin, self.length) = (length, 0, fin, message);
        if opcode != 0x0 {
            self.message = Some(opcode == 0x1);
        }
        Ok(Piece::Header(header))
    }

    fn control(&self, bytes: &[u8], opcode: u8, header: usize, length: usize) -> Result<Piece, Violation> {
        let whole = header + length;
        if opcode == 0x8 && length == 1 {
            return Err(Violation::CloseCode);
        }
        let Some(frame) = bytes.get(..whole) else { return Ok(Piece::Partial) };
        if opcode != 0x8 {
            return Ok(Piece::Control(whole));
        }
        let Some(&(mut code)) = frame[header..].first_chunk::<2>() else {
            return Ok(Piece::Close(whole, None));
        };
        if self.sender == Sender::Client {
            let key = frame[..header].last_chunk::<4>().copied().unwrap_or_default();
            mask::apply(&mut code, key, 0);
        }
        let code = u16::from_be_bytes(code);
        if may_be_sent(code) { Ok(Piece::Close(whole, Some(code))) } else { Err(Violation::CloseCode) }
    }
}

/// Whether a close code may stand in a frame: those of RFC 6455, section 7.4, that are no mere words
/// for what an endpoint saw (1005, 1006, 1015), those registered since, and those of libraries (3000)
/// and applications (4000).
pub(crate) fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Appends the header of a whole message in one frame.
pub(crate) fn header(out: &mut Vec<u8>, sender: Sender, text: bool, length: u64, key: [u8; 4]) {
    let masked = if sender == Sender::Client { 0x80 } else { 0 };
    out.push(if text { 0x81 } else { 0x82 });
    match length {
        0..=125 => out.push(masked | length as u8),
        126..=0xffff => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    if masked != 0 {
        out.extend_from_slice(&key);
    }
}

/// A text message of a client in one frame.
pub(crate) fn text(mut message: Vec<u8>) -> Vec<u8> {
    let key = mask::fresh();
    let mut frame = Vec::with_capacity(message.len() + 14);
    header(&mut frame, Sender::Client, true, message.len() as u64, key);
    mask::apply(&mut message, key, 0);
    frame.extend_from_slice(&message);
    frame
}

/// The pong that a server answers to this whole control frame of a client, if it is a ping.
pub(crate) fn pong(frame: &[u8]) -> Option<Vec<u8>> {
    let (header, payload) = frame.split_at_checked(6).filter(|_| frame[0] & 0x0f == 0x9)?;
    let mut pong = vec![0x8a, header[1] & 0x7f];
    pong.extend_from_slice(payload);
    let key = header.last_chunk::<4>().copied().unwrap_or_default();
    mask::apply(&mut pong[2..], key, 0);
    Some(pong)
}

/// A close frame with this code and reason.
pub(crate) fn close(sender: Sender, code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(123)]);
    let mut frame = vec![0x88, payload.len() as u8];
    if sender == Sender::Client {
        let key = mask::fresh();
        mask::apply(&mut payload, key, 0);
        frame[1] |= 0x80;
        frame.extend_from_slice(&key);
    }
    frame.extend_from_slice(&payload);
    frame
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
