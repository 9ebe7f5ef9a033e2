//! Frames wherever the bytes are cut.

use bytes::{BufMut as _, Bytes, BytesMut};
use proptest::prelude::*;

use super::{Frames, Part};
use crate::code::Code;
use crate::varint;

const LIMIT: usize = 1000;

fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    varint::write(kind, &mut out);
    varint::write(payload.len() as u64, &mut out);
    out.put_slice(payload);
    out.to_vec()
}

/// What comes of the bytes, data joined, cut into pieces of this size; whether the stream may end, and
/// the frames that said nothing.
fn parts(bytes: &[u8], size: usize) -> Result<(Vec<Part>, bool, i64), Code> {
    let mut frames = Frames::new(LIMIT);
    let mut out = Vec::new();
    for piece in bytes.chunks(size.max(1)) {
        let mut chunk = Bytes::copy_from_slice(piece);
        while let Some(part) = frames.next(&mut chunk)? {
            match (out.last_mut(), part) {
                (Some(Part::Data(have)), Part::Data(more)) => *have = [&have[..], &more[..]].concat().into(),
                (_, part) => out.push(part),
            }
        }
        assert!(chunk.is_empty());
    }
    Ok((out, frames.is_between(), frames.take_idle()))
}

#[test]
fn frames_are_found_wherever_the_bytes_are_cut() {
    let body = vec![7; 700];
    let unknown = vec![9; 5000];
    let bytes = [
        frame(0x21, b"grease"),
        frame(1, b"a head"),
        frame(0, b""),
        frame(0, &body),
        frame(0x4040, &unknown),
        frame(0x40, b""),
        frame(1, b"trailers"),
    ]
    .concat();
    let expected = [
        Part::Section(Bytes::from_static(b"a head")),
        Part::Data(body.into()),
        Part::Section(Bytes::from_static(b"trailers")),
    ];
    for size in [1, 2, 3, 7, 64, 1000, 100_000] {
        let (found, between, idle) = parts(&bytes, size).unwrap();
        assert_eq!(found, expected, "pieces of {size} bytes");
        assert_eq!((between, idle), (true, 4));
    }
}

#[test]
fn what_is_too_large_is_not_kept() {
    let mut bytes = BytesMut::new();
    varint::write(1, &mut bytes);
    varint::write((1 << 62) - 1, &mut bytes);
    bytes.put_bytes(0, 100_000);
    let (found, between, _) = parts(&bytes, 1500).unwrap();
    assert_eq!(found, [Part::TooLarge]);
    assert!(!between);
    assert_eq!(parts(&frame(1, &[0; LIMIT]), 99).unwrap().0.len(), 1);
    assert_eq!(parts(&frame(1, &[0; LIMIT + 1]), 99).unwrap().0, [Part::TooLarge]);
}

#[test]
fn frames_of_other_streams_and_of_http2_are_errors() {
    for kind in [2, 3, 4, 5, 6, 7, 8, 9, 0xd] {
        assert_eq!(parts(&frame(kind, b"x"), 9), Err(Code::FRAME_UNEXPECTED), "{kind:#x}");
    }
    assert!(parts(&frame(0xa, b"x"), 9).is_ok());
}

#[test]
fn an_end_within_a_frame_shows() {
    for bytes in [&[0_u8][..], &[0, 2, 7], &[1, 5, 1, 2], &[0x40], &[0x21, 3, 1]] {
        assert!(!parts(bytes, 9).unwrap().1, "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn anything_gives_the_same_in_one_piece_and_in_many(bytes in prop::collection::vec(any::<u8>(), 0..600), size in 1_usize..40) {
        let whole = parts(&bytes, bytes.len());
        match (whole, parts(&bytes, size)) {
            (Ok(whole), Ok(cut)) => prop_assert_eq!(whole, cut),
            (Err(one), Err(other)) => prop_assert_eq!(one, other),
            (one, other) => prop_assert!(false, "{:?} and {:?}", one, other),
        }
    }
}
