//! Field lines there and back.

use proptest::prelude::*;

use super::*;

fn lines(block: &[u8]) -> Result<Vec<(String, Vec<u8>)>, Undecodable> {
    let mut lines = Lines::of(Bytes::copy_from_slice(block))?;
    let mut out = Vec::new();
    while let Some(line) = lines.next()? {
        out.push(match line.field {
            Field::Known(name, value) => (name.to_string(), value.as_bytes().to_vec()),
            Field::Named(name, value) => (name.to_string(), value.to_vec()),
            Field::Pseudo(name, value) => (name.to_owned(), value.to_vec()),
            Field::Literal(name, value) => (String::from_utf8_lossy(&name).into_owned(), value.to_vec()),
        });
    }
    Ok(out)
}

fn encoded(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = BytesMut::new();
    begin(&mut out);
    for (name, value) in fields {
        line(name, value, false, &mut out);
    }
    out.to_vec()
}

#[test]
fn the_example_of_the_rfc() {
    // RFC 9204, appendix B.1.
    let block = [&[0, 0, 0x51, 0x0b][..], b"/index.html"].concat();
    assert_eq!(lines(&block).unwrap(), [(":path".to_owned(), b"/index.html".to_vec())]);
    assert_eq!(encoded(&[(":path", b"/index.html")]), block);
}

#[test]
fn each_line_of_the_static_table_takes_two_bytes_at_most() {
    for (index, (name, value)) in table::TABLE.iter().enumerate() {
        let block = encoded(&[(name, value.as_bytes())]);
        assert!(block.len() <= 4, "{index}: {name}: {value}");
        assert_eq!(lines(&block).unwrap(), [((*name).to_owned(), value.as_bytes().to_vec())]);
    }
    assert_eq!(table::TABLE.len(), 99);
    assert_eq!(table::TABLE[98], ("x-frame-options", "sameorigin"));
}

#[test]
fn sensitive_lines_are_marked_and_never_indexed() {
    let mut out = BytesMut::new();
    line("authorization", b"Bearer x", true, &mut out);
    assert_eq!(out[0] & 0xf0, 0x70);
    out.clear();
    line("x-api-key", b"x", true, &mut out);
    assert_eq!(out[0] & 0xf0, 0x30);
}

#[test]
fn whether_a_line_is_sensitive_comes_back() {
    for (name, value) in [("authorization", "Bearer x"), ("x-api-key", "x"), ("accept", "*/*")] {
        for sensitive in [true, false] {
            let mut out = BytesMut::new();
            begin(&mut out);
            line(name, value.as_bytes(), sensitive, &mut out);
            let read = Lines::of(out.freeze()).unwrap().next().unwrap().unwrap();
            assert_eq!(read.sensitive, sensitive, "{name}");
        }
    }
}

#[test]
fn what_needs_a_dynamic_table_is_an_error() {
    for bad in [
        &[][..],
        &[0],
        &[1, 0],
        &[0xff, 0, 0],
        &[0, 0x80],
        &[0, 0, 0x80],
        &[0, 0, 0x10],
        &[0, 0, 0x40, 1, b'x'],
        &[0, 0, 0x00, 1, b'x'],
        // No such line, and integers without end.
        &[0, 0, 0xff, 0x24],
        &[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        // Strings that are longer than the section.
        &[0, 0, 0x51, 2, b'/'],
        &[0, 0, 0x27, 0xff, 0xff, 0xff, 0x7f],
        &[0, 0, 0x51, 0x81, 0xff],
    ] {
        assert_eq!(lines(bad), Err(Undecodable), "{bad:x?}");
    }
}

proptest! {
    #[test]
    fn lines_come_back(fields in prop::collection::vec(("[a-z0-9:-]{1,200}", prop::collection::vec(any::<u8>(), 0..300)), 0..20)) {
        let fields: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        let back = lines(&encoded(&fields)).unwrap();
        let expected: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        prop_assert_eq!(back, expected);
    }

    #[test]
    fn integers_come_back(value in any::<u32>(), bits in 3_u32..8) {
        let mut out = BytesMut::new();
        put_integer(value as usize, bits, 0, &mut out);
        prop_assert_eq!(integer(&mut out.freeze(), bits).unwrap(), u64::from(value));
    }

    #[test]
    fn anything_is_read_or_refused(block in prop::collection::vec(any::<u8>(), 0..200)) {
        let block = [&[0, 0][..], &block].concat();
        let _ = lines(&block);
    }
}
