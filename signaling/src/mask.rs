//! Masks (RFC 6455, section 5.3).

use std::cell::RefCell;

use aiproxy_core::websocket::fill;

/// Applies a mask whose first byte belongs to the payload's byte `at`.
pub(crate) fn apply(bytes: &mut [u8], mask: [u8; 4], at: u64) {
    let mut mask = mask;
    mask.rotate_left((at % 4) as usize);
    let word = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// A mask that nobody can foresee: from the operating system, fetched a few at a time.
pub(crate) fn fresh() -> [u8; 4] {
    thread_local! {
        static POOL: RefCell<Vec<[u8; 4]>> = const { RefCell::new(Vec::new()) };
    }
    POOL.with_borrow_mut(|pool| {
        if let Some(mask) = pool.pop() {
            return mask;
        }
        // One system call for many.
        let mut bytes = [0; 1024];
        fill(&mut bytes);
        pool.extend_from_slice(bytes.as_chunks::<4>().0);
        pool.pop().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_goes_on_where_it_stood() {
        let text: Vec<u8> = (0..100).collect();
        let mask = [1, 2, 4, 8];
        let expected: Vec<u8> = text.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
        for cut in 0..text.len() {
            let mut split = text.clone();
            let (head, tail) = split.split_at_mut(cut);
            apply(head, mask, 0);
            apply(tail, mask, cut as u64);
            assert_eq!(split, expected, "cut at {cut}");
        }
    }

    #[test]
    fn masks_differ() {
        let masks: std::collections::HashSet<_> = (0..1000).map(|_| fresh()).collect();
        assert!(masks.len() > 990);
    }
}
