//! A message on its way out.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Uri};
use quinn::WriteError;

use crate::code::Code;
use crate::flood;
use crate::frames;
use crate::head;
use crate::shared::Shared;

/// Why a message is not sent any further.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Gone {
    /// The other side wants no more of it, with this error code.
    #[error("the other side stopped reading, with error {0:#x}")]
    Stopped(u64),
    /// The connection ended.
    #[error("the connection ended: {0}")]
    Closed(quinn::ConnectionError),
}

impl From<WriteError> for Gone {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Stopped(code.into_inner()),
            WriteError::ConnectionLost(error) => Self::Closed(error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => {
                Self::Closed(quinn::ConnectionError::LocallyClosed)
            }
        }
    }
}

/// The sending half of a request stream. Dropped before its end, it tells the other side so.
#[derive(Debug)]
pub struct Sender {
    send: quinn::SendStream,
    shared: Rc<Shared>,
    /// What the other side is told when it is dropped.
    parting: Code,
    over: bool,
}

impl Sender {
    pub(crate) fn new(send: quinn::SendStream, shared: Rc<Shared>, parting: Code) -> Self {
        Self { send, shared, parting, over: false }
    }

    /// Sends an answer's head.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn answer(&mut self, status: StatusCode, headers: &HeaderMap) -> Result<(), Gone> {
        let mut block = BytesMut::with_capacity(512);
        head::encode_response(status, headers, &mut block);
        self.write(&mut [frames::section(&block)]).await
    }

    pub(crate) async fn request(
        &mut self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Gone> {
        let mut block = BytesMut::with_capacity(512);
        head::encode_request(method, uri, headers, &mut block);
        self.write(&mut [frames::section(&block)]).await
    }

    /// Sends a piece of the body, and returns when QUIC has taken it: that is, as fast as the other side
    /// reads.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn data(&mut self, data: Bytes) -> Result<(), Gone> {
        if data.is_empty() {
            return Ok(());
        }
        self.write(&mut [frames::data_head(data.len()), data]).await
    }

    /// Sends trailers.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn trailers(&mut self, trailers: &HeaderMap) -> Result<(), Gone> {
        let mut block = BytesMut::new();
        head::encode_trailers(trailers, &mut block);
        self.write(&mut [frames::section(&block)]).await
    }

    async fn write(&mut self, pieces: &mut [Bytes]) -> Result<(), Gone> {
        self.send.write_all_chunks(pieces).await.map_err(|error| {
            self.over = true;
            error.into()
        })
    }

    /// The message is whole.
    pub fn finish(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            let _ = self.send.finish();
            self.shared.earn(flood::ANSWERED);
        }
    }

    /// The message ends before its end.
    pub fn reset(&mut self, code: Code) {
        if !std::mem::replace(&mut self.over, true) {
            let _ = self.send.reset(code.wire());
        }
    }

    /// Ends when the other side wants no more, with what then follows; or when it has all of a
    /// [`finish`](Self::finish)ed message.
    pub fn stopped(&self) -> impl Future<Output = Stopped> + use<> {
        let stopped = self.send.stopped();
        async move {
            match stopped.await {
                Ok(None) => Stopped::HasAll,
                Ok(Some(code)) => Stopped::Left(code.into_inner()),
                Err(_) => Stopped::Closed,
            }
        }
    }

    /// The other side has left before its answer was whole: that was work for nothing.
    pub fn charge(&self) {
        self.shared.pay(flood::RESET);
    }

    /// Whether the connection is still open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shared.quic.close_reason().is_none()
    }
}

/// What became of a message that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The other side has all of it.
    HasAll,
    /// It wants no more, with this error code.
    Left(u64),
    /// The connection has ended.
    Closed,
}

impl From<Stopped> for Gone {
    /// Of a message that was not whole.
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Left(code) => Self::Stopped(code),
            Stopped::HasAll | Stopped::Closed => Self::Closed(quinn::ConnectionError::LocallyClosed),
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // QUIC would say that what was sent is all there is.
        self.reset(self.parting);
    }
}
