use super::*;

const BOUNDS: Bounds = Bounds { frame: 1 << 20, message: 1 << 20 };

/// Walks the bytes in pieces of `step`; what was told, in one line each.
fn walk(sender: Sender, bytes: &[u8], step: usize) -> Result<Vec<String>, Violation> {
    let mut walker = Walker::new(sender, BOUNDS);
    let (mut told, mut have) = (Vec::new(), Vec::new());
    for chunk in bytes.chunks(step) {
        have.extend_from_slice(chunk);
        while !have.is_empty() {
            let taken = match walker.next(&have)? {
                Piece::Partial => break,
                Piece::Header(bytes) => {
                    told.push(format!("{:?}", walker.message_is_text()));
                    if walker.at_boundary() && walker.is_last() {
                        walker.message_ended();
                        told.push("end".into());
                    }
                    bytes
                }
                Piece::Payload { bytes, frame_ends } => {
                    if frame_ends && walker.is_last() {
                        walker.message_ended();
                        told.push("end".into());
                    }
                    bytes
                }
                Piece::Control(bytes) => {
                    told.push("control".into());
                    bytes
                }
                Piece::Close(bytes, code) => {
                    told.push(format!("close {code:?}"));
                    bytes
                }
            };
            have.drain(..taken);
        }
    }
    Ok(told)
}

#[test]
fn frames_are_followed_however_they_are_cut() {
    let mut bytes = b"\x01\x03abc\x89\x02hi\x80\x02de".to_vec();
    bytes.extend_from_slice(b"\x82\x7e\x00\x80");
    bytes.extend_from_slice(&[7; 128]);
    bytes.extend_from_slice(b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00");
    bytes.extend_from_slice(&vec![8; 65536]);
    bytes.extend_from_slice(b"\x81\x00\x8a\x00\x88\x05\x0f\xa1bye\x88\x00");
    let expected = [
        "Some(true)",
        "control",
        "Some(true)",
        "end",
        "Some(false)",
        "end",
        "Some(false)",
        "end",
        "Some(true)",
        "end",
        "control",
        "close Some(4001)",
        "close None",
    ];
    for step in [1, 2, 3, 5, 13, 131, 4096, 1 << 20] {
        assert_eq!(walk(Sender::Server, &bytes, step).unwrap(), expected, "step {step}");
    }
}

#[test]
fn what_is_no_frame_is_told_at_its_header() {
    use Violation::*;
    for (bytes, violation) in [
        (&b"\xc1\x00"[..], ReservedBits),
        (b"\xa1\x00", ReservedBits),
        (b"\x91\x00", ReservedBits),
        (b"\x83\x00", Opcode),
        (b"\x87\x00", Opcode),
        (b"\x8b\x00", Opcode),
        (b"\x8f\x00", Opcode),
        (b"\x09\x00", FragmentedControl),
        (b"\x08\x00", FragmentedControl),
        (b"\x89\x7e\x00\x7e", LongControl),
        (b"\x81\x80\x00\x00\x00\x00", Mask),
        (b"\x80\x00", Continuation),
        (b"\x01\x00\x81\x00", Continuation),
        (b"\x81\x7e\x00\x7d", Length),
        (b"\x81\x7f\x00\x00\x00\x00\x00\x00\xff\xff", Length),
        (b"\x81\x7f\x80\x00\x00\x00\x00\x01\x00\x00", Length),
        (b"\x88\x01x", CloseCode),
        (b"\x88\x02\x03\xe7", CloseCode),
        (b"\x88\x02\x03\xec", CloseCode),
        (b"\x88\x02\x03\xed", CloseCode),
        (b"\x88\x02\x03\xee", CloseCode),
        (b"\x88\x02\x03\xf7", CloseCode),
        (b"\x88\x02\x07\xd0", CloseCode),
        (b"\x88\x02\x13\x88", CloseCode),
        (b"\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x01", TooLarge),
    ] {
        for step in [1, 100] {
            assert_eq!(walk(Sender::Server, bytes, step), Err(violation), "{bytes:?}");
        }
    }
    assert_eq!(walk(Sender::Client, b"\x81\x00", 1), Err(Mask));
}

#[test]
fn a_message_is_bounded_over_all_its_frames() {
    let mut bytes = b"\x02\x7f\x00\x00\x00\x00\x00\x08\x00\x00".to_vec();
    bytes.extend_from_slice(&vec![0; 1 << 19]);
    let mut fits = bytes.clone();
    fits.extend_from_slice(b"\x80\x7f\x00\x00\x00\x00\x00\x08\x00\x00");
    assert!(walk(Sender::Server, &fits, 4096).is_ok());
    bytes.extend_from_slice(b"\x00\x7f\x00\x00\x00\x00\x00\x08\x00\x00");
    bytes.extend_from_slice(&vec![0; 1 << 19]);
    bytes.extend_from_slice(b"\x80\x01");
    assert_eq!(walk(Sender::Server, &bytes, 4096), Err(Violation::TooLarge));
}

#[test]
fn close_codes_are_read_through_masks() {
    for code in [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4000, 4999] {
        for sender in [Sender::Client, Sender::Server] {
            let frame = close(sender, code, "a reason");
            assert_eq!(walk(sender, &frame, 1).unwrap(), [format!("close Some({code})")]);
        }
    }
    assert!(close(Sender::Server, 1000, &"説".repeat(100)).len() <= 2 + 125);
}

/// Frames of a client, proper but for what `kinds` asks for.
fn frames(kinds: &[(u8, u16)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut open = false;
    for (kind, length) in kinds {
        let (first, length) = match kind % 4 {
            0 => (0x89, length % 126),
            1 => (0x8a, length % 126),
            _ => {
                let fin = kind % 3 == 0;
                let first = if open { 0 } else { 2 } | if fin { 0x80 } else { 0 };
                open = !fin;
                (first, *length)
            }
        };
        bytes.push(first);
        match length {
            0..=125 => bytes.push(0x80 | length as u8),
            _ => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&length.to_be_bytes());
            }
        }
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        bytes.extend((0..length).map(|at| at as u8));
    }
    bytes
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_walked_without_panic_and_none_twice(bytes: Vec<u8>, step in 1usize..300) {
        for sender in [Sender::Client, Sender::Server] {
            let _ = walk(sender, &bytes, step);
        }
    }

    #[test]
    fn proper_frames_are_told_the_same_however_they_are_cut(
        kinds in proptest::collection::vec((0u8..12, 0u16..2000), 0..12),
        step in 1usize..5000,
    ) {
        let bytes = frames(&kinds);
        let whole = walk(Sender::Client, &bytes, bytes.len().max(1));
        proptest::prop_assert!(whole.is_ok());
        proptest::prop_assert_eq!(walk(Sender::Client, &bytes, step), whole);
    }
}
