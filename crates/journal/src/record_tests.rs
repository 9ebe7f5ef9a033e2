use super::*;

const SEED: u32 = 99;

/// Three records in a segment of 256 bytes; gives it and the offset of the last record.
fn segment() -> (Vec<u8>, usize, usize) {
    let mut bytes = vec![0u8; 256];
    let (mut at, mut last) = (0, 0);
    for payload in [&b"first"[..], b"the second one", b"third and last record"] {
        bytes[at..at + 4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&sum(SEED, at, payload).to_le_bytes());
        bytes[at + 8..at + 8 + payload.len()].copy_from_slice(payload);
        (last, at) = (at, at + size(payload.len()));
    }
    (bytes, last, at)
}

/// Payloads that are whole, and how often something was not.
fn read_all(bytes: Vec<u8>) -> (Vec<Vec<u8>>, usize) {
    let (mut remains, mut whole, mut torn) = (Remains::new(bytes, 0, SEED), Vec::new(), 0);
    while let Some(read) = remains.read() {
        match read {
            Ok(payload) => whole.push(payload.to_vec()),
            Err(_) => torn += 1,
        }
    }
    assert!(remains.read().is_none(), "the end stays the end");
    (whole, torn)
}

#[test]
fn whole_records_are_read_and_the_rest_is_empty() {
    let (whole, torn) = read_all(segment().0);
    assert_eq!((whole.len(), torn), (3, 0));
}

#[test]
fn a_file_cut_short_anywhere_in_the_last_record_keeps_the_others() {
    let (bytes, last, _) = segment();
    let end = last + HEAD + b"third and last record".len();
    for cut in last..=end {
        let (whole, torn) = read_all(bytes[..cut].to_vec());
        let expected = if cut == end { (3, 0) } else { (2, usize::from(cut > last)) };
        assert_eq!((whole.len(), torn), expected, "cut at {cut}");
    }
}

#[test]
fn any_byte_of_the_last_record_left_zero_keeps_the_others() {
    let (bytes, last, _) = segment();
    let end = last + HEAD + b"third and last record".len();
    for from in last..end {
        let mut torn_bytes = bytes.clone();
        torn_bytes[from..].fill(0);
        let (whole, torn) = read_all(torn_bytes.clone());
        assert_eq!(whole.len(), 2, "zero from {from}");
        // Nothing at all is left of it when its first byte is gone.
        assert_eq!(torn, usize::from(from > last), "zero from {from}");
    }
}

#[test]
fn any_byte_of_the_last_record_changed_is_noticed() {
    let (bytes, last, _) = segment();
    let end = last + HEAD + b"third and last record".len();
    for at in last..end {
        for change in [0x01u8, 0x80, 0xff] {
            let mut wrong = bytes.clone();
            wrong[at] ^= change;
            let (whole, torn) = read_all(wrong);
            assert_eq!(whole.len(), 2, "{change:#x} at {at}");
            assert!(torn >= 1, "{change:#x} at {at}");
        }
    }
}

#[test]
fn a_torn_record_in_the_middle_does_not_hide_what_follows() {
    let (mut bytes, _, _) = segment();
    bytes[HEAD] ^= 1;
    assert_eq!(read_all(bytes).0.len(), 2);
}

#[test]
fn a_record_is_valid_only_where_it_was_written() {
    let (bytes, _, end) = segment();
    let moved: Vec<u8> = bytes[size(5)..end].to_vec();
    assert!(read_all(moved).0.is_empty());
}

#[test]
fn noise_is_survived() {
    let mut state = 1u64;
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..997)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if state >> 62 == 0 { (state >> 33) as u8 } else { 0 }
            })
            .collect();
        assert!(read_all(bytes).0.is_empty());
    }
}
