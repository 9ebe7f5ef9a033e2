//! A caller that sends exact bytes.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;

use crate::http1::{Framing, Head, Reader};
use crate::wait::within;
use crate::wire::Wire;

/// A connection on which a test writes and reads bytes.
#[derive(Debug)]
pub struct Raw {
    stream: Wire,
    reader: Reader,
}

/// An answer as it came.
#[derive(Debug)]
pub struct RawAnswer {
    /// Status code.
    pub status: u16,
    /// Head.
    pub head: Head,
    /// Body, chunks joined.
    pub body: Bytes,
    /// Trailers.
    pub trailers: Head,
}

impl RawAnswer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// When the connection is not accepted.
    pub async fn connect(to: SocketAddr) -> Self {
        Self::over(Wire::Plain(Wire::tcp(to).await))
    }

    /// On a stream that is there.
    #[must_use]
    pub fn over(stream: Wire) -> Self {
        Self { stream, reader: Reader::new() }
    }

    /// The stream itself.
    #[must_use]
    pub fn wire(&self) -> &Wire {
        &self.stream
    }

    /// Writes these bytes. A peer that has gone away is for the reader to find out.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within("bytes being taken", self.stream.write_all(bytes.as_ref())).await;
        let _ = within("bytes being taken", self.stream.flush()).await;
    }

    /// Reads the next answer; one of `1xx` or to a `HEAD` is only a head.
    ///
    /// # Panics
    /// When the connection ends before the answer does.
    pub async fn answer(&mut self) -> RawAnswer {
        self.read(false).await.expect("a whole answer")
    }

    /// Reads the next answer without a body, whatever its headers say.
    ///
    /// # Panics
    /// When the connection ends before the head does.
    pub async fn head(&mut self) -> RawAnswer {
        self.read(true).await.expect("a whole head")
    }

    async fn read(&mut self, only_head: bool) -> Option<RawAnswer> {
        within("an answer", async {
            let head = self.reader.head(&mut self.stream).await?;
            let status: u16 = head.word(1).parse().ok()?;
            let none = only_head || status < 200 || status == 204 || status == 304;
            let framing = if none { Framing::Length(0) } else { head.framing(true) };
            let (body, trailers) = self.reader.body(&mut self.stream, framing).await?;
            Some(RawAnswer { status, head, body, trailers })
        })
        .await
    }

    /// Everything until the other side closes or resets.
    pub async fn rest(&mut self) -> Bytes {
        within("the end of the connection", self.reader.rest(&mut self.stream)).await
    }

    /// Reads so many bytes, or fewer when the other side closes.
    pub async fn exact(&mut self, count: usize) -> Bytes {
        within("bytes", self.reader.exact(&mut self.stream, count)).await
    }

    /// Reads up to and including `mark`.
    ///
    /// # Panics
    /// When the connection ends before.
    pub async fn until(&mut self, mark: &[u8]) -> Bytes {
        within("bytes", self.reader.until(&mut self.stream, mark)).await.expect("the connection ended before")
    }

    /// Closes the sending side only.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let _ = self.stream.socket().set_zero_linger();
    }
}
