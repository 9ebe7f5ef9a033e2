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

/// A socket between these two on which everything may pass.
fn between(caller: impl SocketStream + 'static, platform: impl SocketStream + 'static) -> Sockets {
    Sockets {
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
        prelude: None,
        guard: Box::new(Free),
    }
}

/// What a caller hears whose message a platform does not take that has said this before it hung up.
async fn heard(says: &[u8]) -> (Vec<u8>, SocketEnd) {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let caller = Open { says: b"\x81\x81\0\0\0\0x".to_vec(), heard: Rc::clone(&heard) };
    let platform = Gone { says: says.to_vec(), refused: Rc::default() };
    let mut pump = Pump::new(between(caller, platform));
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

#[tokio::test(start_paused = true)]
async fn a_prelude_is_what_the_platform_hears_first_and_nobody_s_bytes() {
    let said = b"\x81\x81\0\0\0\0x\x88\x80\0\0\0\0";
    for length in [5, 300] {
        let heard = Rc::new(RefCell::new(Vec::new()));
        let caller = Open { says: said.to_vec(), heard: Rc::default() };
        let platform = Open { says: Vec::new(), heard: Rc::clone(&heard) };
        let prelude = vec![b'p'; length];
        let mut pump = Pump::new(Sockets { prelude: Some(prelude.clone()), ..between(caller, platform) });
        std::future::poll_fn(|cx| pump.poll(cx)).await;
        let heard = heard.borrow();
        let (first, rest) = heard.split_at(heard.len() - said.len());
        assert_eq!(rest, said);
        let mut walker = Walker::new(Sender::Client, Bounds { frame: 1000, message: 1000 });
        let Ok(crate::frame::Piece::Header(header)) = walker.next(first) else {
            panic!("a frame of a client")
        };
        assert_eq!((walker.message_is_text(), walker.is_last()), (Some(true), true));
        let mut payload = first[header..].to_vec();
        crate::mask::apply(&mut payload, walker.mask().0, 0);
        assert_eq!(payload, prelude);
        let used = pump.into_end().used;
        assert_eq!((used.frames_in, used.bytes_in), (2, said.len() as u64));
    }
}
