//! The ends of a socket, in memory.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Says these pieces, one a read, and then that it has ended, or nothing; keeps what it hears.
#[derive(Debug)]
pub struct End {
    says: VecDeque<Vec<u8>>,
    ends: bool,
    heard: Rc<RefCell<Vec<u8>>>,
}

impl End {
    /// One end, and what it hears.
    #[must_use]
    pub fn new(says: &[&[u8]], ends: bool) -> (Self, Rc<RefCell<Vec<u8>>>) {
        let heard = Rc::new(RefCell::new(Vec::new()));
        let says = says.iter().filter(|piece| !piece.is_empty()).map(|piece| piece.to_vec()).collect();
        (Self { says, ends, heard: Rc::clone(&heard) }, heard)
    }
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.says.pop_front() {
            Some(mut piece) => {
                let behind = piece.split_off(piece.len().min(into.remaining()));
                into.put_slice(&piece);
                if !behind.is_empty() {
                    self.says.push_front(behind);
                }
                Poll::Ready(Ok(()))
            }
            None if self.ends => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.heard.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
