//! Just enough HTTP/1.1 to read exact bytes.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The head of a request or an answer, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Request line or status line.
    pub start: String,
    /// Names in lower case, values trimmed, in order.
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Self { start, headers }
    }

    /// The values of a header, joined with `, `; `None` where there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        let values: Vec<&str> =
            self.headers.iter().filter(|(have, _)| have == name).map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// A word of the first line: method, target and version, or version, status and reason.
    #[must_use]
    pub fn word(&self, index: usize) -> &str {
        self.start.splitn(3, ' ').nth(index).unwrap_or_default()
    }

    pub(crate) fn framing(&self, answer: bool) -> Framing {
        if self.get("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return Framing::Chunked;
        }
        match self.get("content-length").and_then(|length| length.parse().ok()) {
            Some(length) => Framing::Length(length),
            None if answer => Framing::UntilEnd,
            None => Framing::Length(0),
        }
    }
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    UntilEnd,
}

/// Reads from a stream and keeps what it read too far.
#[derive(Debug)]
pub(crate) struct Reader {
    buffer: BytesMut,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self { buffer: BytesMut::new() }
    }

    /// More bytes; false at the end of the stream, a reset included.
    async fn more(&mut self, from: &mut (impl AsyncRead + Unpin)) -> bool {
        matches!(from.read_buf(&mut self.buffer).await, Ok(1..))
    }

    /// Everything up to and including `mark`; `None` when the stream ends before.
    pub(crate) async fn until(&mut self, from: &mut (impl AsyncRead + Unpin), mark: &[u8]) -> Option<Bytes> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, mark) {
                return Some(self.buffer.split_to(at + mark.len()).freeze());
            }
            if !self.more(from).await {
                return None;
            }
        }
    }

    pub(crate) async fn head(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Option<Head> {
        let bytes = self.until(from, b"\r\n\r\n").await?;
        Some(Head::parse(&bytes[..bytes.len() - 4]))
    }

    /// So many bytes, or fewer when the stream ends.
    pub(crate) async fn exact(&mut self, from: &mut (impl AsyncRead + Unpin), count: usize) -> Bytes {
        while self.buffer.len() < count && self.more(from).await {}
        let count = count.min(self.buffer.len());
        self.buffer.split_to(count).freeze()
    }

    pub(crate) async fn rest(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Bytes {
        while self.more(from).await {}
        self.buffer.split().freeze()
    }

    /// A whole body and its trailers; `None` when the stream ends before the body does.
    pub(crate) async fn body(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        framing: Framing,
    ) -> Option<(Bytes, Head)> {
        let none = Head { start: String::new(), headers: Vec::new() };
        match framing {
            Framing::Length(length) => {
                let body = self.exact(from, length).await;
                (body.len() == length).then_some((body, none))
            }
            Framing::UntilEnd => Some((self.rest(from).await, none)),
            Framing::Chunked => self.chunks(from).await,
        }
    }

    async fn chunks(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Option<(Bytes, Head)> {
        let mut body = BytesMut::new();
        loop {
            let line = self.until(from, b"\r\n").await?;
            let text = String::from_utf8_lossy(&line);
            let size = usize::from_str_radix(text.trim().split(';').next()?, 16).ok()?;
            if size == 0 {
                break;
            }
            let chunk = self.exact(from, size + 2).await;
            if chunk.len() < size + 2 {
                return None;
            }
            body.extend_from_slice(&chunk[..size]);
        }
        let mut trailers = Vec::from(*b"\r\n");
        loop {
            let line = self.until(from, b"\r\n").await?;
            if &line[..] == b"\r\n" {
                return Some((body.freeze(), Head::parse(&trailers)));
            }
            trailers.extend_from_slice(&line);
        }
    }
}
