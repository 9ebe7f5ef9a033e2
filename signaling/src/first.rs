//! The first message of a caller that was answered before its platform was asked.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;

use aiproxy_core::ErrorKind;
use aiproxy_core::ports::{FirstAsk, FirstEnd, FirstMessage, Side, SocketCause, SocketStream};
use aiproxy_core::websocket;
use bytes::Bytes;
use tokio::io::{AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use crate::buffer::Buffer;
use crate::frame::{Bounds, Piece, Sender, Violation, Walker, close, pong};
use crate::mask;
use crate::pump::{PARTING, PROTOCOL_ERROR, TOO_LARGE};

/// Bytes of headers that a message may have beyond twice its payload: its frames may be as short as they
/// like, but not as many.
const SLACK: usize = 4096;

/// Waits for it.
///
/// # Errors
/// See [`FirstEnd`].
pub(crate) async fn receive(ask: FirstAsk<'_>) -> Result<FirstMessage, FirstEnd> {
    let (within, speaking) = (ask.within, ask.speaking);
    timeout(within, read(ask)).await.unwrap_or_else(|_| {
        let kind = ErrorKind::RequestTimeout;
        let told = (websocket::refusal(kind), kind.code());
        Err(end(SocketCause::Refused(kind), Some(told).filter(|_| !speaking.get())))
    })
}

fn end(cause: SocketCause, told: Option<(u16, &'static str)>) -> FirstEnd {
    FirstEnd { cause, told }
}

async fn read(ask: FirstAsk<'_>) -> Result<FirstMessage, FirstEnd> {
    let FirstAsk { caller, ahead, limits, whole, speaking, .. } = ask;
    let bounds = Bounds { frame: limits.frame_bytes, message: limits.message_bytes };
    let mut walker = Walker::new(Sender::Client, bounds);
    let mut pending = ahead.to_vec();
    drop(ahead);
    let (mut frames, mut payload) = (Vec::new(), Vec::new());
    loop {
        let mut at = 0;
        let (mut ended, mut too_much) = (false, false);
        while !ended && at < pending.len() {
            let rest = &pending[at..];
            let piece = walker.next(rest).map_err(|violation| match violation {
                Violation::TooLarge => end(SocketCause::TooLarge(Side::Caller), Some(TOO_LARGE)),
                _ => end(SocketCause::Violation(Side::Caller), Some(PROTOCOL_ERROR)),
            })?;
            at += match piece {
                Piece::Partial => break,
                Piece::Header(length) => {
                    frames.extend_from_slice(&rest[..length]);
                    ended = walker.at_boundary() && walker.is_last();
                    too_much = frames.len() > 2 * limits.held_bytes + SLACK;
                    length
                }
                Piece::Payload { bytes, frame_ends } => {
                    frames.extend_from_slice(&rest[..bytes]);
                    let begin = payload.len();
                    payload.extend_from_slice(&rest[..bytes]);
                    let (key, passed) = walker.mask();
                    mask::apply(&mut payload[begin..], key, passed - bytes as u64);
                    ended = frame_ends && walker.is_last();
                    too_much = payload.len() > limits.held_bytes;
                    bytes
                }
                Piece::Control(length) => {
                    if let Some(pong) = pong(&rest[..length]) {
                        speaking.set(true);
                        if caller.write_all(&pong).await.is_err() {
                            return Err(end(SocketCause::Lost(Side::Caller), None));
                        }
                        speaking.set(false);
                    }
                    length
                }
                Piece::Close(_, code) => {
                    let told = Some((code.unwrap_or(1000), ""));
                    return Err(end(SocketCause::Closed(Side::Caller), told));
                }
            };
            if too_much {
                if whole {
                    return Err(end(SocketCause::TooLarge(Side::Caller), Some(TOO_LARGE)));
                }
                ended = true;
            }
        }
        if ended {
            let text = walker.message_is_text() == Some(true);
            frames.extend_from_slice(&pending[at..]);
            return Ok(FirstMessage { text, payload, ahead: Bytes::from(frames) });
        }
        pending.drain(..at);
        if !more(caller, &mut pending).await {
            return Err(end(SocketCause::Lost(Side::Caller), None));
        }
        // Pongs that were written are on their way while it is waited for.
    }
}

/// Reads on; whether there was anything. Nothing is held while nothing comes.
async fn more(caller: &mut dyn SocketStream, pending: &mut Vec<u8>) -> bool {
    let came = poll_fn(|cx| {
        // What was written before has to leave, whatever the transport keeps back.
        if Pin::new(&mut *caller).poll_flush(cx)?.is_pending() {
            tracing::trace!("a pong waits");
        }
        let mut buffer = Buffer::take();
        let mut into = ReadBuf::new(&mut buffer);
        ready!(Pin::new(&mut *caller).poll_read(cx, &mut into))?;
        pending.extend_from_slice(into.filled());
        std::task::Poll::Ready(std::io::Result::Ok(into.filled().len()))
    });
    matches!(came.await, Ok(1..))
}

/// Says why, where there is somebody to hear it, and hangs up.
pub(crate) async fn part(mut caller: Box<dyn SocketStream>, told: Option<(u16, String)>) {
    let Some((code, reason)) = told else { return };
    let parting = async {
        caller.write_all(&close(Sender::Server, code, &reason)).await?;
        caller.shutdown().await?;
        // Closing with unread bytes would take the last word with it.
        let mut unread = Vec::new();
        while more(&mut *caller, &mut unread).await {
            unread.clear();
        }
        std::io::Result::Ok(())
    };
    let longest: Duration = PARTING;
    let _ = timeout(longest, parting).await;
}

#[cfg(test)]
#[path = "first_tests.rs"]
mod tests;
