//! The first 64 bytes of a segment.
//!
//! ```text
//!  0.. 8  magic "AIPXJRNL"
//!  8..12  version, u32
//! 12..16  length of the segment, u32
//! 16..24  epoch of the process, u64: microseconds since 1970 at its start, rising
//! 24..32  created, u64: microseconds since 1970
//! 32..40  serial number within the process, u64
//! 40..44  CRC-32 of bytes 0..40; also the seed of the records' sums
//! 48..52  number of the writer, from 1; 0 = prepared but never used
//! 52..56  place among the writer's segments, from 0
//! 56..60  CRC-32 of bytes 40..56
//! ```
//! All little-endian. The first 44 bytes are written when the segment is made, the rest when a
//! writer takes it.

use crate::record::checksum;

/// Where records begin.
pub(crate) const LENGTH: usize = 64;
const MAGIC: &[u8; 8] = b"AIPXJRNL";
const VERSION: u32 = 1;

/// What a segment says of itself when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) length: u32,
    pub(crate) epoch: u64,
    pub(crate) created: u64,
    pub(crate) serial: u64,
}

/// Whose a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) writer: u32,
    pub(crate) place: u32,
}

/// What the beginning of a file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A segment; without an owner it was never used.
    Segment { header: Header, seed: u32, owner: Option<Owner> },
    /// Nothing but zeros: never synced before the power went.
    Blank,
    /// Written by a program of another version.
    Version(u32),
    /// Something else.
    Foreign,
}

impl Header {
    /// Writes the header; gives the seed for the records' sums.
    pub(crate) fn write(&self, bytes: &mut [u8]) -> u32 {
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.length.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.created.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.serial.to_le_bytes());
        let seed = checksum(&bytes[..40]);
        bytes[40..44].copy_from_slice(&seed.to_le_bytes());
        seed
    }
}

impl Owner {
    pub(crate) fn write(self, bytes: &mut [u8]) {
        bytes[48..52].copy_from_slice(&self.writer.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.place.to_le_bytes());
        let sum = checksum(&bytes[40..56]);
        bytes[56..60].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Reads a file's beginning.
pub(crate) fn read(bytes: &[u8]) -> Found {
    let Some(bytes) = bytes.first_chunk::<LENGTH>() else { return Found::Foreign };
    if bytes.iter().all(|byte| *byte == 0) {
        return Found::Blank;
    }
    if &bytes[..8] != MAGIC {
        return Found::Foreign;
    }
    let (version, seed) = (u32_at(bytes, 8), u32_at(bytes, 40));
    if version != VERSION {
        return Found::Version(version);
    }
    if checksum(&bytes[..40]) != seed {
        return Found::Foreign;
    }
    let header = Header {
        length: u32_at(bytes, 12),
        epoch: u64_at(bytes, 16),
        created: u64_at(bytes, 24),
        serial: u64_at(bytes, 32),
    };
    let owner = Owner { writer: u32_at(bytes, 48), place: u32_at(bytes, 52) };
    let stamped = checksum(&bytes[40..56]) == u32_at(bytes, 56);
    match (owner.writer, stamped) {
        (0, _) => Found::Segment { header, seed, owner: None },
        (_, true) => Found::Segment { header, seed, owner: Some(owner) },
        (_, false) => Found::Foreign,
    }
}

fn u32_at(bytes: &[u8; LENGTH], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8; LENGTH], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { length: 4096, epoch: 7, created: 8, serial: 9 };

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = [0u8; LENGTH];
        assert_eq!(read(&bytes), Found::Blank);
        let seed = HEADER.write(&mut bytes);
        assert_eq!(read(&bytes), Found::Segment { header: HEADER, seed, owner: None });
        let owner = Owner { writer: 3, place: 0 };
        owner.write(&mut bytes);
        assert_eq!(read(&bytes), Found::Segment { header: HEADER, seed, owner: Some(owner) });
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let mut bytes = [0u8; LENGTH];
        HEADER.write(&mut bytes);
        Owner { writer: 3, place: 1 }.write(&mut bytes);
        assert_eq!(read(&bytes[..63]), Found::Foreign);
        for (at, expected) in
            [(0, Found::Foreign), (8, Found::Version(0)), (20, Found::Foreign), (53, Found::Foreign)]
        {
            let mut wrong = bytes;
            wrong[at] ^= 1;
            assert_eq!(read(&wrong), expected, "byte {at}");
        }
    }
}
