//! Integers of variable length (RFC 9000, section 16).

use bytes::BufMut;

/// The longest one, in bytes.
pub(crate) const LONGEST: usize = 8;

/// Bytes that an integer has whose first byte is this.
pub(crate) fn length(first: u8) -> usize {
    1 << (first >> 6)
}

/// Reads an integer from the beginning of the bytes, and tells how many it took; `None` where it is not
/// whole.
pub(crate) fn read(bytes: &[u8]) -> Option<(u64, usize)> {
    let length = length(*bytes.first()?);
    let (first, rest) = bytes.get(..length)?.split_first()?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, length))
}

/// Writes one in as few bytes as it takes. What is larger than 62 bits does not occur here.
pub(crate) fn write(value: u64, out: &mut impl BufMut) {
    match value {
        0..=0x3f => out.put_uint(value, 1),
        0x40..=0x3fff => out.put_uint(value | 1 << 14, 2),
        0x4000..=0x3fff_ffff => out.put_uint(value | 2 << 30, 4),
        _ => out.put_uint((value & ((1 << 62) - 1)) | 3 << 62, 8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ] {
            assert_eq!(read(bytes), Some((value, bytes.len())));
            let mut out = Vec::new();
            write(value, &mut out);
            assert_eq!(out, bytes);
            for short in 0..bytes.len() {
                assert_eq!(read(&bytes[..short]), None);
            }
        }
        assert_eq!(read(&[0x40, 0x25]), Some((37, 2)), "longer than need be");
    }

    #[test]
    fn every_size_comes_back() {
        for value in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, (1 << 62) - 1] {
            let mut out = Vec::new();
            write(value, &mut out);
            assert_eq!(read(&out), Some((value, out.len())));
        }
    }
}
