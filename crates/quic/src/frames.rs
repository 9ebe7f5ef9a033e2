//! Frames of a request stream, found in bytes as they come. Pure.
//!
//! Data is passed on as it is; a field section is collected as long as it is within its limit; what is
//! not known is skipped without being kept, however long it says that it is.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::code::Code;
use crate::varint;

const DATA: u64 = 0x0;
const HEADERS: u64 = 0x1;
/// The longest type and length together.
const LONGEST_HEAD: usize = 2 * varint::LONGEST;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A whole field section.
    Section(Bytes),
    /// A field section that is larger than allowed: nothing of it is kept.
    TooLarge,
    /// A piece of the body; an empty one where a frame has no data, which is not allowed everywhere either.
    Data(Bytes),
}

/// Finds the frames of one stream.
#[derive(Debug)]
pub(crate) struct Frames {
    state: State,
    /// Bytes of a field section.
    limit: usize,
    /// Frames that said nothing: unknown, or without data.
    idle: i64,
}

#[derive(Debug)]
enum State {
    Head { bytes: [u8; LONGEST_HEAD], filled: usize },
    Section { missing: usize, kept: BytesMut },
    Data(u64),
    Skip(u64),
}

impl State {
    const BETWEEN: Self = Self::Head { bytes: [0; LONGEST_HEAD], filled: 0 };
}

impl Frames {
    /// At the beginning of a stream.
    pub(crate) fn new(limit: usize) -> Self {
        Self { state: State::BETWEEN, limit, idle: 0 }
    }

    /// Whether the stream may end here: not within a frame.
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.state, State::Head { filled: 0, .. })
    }

    /// Frames that said nothing since this was asked last.
    pub(crate) fn take_idle(&mut self) -> i64 {
        std::mem::take(&mut self.idle)
    }

    /// Takes what it needs from the chunk; `None` where nothing is left of it.
    ///
    /// # Errors
    /// A frame that no request stream may have ends the connection.
    pub(crate) fn next(&mut self, chunk: &mut Bytes) -> Result<Option<Part>, Code> {
        while !chunk.is_empty() {
            let (state, part) = match std::mem::replace(&mut self.state, State::BETWEEN) {
                State::Head { mut bytes, mut filled } => {
                    let taken = chunk.len().min(LONGEST_HEAD - filled);
                    bytes[filled..filled + taken].copy_from_slice(&chunk[..taken]);
                    filled += taken;
                    match head(&bytes[..filled]) {
                        None => {
                            chunk.advance(taken);
                            (State::Head { bytes, filled }, None)
                        }
                        Some((kind, length, size)) => {
                            chunk.advance(size - (filled - taken));
                            self.begin(kind, length)?
                        }
                    }
                }
                State::Section { missing, kept } => collect(missing, kept, chunk),
                State::Data(left) => {
                    let now = left.min(chunk.len() as u64);
                    let data = chunk.split_to(usize::try_from(now).unwrap_or(chunk.len()));
                    (State::Data(left - now).unless_over(), Some(Part::Data(data)))
                }
                State::Skip(left) => {
                    let now = left.min(chunk.len() as u64);
                    chunk.advance(usize::try_from(now).unwrap_or(chunk.len()));
                    (State::Skip(left - now).unless_over(), None)
                }
            };
            self.state = state;
            if part.is_some() {
                return Ok(part);
            }
        }
        Ok(None)
    }

    fn begin(&mut self, kind: u64, length: u64) -> Result<(State, Option<Part>), Code> {
        Ok(match kind {
            DATA if length == 0 => {
                self.idle += 1;
                (State::BETWEEN, Some(Part::Data(Bytes::new())))
            }
            DATA => (State::Data(length), None),
            HEADERS => match usize::try_from(length) {
                Ok(0) => (State::BETWEEN, Some(Part::Section(Bytes::new()))),
                Ok(missing) if missing <= self.limit => {
                    (State::Section { missing, kept: BytesMut::new() }, None)
                }
                _ => (State::Skip(length), Some(Part::TooLarge)),
            },
            // CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID, and what HTTP/2 had (section 7.2.8).
            0x2..=0x9 | 0xd => return Err(Code::FRAME_UNEXPECTED),
            _ => {
                self.idle += 1;
                (State::Skip(length).unless_over(), None)
            }
        })
    }
}

impl State {
    fn unless_over(self) -> Self {
        match self {
            Self::Data(0) | Self::Skip(0) => Self::BETWEEN,
            other => other,
        }
    }
}

/// A section that lies in one chunk is a part of it; only one that is torn is copied.
fn collect(missing: usize, mut kept: BytesMut, chunk: &mut Bytes) -> (State, Option<Part>) {
    let now = chunk.split_to(missing.min(chunk.len()));
    if now.len() == missing {
        if kept.is_empty() {
            return (State::BETWEEN, Some(Part::Section(now)));
        }
        kept.extend_from_slice(&now);
        return (State::BETWEEN, Some(Part::Section(kept.freeze())));
    }
    kept.extend_from_slice(&now);
    (State::Section { missing: missing - now.len(), kept }, None)
}

/// Type, length, and how many bytes say so.
fn head(bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let (kind, first) = varint::read(bytes)?;
    let (length, second) = varint::read(&bytes[first..])?;
    Some((kind, length, first + second))
}

/// The beginning of a DATA frame of so many bytes.
pub(crate) fn data_head(length: usize) -> Bytes {
    frame_head(DATA, length)
}

/// A HEADERS frame around an encoded field section.
pub(crate) fn section(block: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(block.len() + LONGEST_HEAD);
    varint::write(HEADERS, &mut out);
    varint::write(block.len() as u64, &mut out);
    out.put_slice(block);
    out.freeze()
}

fn frame_head(kind: u64, length: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(LONGEST_HEAD);
    varint::write(kind, &mut out);
    varint::write(length as u64, &mut out);
    out.freeze()
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
