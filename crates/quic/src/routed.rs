//! One thread's socket of a listener, which hands on what belongs to another thread.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::cid::Mask;

/// Datagrams on their way to another thread, at most; what exceeds them is lost, as on any network.
const QUEUE: usize = 1024;

/// A datagram on its way to another thread.
#[derive(Debug)]
struct Strayed {
    bytes: Bytes,
    meta: RecvMeta,
}

/// Ways to each thread.
#[derive(Debug)]
pub(crate) struct Ways {
    pub(crate) mask: Mask,
    senders: Vec<Sender<Strayed>>,
    receivers: Mutex<Vec<Option<Receiver<Strayed>>>>,
    handed: AtomicU64,
}

impl Ways {
    pub(crate) fn new(threads: usize) -> Arc<Self> {
        let (senders, receivers) = (0..threads).map(|_| channel(QUEUE)).unzip::<_, _, _, Vec<_>>();
        let receivers = Mutex::new(receivers.into_iter().map(Some).collect());
        Arc::new(Self { mask: Mask::default(), senders, receivers, handed: AtomicU64::new(0) })
    }

    /// Datagrams that were handed on.
    pub(crate) fn handed(&self) -> u64 {
        self.handed.load(Ordering::Relaxed)
    }

    /// What strayed to this thread, to be had once.
    fn inbox(&self, thread: usize) -> Option<Receiver<Strayed>> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner).get_mut(thread)?.take()
    }

    /// Whether it is another thread's, which then has it.
    fn hand_on(&self, thread: usize, datagram: &[u8], meta: &RecvMeta) -> bool {
        let Some(owner) = self.mask.owner(datagram).filter(|owner| *owner != thread) else { return false };
        // An id that is nobody's is answered by whoever got it: the connection may be of an earlier life.
        let Some(sender) = self.senders.get(owner) else { return false };
        let length = datagram.len();
        let meta = RecvMeta { len: length, stride: length, ..*meta };
        if sender.try_send(Strayed { bytes: Bytes::copy_from_slice(datagram), meta }).is_ok() {
            self.handed.fetch_add(1, Ordering::Relaxed);
        }
        true
    }
}

/// The socket of one thread.
pub(crate) struct Routed {
    socket: Arc<dyn AsyncUdpSocket>,
    ways: Arc<Ways>,
    thread: usize,
    inbox: Mutex<Option<Receiver<Strayed>>>,
}

impl fmt::Debug for Routed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Routed({})", self.thread)
    }
}

impl Routed {
    pub(crate) fn new(socket: Arc<dyn AsyncUdpSocket>, ways: Arc<Ways>, thread: usize) -> Self {
        let inbox = Mutex::new(ways.inbox(thread));
        Self { socket, ways, thread, inbox }
    }

    /// What has strayed here, as if the socket had brought it.
    fn poll_inbox(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> usize {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(inbox) = inbox.as_mut() else { return 0 };
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Poll::Ready(Some(strayed)) = inbox.poll_recv(cx) else { break };
            let length = strayed.bytes.len().min(buf.len());
            buf[..length].copy_from_slice(&strayed.bytes[..length]);
            *meta = RecvMeta { len: length, stride: length, ..strayed.meta };
            count += 1;
        }
        count
    }

    /// Takes out what is another thread's. One read may bring several datagrams of one sender.
    fn sort(&self, buf: &mut [u8], meta: &mut RecvMeta) {
        let stride = meta.stride.max(1);
        let foreign = |datagram: &[u8]| self.ways.mask.owner(datagram).is_some_and(|it| it != self.thread);
        if !buf[..meta.len].chunks(stride).any(foreign) {
            return;
        }
        let mut kept = 0;
        let mut at = 0;
        while at < meta.len {
            let end = (at + stride).min(meta.len);
            if !self.ways.hand_on(self.thread, &buf[at..end], meta) {
                buf.copy_within(at..end, kept);
                kept += end - at;
            }
            at = end;
        }
        meta.len = kept;
    }
}

impl AsyncUdpSocket for Routed {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // Half of the room is the socket's own: what strays, which one caller can make happen, holds up
        // nobody else.
        let half = bufs.len().div_ceil(2);
        let strayed = self.poll_inbox(cx, &mut bufs[..half], &mut meta[..half]);
        if strayed == bufs.len() {
            return Poll::Ready(Ok(strayed));
        }
        let (bufs, meta) = (&mut bufs[strayed..], &mut meta[strayed..]);
        match self.socket.poll_recv(cx, bufs, meta) {
            Poll::Ready(Ok(count)) => {
                for (buf, meta) in bufs.iter_mut().zip(meta).take(count) {
                    self.sort(buf, meta);
                }
                Poll::Ready(Ok(strayed + count))
            }
            // What is wrong with the socket shows again.
            _ if strayed > 0 => Poll::Ready(Ok(strayed)),
            other => other,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
