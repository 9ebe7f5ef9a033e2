//! Takes empty DATA frames out of what an HTTP/2 platform sends.
//!
//! Some platforms send them for signs of life. They mean nothing (RFC 9113, section 6.1), but h2 takes
//! a hundred of them, over the life of a connection and all its streams, for an attack.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Length, type, flags and stream.
const HEAD: usize = 9;
const DATA: u8 = 0;
/// Readers with less room than this in bytes, of which heads need some, are served from a buffer.
const LITTLE: usize = 64;

/// A stream without such frames.
#[derive(Debug)]
pub(crate) struct WithoutEmpty<S> {
    inner: S,
    /// Bytes until the next frame's head.
    skip: usize,
    /// A head of which not all has come.
    head: [u8; HEAD],
    filled: usize,
    /// What stays of a read whose reader had little room.
    out: BytesMut,
}

impl<S> WithoutEmpty<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, skip: 0, head: [0; HEAD], filled: 0, out: BytesMut::new() }
    }

    /// Takes them out of these bytes, the next ones of the connection; the number of those that stay. A
    /// head that is not whole goes into `head`; `bytes` begins with the one of last time.
    fn pass(&mut self, bytes: &mut [u8]) -> usize {
        self.filled = 0;
        let (mut from, mut to) = (0, 0);
        loop {
            let rest = bytes.len() - from;
            let skipped = self.skip.min(rest);
            if from != to {
                bytes.copy_within(from..from + skipped, to);
            }
            (from, to, self.skip) = (from + skipped, to + skipped, self.skip - skipped);
            let rest = bytes.len() - from;
            if self.skip > 0 || rest == 0 {
                return to;
            }
            if rest < HEAD {
                self.head[..rest].copy_from_slice(&bytes[from..]);
                self.filled = rest;
                return to;
            }
            let (length, kind, flags) = (&bytes[from..from + 3], bytes[from + 3], bytes[from + 4]);
            self.skip = usize::from(length[0]) << 16 | usize::from(length[1]) << 8 | usize::from(length[2]);
            if self.skip > 0 || kind != DATA || flags != 0 {
                bytes.copy_within(from..from + HEAD, to);
                to += HEAD;
            }
            from += HEAD;
        }
    }
}

impl<S: AsyncRead + Unpin> WithoutEmpty<S> {
    /// Reads once; false where nothing of it stays, though there may be more.
    fn poll_some(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let start = buf.filled().len();
        buf.put_slice(&self.head[..self.filled]);
        let held = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if !matches!(read, Poll::Ready(Ok(()))) || buf.filled().len() == held {
            // At the end what is held is no frame.
            buf.set_filled(start);
            return read.map_ok(|()| true);
        }
        let stays = self.pass(&mut buf.filled_mut()[start..]);
        buf.set_filled(start + stays);
        Poll::Ready(Ok(stays > 0))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WithoutEmpty<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.out.is_empty() {
                let bytes = this.out.len().min(buf.remaining());
                buf.put_slice(&this.out.split_to(bytes));
                return Poll::Ready(Ok(()));
            }
            if buf.remaining() >= LITTLE {
                if !ready!(this.poll_some(cx, buf)?) {
                    continue;
                }
                return Poll::Ready(Ok(()));
            }
            let mut small = [MaybeUninit::uninit(); LITTLE];
            let mut small = ReadBuf::uninit(&mut small);
            let over = ready!(this.poll_some(cx, &mut small)?);
            this.out.extend_from_slice(small.filled());
            if over && this.out.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WithoutEmpty<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// Gives these pieces, one with each read, as far as there is room.
    struct Pieces(VecDeque<Vec<u8>>);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let Some(mut piece) = self.0.pop_front() else { return Poll::Ready(Ok(())) };
            if piece.is_empty() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let rest = piece.split_off(piece.len().min(buf.remaining()));
            buf.put_slice(&piece);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
            Poll::Ready(Ok(()))
        }
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[tokio::test]
    async fn empty_data_is_taken_out_wherever_reads_cut_it() {
        let (mut sent, mut expected) = (Vec::new(), Vec::new());
        for (kind, flags, payload) in [
            (4, 0, &b""[..]),
            (0, 0, b""),
            (1, 4, b"\x88"),
            (0, 0, b""),
            (0, 0, b""),
            (0, 0, &[0; 300]),
            (0, 8, b"\0"),
            (0, 0, b""),
            (0, 1, b""),
            (6, 0, b"12345678"),
            (0, 0, b""),
        ] {
            let frame = frame(kind, flags, payload);
            if kind != 0 || flags != 0 || !payload.is_empty() {
                expected.extend_from_slice(&frame);
            }
            sent.extend(frame);
        }
        for size in (1..40).chain([1000]) {
            for room in [1, 2, 8, 9, 10, 63, 64, 4096] {
                let pieces = sent.chunks(size).flat_map(|piece| [piece.to_vec(), Vec::new()]).collect();
                let mut stream = WithoutEmpty::new(Pieces(pieces));
                let (mut all, mut buffer) = (Vec::new(), vec![0; room]);
                loop {
                    match stream.read(&mut buffer).await.unwrap() {
                        0 => break,
                        bytes => all.extend_from_slice(&buffer[..bytes]),
                    }
                }
                assert!(all == expected, "pieces of {size}, room for {room}");
            }
        }
    }
}
