//! A TCP forwarder that searches every byte for keys, and every WebSocket message that is masked.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::needles::{Needles, Scanner};
use crate::net;
use crate::unmask::Unmask;

/// The side of administrators.
const ADMINS: &str = "the admins' side";

const BUFFER: usize = 64 * 1024;

/// Listens on a port of its own and passes every connection on to one address: ends as ends,
/// resets as resets. It stops when dropped.
#[derive(Debug)]
pub struct Wiretap {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<JoinHandle<()>>,
    /// Keeps the port while unplugged.
    unplugged: Mutex<Option<socket2::Socket>>,
}

#[derive(Debug)]
struct Shared {
    name: &'static str,
    target: SocketAddr,
    needles: Vec<Needles>,
    sightings: Mutex<Vec<String>>,
    upward: AtomicU64,
    downward: AtomicU64,
    ending: watch::Sender<bool>,
    live: Mutex<usize>,
    fewer: Condvar,
    /// The direction in which the relay's own bytes go.
    relay: Way,
}

impl Wiretap {
    /// Between callers and the relay at `target`.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn of_callers(target: SocketAddr, needles: &Needles) -> Self {
        Self::start("the callers' side", target, &[needles], Way::Down).await
    }

    /// Between administrators, or whoever watches the relay, and its second listener at `target`, which
    /// shows no key of either side. What they say themselves is not looked at.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn of_admins(target: SocketAddr, needles: [&Needles; 2]) -> Self {
        Self::start(ADMINS, target, &needles, Way::Down).await
    }

    /// Between the relay and the platform at `target`.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn of_platform(target: SocketAddr, needles: &Needles) -> Self {
        Self::start("the platform's side", target, &[needles], Way::Up).await
    }

    async fn start(name: &'static str, target: SocketAddr, needles: &[&Needles], relay: Way) -> Self {
        let shared = Arc::new(Shared {
            name,
            target,
            needles: needles.iter().copied().cloned().collect(),
            sightings: Mutex::default(),
            upward: AtomicU64::new(0),
            downward: AtomicU64::new(0),
            ending: watch::channel(false).0,
            live: Mutex::new(0),
            fewer: Condvar::new(),
            relay,
        });
        let listener = net::run(TcpListener::bind(("127.0.0.1", 0))).await.expect("a free port");
        let addr = listener.local_addr().expect("a bound socket");
        let accepting = Mutex::new(net::spawn(accept(listener, Arc::clone(&shared))));
        Self { addr, shared, accepting, unplugged: Mutex::default() }
    }

    /// As if the target's process had been killed: its connections end, and new ones are refused
    /// until [`Wiretap::plug`].
    ///
    /// # Panics
    /// When somebody else takes the port in the moment between.
    pub async fn unplug(&self) {
        let accepting = {
            let mut accepting = lock(&self.accepting);
            std::mem::replace(&mut *accepting, net::spawn(std::future::ready(())))
        };
        accepting.abort();
        let _ = accepting.await;
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&self.addr.into()).expect("the port of a moment ago");
        *lock(&self.unplugged) = Some(socket);
        self.shared.ending.send_replace(true);
    }

    /// Takes connections again.
    ///
    /// # Panics
    /// When it was not unplugged.
    pub async fn plug(&self) {
        self.shared.ending.send_replace(false);
        let socket = lock(&self.unplugged).take().expect("an unplugged tap");
        socket.listen(1024).expect("a port to listen on");
        socket.set_nonblocking(true).expect("a socket that does not block");
        let shared = Arc::clone(&self.shared);
        let accepting = async move {
            let listener = TcpListener::from_std(socket.into()).expect("a listener");
            accept(listener, shared).await;
        };
        *lock(&self.accepting) = net::spawn(accepting);
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Bytes passed towards the target so far.
    #[must_use]
    pub fn upward(&self) -> u64 {
        self.shared.upward.load(Ordering::Relaxed)
    }

    /// Bytes that came back from the target so far.
    #[must_use]
    pub fn downward(&self) -> u64 {
        self.shared.downward.load(Ordering::Relaxed)
    }

    /// What was found, in the order of time.
    #[must_use]
    pub fn sightings(&self) -> Vec<String> {
        lock(&self.shared.sightings).clone()
    }

    /// Ends all connections as if the relay's peers had gone, but goes on reading what the relay
    /// still says.
    pub(crate) fn hang_up(&self) {
        lock(&self.accepting).abort();
        self.shared.ending.send_replace(true);
    }

    /// Waits until every connection is read to its end; false after `bound`.
    pub(crate) fn wait_for_silence(&self, bound: Duration) -> bool {
        let live = lock(&self.shared.live);
        let waited = self.shared.fewer.wait_timeout_while(live, bound, |live| *live > 0);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Drop for Wiretap {
    fn drop(&mut self) {
        self.hang_up();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((near, _)) = listener.accept().await {
        *lock(&shared.live) += 1;
        let connection = Connection(Arc::clone(&shared));
        tokio::spawn(async move { connection.carry(near).await });
    }
}

struct Connection(Arc<Shared>);

impl Drop for Connection {
    fn drop(&mut self) {
        *lock(&self.0.live) -= 1;
        self.0.fewer.notify_all();
    }
}

impl Connection {
    async fn carry(self, mut near: TcpStream) {
        let Ok(mut far) = TcpStream::connect(self.0.target).await else {
            let _ = near.set_zero_linger();
            return;
        };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let (near_in, near_out) = near.split();
        let (far_in, far_out) = far.split();
        let up = self.pump(near_in, far_out, &self.0.upward, Way::Up);
        let down = self.pump(far_in, near_out, &self.0.downward, Way::Down);
        if tokio::try_join!(up, down).is_err() {
            let _ = (near.set_zero_linger(), far.set_zero_linger());
        }
    }

    /// Copies until the end; an error is a reset, to be passed on.
    async fn pump(
        &self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        count: &AtomicU64,
        way: Way,
    ) -> io::Result<()> {
        let mut eyes = Eyes::new(&self.0.needles, way);
        let mut ending = self.0.ending.subscribe();
        let mut buffer = vec![0; BUFFER];
        let copying = async {
            loop {
                let bytes = from.read(&mut buffer).await?;
                if bytes == 0 {
                    return to.shutdown().await;
                }
                count.fetch_add(bytes as u64, Ordering::Relaxed);
                self.look(&mut eyes, &buffer[..bytes], way);
                to.write_all(&buffer[..bytes]).await?;
            }
        };
        tokio::select! {
            outcome = copying => return outcome,
            _ = ending.wait_for(|ending| *ending) => {}
        }
        // What the relay still says is read, for nobody's eyes but ours.
        let _ = to.shutdown().await;
        if way == self.0.relay {
            while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
                self.look(&mut eyes, &buffer[..bytes], way);
            }
        }
        Ok(())
    }

    fn look(&self, eyes: &mut Eyes, bytes: &[u8], way: Way) {
        // Administrators bring keys in; they are not to get them out again.
        if self.0.name == ADMINS && way != self.0.relay {
            return;
        }
        for name in eyes.feed(bytes) {
            let way = if way == Way::Up { "going up" } else { "coming down" };
            lock(&self.0.sightings).push(format!("{}: {name} {way}", self.0.name));
        }
    }
}

/// Looks at one direction of a connection.
struct Eyes {
    plain: Vec<Scanner>,
    /// What callers say in WebSockets stands behind masks.
    masked: Option<(Unmask, Vec<Scanner>)>,
}

impl Eyes {
    fn new(needles: &[Needles], way: Way) -> Self {
        let scanners = || needles.iter().map(Needles::scanner).collect();
        let masked = (way == Way::Up).then(|| (Unmask::default(), scanners()));
        Self { plain: scanners(), masked }
    }

    /// Names of what these bytes complete.
    fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let found = self.plain.iter_mut().filter_map(|scanner| scanner.feed(bytes));
        let mut found: Vec<String> = found.collect();
        if let Some((unmask, scanners)) = &mut self.masked {
            let said = unmask.feed(bytes);
            found.extend(scanners.iter_mut().filter_map(|scanner| scanner.feed(&said)));
        }
        found
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
