//! WebSocket frames as RFC 6455, section 5, describes them, all at once.

/// A frame, unmasked; of the last one perhaps only the beginning of its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The last of its message.
    pub fin: bool,
    /// Its kind.
    pub opcode: u8,
    /// What is there of its payload.
    pub payload: Vec<u8>,
    /// All of it is there.
    pub whole: bool,
}

/// Why there is no further frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// There are no more bytes, or not enough to tell.
    Bytes,
    /// A close frame was the last.
    Close,
    /// What follows is no frame that this side may send.
    Violation,
}

/// Bounds of payloads.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Of a frame.
    pub frame: u64,
    /// Of a message.
    pub message: u64,
}

/// The frames that these bytes begin with.
#[must_use]
pub fn parse(mut rest: &[u8], masked: bool, bounds: Bounds) -> (Vec<Frame>, End) {
    let mut frames: Vec<Frame> = Vec::new();
    let (mut under_way, mut length_of_message) = (false, 0_u64);
    loop {
        let Some((&first, after)) = rest.split_first() else { return (frames, End::Bytes) };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        let control = opcode >= 8;
        let fits = match opcode {
            0 => under_way,
            1 | 2 => !under_way,
            8..=10 => fin,
            _ => false,
        };
        if first & 0x70 != 0 || !fits {
            return (frames, End::Violation);
        }
        let Some((&second, after)) = after.split_first() else { return (frames, End::Bytes) };
        if (second & 0x80 != 0) != masked || (control && second & 0x7f > 125) {
            return (frames, End::Violation);
        }
        let size = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((long, after)) = after.split_at_checked(size) else { return (frames, End::Bytes) };
        let number = long.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let length = if size == 0 { u64::from(second & 0x7f) } else { number };
        let shortest = match size {
            2 => length > 125,
            8 => length > 0xffff && length < 1 << 63,
            _ => true,
        };
        let message: u64 = if control { length_of_message } else { length.saturating_add(length_of_message) };
        if !shortest
            || (opcode == 8 && length == 1)
            || (!control && (length > bounds.frame || message > bounds.message))
        {
            return (frames, End::Violation);
        }
        let Some((mask, after)) = after.split_at_checked(if masked { 4 } else { 0 }) else {
            return (frames, End::Bytes);
        };
        let here = after.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        let whole = here as u64 == length;
        // A control frame passes as one piece.
        if control && !whole {
            return (frames, End::Bytes);
        }
        let unmask = |(at, byte): (usize, &u8)| byte ^ mask.get(at % 4).copied().unwrap_or(0);
        let payload: Vec<u8> = after[..here].iter().enumerate().map(unmask).collect();
        if opcode == 8 && payload.len() > 1 {
            let code = u16::from_be_bytes([payload[0], payload[1]]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return (frames, End::Violation);
            }
        }
        frames.push(Frame { fin, opcode, payload, whole });
        if opcode == 8 {
            return (frames, End::Close);
        }
        if !control {
            (under_way, length_of_message) = if fin { (false, 0) } else { (true, message) };
        }
        rest = &after[here..];
    }
}

/// The messages of frames: what they say, and whether each is whole.
#[must_use]
pub fn messages(frames: &[Frame]) -> Vec<(Vec<u8>, bool)> {
    let mut messages = Vec::new();
    let mut said: Option<Vec<u8>> = None;
    for frame in frames.iter().filter(|frame| frame.opcode < 8) {
        said.get_or_insert_default().extend_from_slice(&frame.payload);
        if frame.fin && frame.whole {
            messages.extend(said.take().map(|said| (said, true)));
        }
    }
    messages.extend(said.map(|said| (said, false)));
    messages
}
