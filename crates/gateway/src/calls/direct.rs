//! Calls whose media does not come here: a socket of our own to the platform's events says what is used
//! and when the call ends, and hanging up ends it.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aiproxy_core::ErrorKind;
use aiproxy_core::ports::{
    CallCause, CallEnd, CallTerms, CallUse, PortFuture, ReadModels, Side, SocketCause, SocketLimits, Sockets,
};
use aiproxy_core::{CallFigures, websocket};
use aiproxy_registry::calls::Call;
use aiproxy_upstream::{Handshake, Slot};
use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::own_headers;
use super::session::{NO_KEY, Watching};
use crate::phases::Core;
use crate::switch;

/// Without a word for so long a session has ended: platforms end theirs after an hour or two.
const IDLE: Duration = Duration::from_secs(3 * 60 * 60);

/// Listens to a call's events.
///
/// # Errors
/// Why that is not possible: the call could be neither cut nor metered then.
pub(crate) async fn listen(
    core: &Core,
    slot: &Rc<Slot>,
    path: &str,
    call: &Call,
    terms: CallTerms,
) -> Result<PortFuture<'static, CallEnd>, ErrorKind> {
    let (Some(handler), Some(id)) = (&core.upgrades, &call.platform_id) else {
        return Err(ErrorKind::UpstreamProtocol);
    };
    let base = path.trim_end_matches('/');
    let base = base.strip_suffix("/calls").unwrap_or(base);
    let prepared = slot.prepared();
    let query = format!("call_id={id}");
    let uri = prepared
        .socket_target(base, Some(&query), NO_KEY, |_| true)
        .map_err(|_| ErrorKind::UpstreamProtocol)?;
    let mut protocols = prepared.protocols(&[], NO_KEY);
    if protocols.is_empty() && prepared.key_is_protocol() {
        protocols.push("realtime");
    }
    let key = websocket::fresh_key();
    let mut headers = own_headers();
    prepared.swap_handshake(&mut headers, NO_KEY, &key, &protocols);
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let (stream, ahead) = match slot.handshake(request, &key).await {
        Ok(Handshake::Open { stream, ahead, .. }) => (stream, ahead),
        Ok(Handshake::Refused { head, .. }) => {
            tracing::warn!(status = head.status.as_u16(), "the platform does not show the events of a call");
            return Err(ErrorKind::UpstreamProtocol);
        }
        Err(error) => {
            tracing::warn!(%error, "the events of a call cannot be reached");
            return Err(ErrorKind::UpstreamUnreachable);
        }
    };
    terms.guard.connected();
    let system = &core.registry.snapshot().system;
    let report = system.journal.as_ref().map(|journal| journal.session_interval);
    let relaying = handler.relay(Sockets {
        caller: Box::new(Silent::default()),
        caller_ahead: Bytes::new(),
        platform: stream,
        platform_ahead: ahead,
        prelude: None,
        remask: true,
        limits: SocketLimits { report, ..switch::limits(&system.limits, IDLE, None) },
        metered: terms.metered,
        models: ReadModels::Never,
        edit: None,
        guard: Box::new(Watching(terms.guard)),
    });
    let began = Instant::now();
    Ok(Box::pin(async move {
        let end = relaying.await;
        let figures =
            CallFigures { setup: Some(Duration::ZERO), connected: began.elapsed(), ..CallFigures::default() };
        let cause = match end.cause {
            SocketCause::Ordered(order) => CallCause::Ordered(order),
            SocketCause::Idle => CallCause::Idle,
            SocketCause::Total => CallCause::Total,
            _ => CallCause::Closed(Side::Platform),
        };
        CallEnd { cause, used: CallUse { figures, usage: end.used.usage, model: end.used.model } }
    }))
}

/// A side that takes everything and says nothing but goodbye: a close frame is answered, or the socket
/// would wait for that.
#[derive(Default)]
struct Silent {
    /// Begin of a frame, until its length is known.
    head: Vec<u8>,
    /// Bytes of the frame that are still to come.
    rest: u64,
    closing: Closing,
    reader: Option<Waker>,
}

#[derive(Default, PartialEq, Eq)]
enum Closing {
    #[default]
    Open,
    Asked,
    Answered,
}

/// A close frame without a code, masked with nothing.
const GOODBYE: [u8; 6] = [0x88, 0x80, 0, 0, 0, 0];

impl Silent {
    fn hear(&mut self, mut bytes: &[u8]) {
        while let [first, tail @ ..] = bytes {
            if self.rest > 0 {
                let passed = bytes.len().min(usize::try_from(self.rest).unwrap_or(usize::MAX));
                self.rest -= passed as u64;
                bytes = &bytes[passed..];
                continue;
            }
            self.head.push(*first);
            bytes = tail;
            self.rest = match *self.head {
                [_, length @ ..126] => length.into(),
                [_, 126, a, b] => u16::from_be_bytes([a, b]).into(),
                [_, 127, a, b, c, d, e, f, g, h] => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
                _ => continue,
            };
            if self.head[0] & 0x0f == 8 && self.closing == Closing::Open {
                self.closing = Closing::Asked;
                self.reader.take().into_iter().for_each(Waker::wake);
            }
            self.head.clear();
        }
    }
}

impl AsyncRead for Silent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.closing {
            Closing::Open => {
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Closing::Asked if space.remaining() >= GOODBYE.len() => {
                space.put_slice(&GOODBYE);
                self.closing = Closing::Answered;
            }
            // The end.
            Closing::Asked | Closing::Answered => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Silent {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.hear(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_frame_is_told_from_others_wherever_the_pieces_end() {
        let mut frames = vec![0x81, 3, 0x88, 0x88, 0x88, 0x82, 126, 0, 200];
        frames.extend([0x88; 200]);
        frames.extend([0x82, 127, 0, 0, 0, 0, 0, 0, 0, 2, 0x88, 0, 0x88]);
        for piece in 1..frames.len() {
            let mut silent = Silent::default();
            frames.chunks(piece).for_each(|piece| silent.hear(piece));
            assert!(silent.closing == Closing::Open, "{piece}");
            silent.hear(&[2, 3, 232]);
            assert!(silent.closing == Closing::Asked, "{piece}");
        }
    }
}
