//! A caller's socket, with or without TLS, and what was read of it before it was known what is
//! spoken.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A socket of which bytes were read ahead.
#[derive(Debug)]
pub(crate) struct Socket {
    ahead: Bytes,
    pub(crate) tcp: TcpStream,
}

impl Socket {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { ahead: Bytes::new(), tcp }
    }

    /// These bytes come before all others.
    pub(crate) fn put_back(&mut self, ahead: impl Into<Bytes>) {
        self.ahead = ahead.into();
    }

    /// Whether there are bytes that were put back.
    pub(crate) fn has_ahead(&self) -> bool {
        self.ahead.has_remaining()
    }

    /// Bytes that were put back and not read since.
    pub(crate) fn take_ahead(&mut self) -> Bytes {
        std::mem::take(&mut self.ahead)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.has_remaining() {
            let bytes = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(bytes));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// What a caller's requests come over.
#[derive(Debug)]
pub(crate) enum Stream {
    /// In the clear.
    Plain(Socket),
    /// Over TLS, after the handshake.
    Tls(Box<TlsStream<Socket>>),
    /// In other hands.
    Gone,
}

impl Stream {
    /// Another handle of the socket.
    pub(crate) fn handle(&self) -> Option<OwnedFd> {
        let tcp = match self {
            Self::Plain(socket) => &socket.tcp,
            Self::Tls(stream) => &stream.get_ref().0.tcp,
            Self::Gone => return None,
        };
        tcp.as_fd().try_clone_to_owned().ok()
    }

    /// Writes as much as is taken at once.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if Pin::new(&mut *self).poll_write(&mut cx, bytes).is_ready() {
            let _ = Pin::new(self).poll_flush(&mut cx);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Gone => Poll::Ready(Ok(0)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}
