//! Buffers that sockets borrow while bytes are under way: an idle socket has none.

use std::cell::RefCell;

/// Large frames want large reads; a stopped reader costs one of these.
pub(crate) const SIZE: usize = 64 * 1024;
/// Buffers that a thread keeps when nobody has them.
const KEPT: usize = 16;

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`SIZE`] bytes, which hold anything. It goes back when it drops.
#[derive(Debug)]
pub(crate) struct Buffer(Box<[u8]>);

impl Buffer {
    pub(crate) fn take() -> Self {
        let kept = POOL.with_borrow_mut(Vec::pop);
        Self(kept.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()))
    }
}

impl From<Vec<u8>> for Buffer {
    /// Bytes that were put together elsewhere.
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into_boxed_slice())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.0);
        // At a thread's end there is no pool any more.
        let _ = POOL.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut()
                && pool.len() < KEPT
                && bytes.len() == SIZE
            {
                pool.push(bytes);
            }
        });
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
