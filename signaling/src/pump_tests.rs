use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use aiproxy_core::ports::{EndOrder, ReadModels, SocketGuard, SocketLimits};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;

/// Says this once what it is sent has been refused; then it has ended.
struct Gone {
    says: Vec<u8>,
    refused: Rc<Cell<bool>>,
}

/// Says this, and then nothing; keeps what it hears.
struct Open {
    says: Vec<u8>,
    heard: Rc<RefCell<Vec<u8>>>,
}

impl AsyncRead for Gone {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.refused.get() {
            return Poll::Pending;
        }
        into.put_slice(&std::mem::take(&mut self.says));
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Open {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.says.is_empty() {
            return Poll::Pending;
        }
        into.put_slice(&std::mem::take(&mut self.says));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Gone {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.refused.set(true);
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Open {
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

struct Free;

impl SocketGuard for Free {
    fn poll_end(&self, _: &mut Context<'_>) -> Poll<EndOrder> {
        Poll::Pending
    }

    fn admits(&self, _: &str) -> bool {
        true
    }

    fn passed_down(&self, _: usize) {}

    fn so_far(&self, _: SocketUse) {}
}

/// What a caller hears whose message a platform does not take that has said this before it hung up.
async fn heard(says: &[u8]) -> (Vec<u8>, SocketEnd) {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let caller = Open { says: b"\x81\x81\0\0\0\0x".to_vec(), heard: Rc::clone(&heard) };
    let platform = Gone { says: says.to_vec(), refused: Rc::default() };
    let mut pump = Pump::new(Sockets {
        caller: Box::new(caller),
        caller_ahead: Bytes::new(),
        platform: Box::new(platform),
        platform_ahead: Bytes::new(),
        remask: false,
        limits: SocketLimits {
            message_bytes: 1000,
            frame_bytes: 1000,
            held_bytes: 1000,
            idle: Duration::from_secs(60),
            total: None,
            report: None,
        },
        metered: false,
        models: ReadModels::Never,
        edit: None,
        guard: Box::new(Free),
    });
    std::future::poll_fn(|cx| pump.poll(cx)).await;
    let heard = heard.borrow().clone();
    (heard, pump.into_end())
}

#[tokio::test(start_paused = true)]
async fn what_a_side_said_before_it_hung_up_is_heard() {
    let said = [&b"\x81\x04fine"[..], b"\x88\x05\x0f\xa0bye"].concat();
    let (bytes, end) = heard(&said).await;
    assert_eq!(bytes, said);
    assert_eq!((end.cause, end.close_code), (SocketCause::Closed(Side::Platform), Some(4000)));
    let (bytes, end) = heard(b"\x81\x04fine").await;
    assert!(bytes.starts_with(b"\x81\x04fine\x88"), "{bytes:?}");
    assert_eq!((end.cause, end.close_code), (SocketCause::Lost(Side::Platform), Some(1011)));
    let (bytes, end) = heard(b"").await;
    assert_eq!((bytes.first(), end.cause), (Some(&0x88), SocketCause::Lost(Side::Platform)));
}
