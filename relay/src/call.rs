//! A call's task: its sockets and its clock.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use aiproxy_core::ErrorKind;
use aiproxy_core::ids::random_key;
use aiproxy_core::ports::{AnsweredCall, CallCause, CallEnd, CallTerms, OpenCall, Side};
use bytes::BytesMut;
use futures_util::FutureExt as _;
use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use crate::bridge::{Bridge, Out};
use crate::mux::{self, Inbound, Port, Reception};
use crate::setup::{Offered, Problem};

/// Packets of one side that are taken before the other has its turn.
const BATCH: usize = 64;
/// No packet is larger.
const PACKET: usize = 2048;
/// The library's clocks are asked no more often.
const TICK: Duration = Duration::from_micros(500);

/// Letters of a fragment: nobody guesses one (RFC 8445 wants 24 bits).
pub(crate) const FRAGMENT: usize = 16;

/// Sockets towards platforms: each call has one of its own for each family, because a platform that
/// has one port for all calls could not be told apart otherwise.
#[derive(Debug)]
pub(crate) struct Ports {
    range: RangeInclusive<u16>,
    next: AtomicUsize,
    /// What platforms are told.
    addresses: Vec<IpAddr>,
}

impl Ports {
    pub(crate) fn new(range: RangeInclusive<u16>, addresses: Vec<IpAddr>) -> Self {
        // Two processes on one machine are not to walk side by side.
        let start = random_key("", 4).bytes().fold(0, |sum: usize, byte| sum * 62 + usize::from(byte));
        Self { range, next: AtomicUsize::new(start), addresses }
    }

    /// Sockets of one call, and where a platform can reach them.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::AddrInUse`] where all ports are taken.
    pub(crate) fn take(&self) -> io::Result<Vec<(std::net::UdpSocket, SocketAddr)>> {
        self.addresses
            .iter()
            .map(|ip| {
                let socket = self.one(ip.is_ipv4())?;
                let at = SocketAddr::new(*ip, socket.local_addr()?.port());
                Ok((socket, at))
            })
            .collect()
    }

    fn one(&self, v4: bool) -> io::Result<std::net::UdpSocket> {
        let any: IpAddr = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let (first, size) = (*self.range.start(), self.range.len().max(1));
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..size {
            let at = self.next.fetch_add(1, Ordering::Relaxed) % size;
            let port = first.saturating_add(u16::try_from(at).unwrap_or_default());
            match mux::bind(SocketAddr::new(any, port)) {
                Ok(socket) => return Ok(socket),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

/// Counts calls while they are under way.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(crate) fn new(calls: &Arc<AtomicUsize>) -> Self {
        calls.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(calls))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call whose platform has not answered.
pub(crate) struct Opened {
    pub(crate) port: Arc<Port>,
    pub(crate) sockets: Vec<(std::net::UdpSocket, SocketAddr)>,
    pub(crate) offered: Offered,
    pub(crate) limits: aiproxy_core::ports::CallLimits,
    pub(crate) counted: Counted,
}

impl OpenCall for Opened {
    fn offer(&self) -> &str {
        &self.offered.offer
    }

    fn answer(self: Box<Self>, answer: &str, terms: CallTerms) -> Result<AnsweredCall, Problem> {
        let Self { port, sockets, offered, limits, counted } = *self;
        let fragment = random_key("", FRAGMENT);
        let reception = port.receive(&fragment);
        let (bridge, answer) =
            offered.finish(answer, &port.candidates(), &fragment, terms, Instant::now())?;
        let mut platform = Vec::new();
        for (socket, at) in sockets {
            let socket =
                UdpSocket::from_std(socket).map_err(|error| (ErrorKind::Internal, error.to_string()))?;
            platform.push((socket, at));
        }
        let report = limits.report;
        let task = Box::new(Task { bridge, reception, platform, report, out: Vec::new(), _counted: counted });
        Ok(AnsweredCall { answer, call: Box::pin(task.run()) })
    }
}

/// What the library cannot read at all is no description.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Problem>) -> Result<T, Problem> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!("the media library panicked over a description");
        Err((ErrorKind::BadRequest, "The offer cannot be relayed.".to_owned()))
    })
}

struct Task {
    bridge: Bridge,
    reception: Reception,
    platform: Vec<(UdpSocket, SocketAddr)>,
    report: Option<Duration>,
    out: Vec<Out>,
    _counted: Counted,
}

impl Task {
    async fn run(mut self: Box<Self>) -> CallEnd {
        // A peer that makes the library panic ends its own call and nothing else: the record is written and
        // the platform is told.
        let cause = AssertUnwindSafe(self.until_end()).catch_unwind().await;
        let now = Instant::now();
        let cause = match cause {
            Ok(cause) => {
                let closing = AssertUnwindSafe(|| self.bridge.close(&mut self.out, now));
                if std::panic::catch_unwind(closing).is_ok() {
                    self.send();
                }
                cause
            }
            Err(_) => {
                tracing::error!("the media library panicked; the call has ended");
                CallCause::Failed
            }
        };
        let complete = matches!(cause, CallCause::Closed(_) | CallCause::Idle | CallCause::Total);
        CallEnd { cause, used: self.bridge.settle(complete, now) }
    }

    async fn until_end(&mut self) -> CallCause {
        let mut buffer = vec![0; PACKET];
        let mut reports = self.report.map(|every| Instant::now() + every);
        let sleep = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(sleep);
        loop {
            let now = Instant::now();
            let state = self.bridge.drain(&mut self.out, now);
            self.send();
            if let Err(cause) = state {
                return cause;
            }
            let deadline = self.bridge.deadline(now).max(now + TICK);
            let wake = reports.map_or(deadline, |at| at.min(deadline));
            sleep.as_mut().reset(wake.into());
            let event = {
                let (guard, platform) = (&self.bridge.guard, &self.platform);
                let buffer = &mut buffer;
                tokio::select! {
                    order = poll_fn(|cx| guard.poll_end(cx)) => Event::Ordered(order),
                    packet = self.reception.packets.recv() => packet.map_or(Event::Nothing, Event::Caller),
                    (packet, from, local) = receive(platform, buffer) => Event::Platform(packet, from, local),
                    () = &mut sleep => Event::Nothing,
                }
            };
            let now = Instant::now();
            match event {
                Event::Ordered(order) => return CallCause::Ordered(order),
                Event::Caller(first) => self.take_caller(first, now),
                Event::Platform(packet, from, local) => {
                    self.bridge.feed(Side::Platform, packet, from, local, now);
                    self.take_platform(&mut buffer, now);
                }
                Event::Nothing => {}
            }
            self.bridge.lose(self.reception.take_dropped());
            if now >= deadline
                && let Err(cause) = self.bridge.tick(now)
            {
                return cause;
            }
            if reports.is_some_and(|at| now >= at) {
                let used = self.bridge.so_far(now);
                self.bridge.guard.so_far(used);
                reports = self.report.map(|every| now + every);
            }
        }
    }

    fn take_caller(&mut self, first: Inbound, now: Instant) {
        let mut next = Some(first);
        for _ in 0..BATCH {
            let Some(Inbound { packet, from, local }) = next else { return };
            self.bridge.feed(Side::Caller, packet, from, local, now);
            next = self.reception.packets.try_recv().ok();
        }
        if let Some(Inbound { packet, from, local }) = next {
            self.bridge.feed(Side::Caller, packet, from, local, now);
        }
    }

    fn take_platform(&mut self, buffer: &mut [u8], now: Instant) {
        for (socket, local) in &self.platform {
            for _ in 0..BATCH {
                let Ok((length, from)) = socket.try_recv_from(buffer) else { break };
                self.bridge.feed(Side::Platform, BytesMut::from(&buffer[..length]), from, *local, now);
            }
        }
    }

    fn send(&mut self) {
        let mut lost = 0;
        for Out { side, to, packet } in self.out.drain(..) {
            let sent = match side {
                Side::Caller => self.reception.send(to, &packet),
                Side::Platform => {
                    let socket = self.platform.iter().find(|(_, at)| at.is_ipv4() == to.is_ipv4());
                    // Past tokio, which would have to be told first that the socket can be written to.
                    socket
                        .is_some_and(|(socket, _)| SockRef::from(socket).send_to(&packet, &to.into()).is_ok())
                }
            };
            lost += u64::from(!sent);
        }
        self.bridge.lose(lost);
    }
}

enum Event {
    Ordered(aiproxy_core::ports::EndOrder),
    Caller(Inbound),
    Platform(BytesMut, SocketAddr, SocketAddr),
    Nothing,
}

/// The next packet of any of the sockets.
async fn receive(
    sockets: &[(UdpSocket, SocketAddr)],
    buffer: &mut [u8],
) -> (BytesMut, SocketAddr, SocketAddr) {
    poll_fn(|cx| {
        for (socket, local) in sockets {
            let mut space = ReadBuf::new(buffer);
            if let Poll::Ready(Ok(from)) = socket.poll_recv_from(cx, &mut space) {
                return Poll::Ready((BytesMut::from(space.filled()), from, *local));
            }
        }
        Poll::Pending
    })
    .await
}
