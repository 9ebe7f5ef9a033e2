//! QPACK (RFC 9204) without a dynamic table: what it would save is little beside a request's body, and
//! what it costs is memory that a peer fills and requests that wait for each other.
//!
//! - `huffman`: the code of strings
//! - `table`: the static table

mod huffman;
mod table;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderName, HeaderValue};

/// Why a field section cannot be decoded: the two ends do not agree, and the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Undecodable;

/// One field line.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) field: Field,
    /// Whether nobody further on may keep it in a table either (section 4.5.4).
    pub(crate) sensitive: bool,
}

/// What a line says.
#[derive(Debug)]
pub(crate) enum Field {
    /// A line of the static table that is a header.
    Known(HeaderName, HeaderValue),
    /// A header of a known name.
    Named(HeaderName, Bytes),
    /// A pseudo-header of the static table, its colon included.
    Pseudo(&'static str, Bytes),
    /// Name and value as they came.
    Literal(Bytes, Bytes),
}

impl Field {
    /// What it counts (RFC 9114, section 4.2.2).
    pub(crate) fn size(&self) -> usize {
        32 + match self {
            Self::Known(name, value) => name.as_str().len() + value.len(),
            Self::Named(name, value) => name.as_str().len() + value.len(),
            Self::Pseudo(name, value) => name.len() + value.len(),
            Self::Literal(name, value) => name.len() + value.len(),
        }
    }
}

/// Reads a field section line by line.
#[derive(Debug)]
pub(crate) struct Lines(Bytes);

impl Lines {
    /// At the beginning of a section.
    pub(crate) fn of(mut block: Bytes) -> Result<Self, Undecodable> {
        let required = integer(&mut block, 8)?;
        let below = block.first().is_some_and(|first| first & 0x80 != 0);
        let _base = integer(&mut block, 7)?;
        // A dynamic table that we do not have, or a base below the first entry that one could have
        // (section 4.5.1.2). Any other base is as good as none.
        if required != 0 || below { Err(Undecodable) } else { Ok(Self(block)) }
    }

    /// The next line; `None` at the end. A string is no longer than the rest of the section, or twice that
    /// where it is compressed.
    pub(crate) fn next(&mut self) -> Result<Option<Line>, Undecodable> {
        let Some(first) = self.0.first().copied() else { return Ok(None) };
        let block = &mut self.0;
        let (field, sensitive) = match first {
            // Indexed, static.
            0xc0.. => (known(integer(block, 6)?, None)?, false),
            // A literal with a name of the static table.
            0x50..=0x5f | 0x70..=0x7f => {
                let index = integer(block, 4)?;
                let value = string(block, 7)?;
                (known(index, Some(value))?, first & 0x20 != 0)
            }
            // A literal.
            0x20..=0x3f => {
                let name = string(block, 3)?;
                let value = string(block, 7)?;
                (Field::Literal(name, value), first & 0x10 != 0)
            }
            // All else means the dynamic table.
            _ => return Err(Undecodable),
        };
        Ok(Some(Line { field, sensitive }))
    }
}

fn known(index: u64, value: Option<Bytes>) -> Result<Field, Undecodable> {
    let index = usize::try_from(index).map_err(|_| Undecodable)?;
    let (name, usual) = table::TABLE.get(index).ok_or(Undecodable)?;
    Ok(match (&table::HEADERS[index], value) {
        (Some((name, usual)), None) => Field::Known(name.clone(), usual.clone()),
        (Some((name, _)), Some(value)) => Field::Named(name.clone(), value),
        (None, value) => Field::Pseudo(name, value.unwrap_or(Bytes::from_static(usual.as_bytes()))),
    })
}

/// An integer behind a prefix of so many bits (RFC 7541, section 5.1). Nine bytes more say all of 62 bits,
/// which is what must be understood (RFC 9204, section 4.1.1).
fn integer(block: &mut Bytes, bits: u32) -> Result<u64, Undecodable> {
    let most = (1_u64 << bits) - 1;
    let first = u64::from(byte(block)?) & most;
    if first < most {
        return Ok(first);
    }
    let mut value = most;
    for place in 0..9 {
        let more = u64::from(byte(block)?);
        value += (more & 0x7f) << (7 * place);
        if more & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Undecodable)
}

/// A string behind a flag that says whether it is compressed, and a prefix of so many bits.
fn string(block: &mut Bytes, bits: u32) -> Result<Bytes, Undecodable> {
    let compressed = block.first().ok_or(Undecodable)? >> bits & 1 == 1;
    let length = usize::try_from(integer(block, bits)?).map_err(|_| Undecodable)?;
    if length > block.len() {
        return Err(Undecodable);
    }
    let text = block.split_to(length);
    if !compressed {
        return Ok(text);
    }
    huffman::decode(&text).map(Bytes::from).ok_or(Undecodable)
}

fn byte(block: &mut Bytes) -> Result<u8, Undecodable> {
    if block.is_empty() { Err(Undecodable) } else { Ok(block.get_u8()) }
}

/// What every section of ours begins with: it needs no dynamic table.
pub(crate) fn begin(out: &mut BytesMut) {
    out.put_slice(&[0, 0]);
}

/// Writes one line. A sensitive one asks to be kept out of tables further on (section 4.5.4).
pub(crate) fn line(name: &str, value: &[u8], sensitive: bool, out: &mut BytesMut) {
    match table::find(name, value) {
        Some((_, Some(whole))) if !sensitive => put_integer(whole, 6, 0xc0, out),
        Some((first, _)) => {
            put_integer(first, 4, if sensitive { 0x70 } else { 0x50 }, out);
            put_string(value, out);
        }
        None => {
            put_integer(name.len(), 3, if sensitive { 0x30 } else { 0x20 }, out);
            out.put_slice(name.as_bytes());
            put_string(value, out);
        }
    }
}

/// As it is: compressing it takes longer than sending it.
fn put_string(text: &[u8], out: &mut BytesMut) {
    put_integer(text.len(), 7, 0, out);
    out.put_slice(text);
}

fn put_integer(value: usize, bits: u32, flags: u8, out: &mut BytesMut) {
    let most = (1_usize << bits) - 1;
    if value < most {
        out.put_u8(flags | low(value));
        return;
    }
    out.put_u8(flags | low(most));
    let mut rest = value - most;
    while rest >= 0x80 {
        out.put_u8(0x80 | low(rest & 0x7f));
        rest >>= 7;
    }
    out.put_u8(low(rest));
}

/// What fits into a byte, of a number that does.
fn low(value: usize) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
