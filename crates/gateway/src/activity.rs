//! What connections are doing, and since when.
//!
//! Instead of arming a timer per connection and request, each connection notes what it is doing
//! and since when; a ticker of its thread looks at all of them once a second.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aiproxy_config::model::Limits;
use aiproxy_registry::Registry;
use aiproxy_registry::live::Live;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::frames;
use crate::switch::Switch;

/// A caller that takes nothing for this long while bytes wait for it is gone.
pub(crate) const WRITE_STALL: Duration = Duration::from_secs(300);

/// A caller who takes nothing of an answer that AIProxy gave by itself: such answers are short, and
/// anybody can have them.
const OWN_STALL: Duration = Duration::from_secs(10);
/// Such answers that may wait on one connection from one tick to the next.
const OWN_WAITING: usize = 8;
/// A caller that was told to take its requests elsewhere has so long to say that it understood.
const PARTING: Duration = Duration::from_secs(2);
/// Over HTTP/3 the last answer's arrival is waited for; callers that have gone never confirm it.
const ACKNOWLEDGED: Duration = Duration::from_secs(4);
/// Work that went on for so long before its caller cancelled it was no flood.
const WORKED: Duration = Duration::from_secs(1);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Receiving a PROXY protocol header.
    Opening,
    /// In a TLS handshake.
    Handshake,
    /// Receiving a head.
    Head,
    /// Between requests, nothing of the next one received.
    Idle,
    /// Serving requests.
    Request,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Activity {
    pub(crate) doing: Cell<Doing>,
    since: Cell<Instant>,
    opened: Instant,
    /// Since when the socket has refused bytes.
    stalled: Cell<Option<Instant>>,
    /// The answer under way over HTTP/1.
    live: RefCell<Option<Arc<Live>>>,
    /// Whether the connection is closed because its head did not come.
    pub(crate) head_late: Cell<bool>,
    /// The socket, where hyper is done with it and the caller is not.
    pub(crate) leftover: RefCell<Option<OwnedFd>>,
    /// The WebSocket that the connection becomes.
    pub(crate) switch: RefCell<Option<Box<Switch>>>,
    /// Told when it takes too long.
    pub(crate) cut: Notify,
    /// Told when it shall take no more requests.
    pub(crate) retire: Notify,
    /// Since when it has been told to take no more.
    retired: Cell<Option<Instant>>,
    /// Requests share the connection: HTTP/2 or HTTP/3.
    pub(crate) shared: Cell<bool>,
    /// Requests under way.
    under_way: Cell<usize>,
    /// Those of them that share the connection; `streams_per_connection` bounds their number.
    streams: RefCell<Vec<Rc<Stream>>>,
    /// The stream whose task is about to be started.
    fresh: RefCell<Option<Rc<Stream>>>,
    /// Told when a stream has ended.
    pub(crate) ended: Notify,
    credit: Cell<i64>,
}

/// One request over HTTP/2 or HTTP/3.
#[derive(Debug)]
pub(crate) struct Stream {
    task: RefCell<Option<AbortHandle>>,
    began: Instant,
    /// Its head has not come yet.
    headless: Cell<bool>,
    /// An [`OpenStream`] keeps it open beyond its request: over HTTP/3, until the caller has everything.
    held: bool,
    /// Since when the answer, or a piece of it, has waited for the caller to take it.
    waiting: Cell<Option<Instant>>,
    /// The answer is AIProxy's own.
    own: Cell<bool>,
    live: RefCell<Option<Arc<Live>>>,
}

impl Stream {
    fn new(held: bool) -> Rc<Self> {
        Rc::new(Self {
            task: RefCell::default(),
            began: Instant::now(),
            headless: Cell::new(held),
            held,
            waiting: Cell::default(),
            own: Cell::default(),
            live: RefCell::default(),
        })
    }

    /// A task that waits for the caller asks its body nothing, which then hears of no cut and no
    /// time limit.
    fn overdue(&self, limits: &Limits) -> bool {
        if self.headless.get() {
            return self.began.elapsed() > limits.header_timeout;
        }
        let cut = || self.live.borrow().as_ref().is_some_and(|live| live.is_cut().is_some());
        let longest = if self.own.get() { OWN_STALL } else { WRITE_STALL };
        self.waiting.get().is_some_and(|since| since.elapsed() > longest || cut())
    }

    /// An answer of AIProxy's own that waited before this tick already.
    fn own_waits(&self) -> bool {
        self.own.get() && self.waiting.get().is_some_and(|since| since.elapsed() >= Duration::from_secs(1))
    }

    /// Whether there was work before its caller cancelled it.
    fn worked(&self) -> bool {
        self.live.borrow().is_some() || self.began.elapsed() >= WORKED
    }

    fn abort(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.abort();
        }
    }
}

impl Activity {
    pub(crate) fn now(&self, doing: Doing) {
        self.doing.set(doing);
        self.since.set(Instant::now());
    }

    fn overdue(&self, limits: &Limits) -> bool {
        let limit = match self.doing.get() {
            // Bytes of the last answer are still on their way.
            Doing::Idle if self.stalled.get().is_some() => Duration::MAX,
            Doing::Idle => limits.keep_alive,
            Doing::Opening | Doing::Head => limits.header_timeout,
            Doing::Handshake => limits.handshake_timeout,
            Doing::Request => Duration::MAX,
        };
        self.since.get().elapsed() > limit
            || self.stalled.get().is_some_and(|since| since.elapsed() > WRITE_STALL || self.is_cut())
    }

    fn is_cut(&self) -> bool {
        self.live.borrow().as_ref().is_some_and(|live| live.is_cut().is_some())
    }

    fn tick(&self, limits: &Limits) {
        self.credit.set(frames::credit(self.credit.get(), frames::A_SECOND));
        let aged = limits.connection_age.is_some_and(|age| self.opened.elapsed() > age);
        let overdue = self.overdue(limits);
        // A caller that may ask for more at any time is told before the connection goes, and has until the next tick.
        let first = self.retired.get().is_none();
        if first && (aged || (overdue && self.shared.get() && self.doing.get() == Doing::Idle)) {
            self.retiring();
            self.retire.notify_one();
        } else if overdue || self.is_parted() {
            self.cut.notify_one();
        }
        let streams = self.streams.borrow();
        if streams.iter().filter(|stream| stream.own_waits()).count() > OWN_WAITING {
            self.cut.notify_one();
        }
        for stream in streams.iter().filter(|stream| stream.overdue(limits)) {
            stream.abort();
        }
    }

    /// It is told to take no more requests.
    pub(crate) fn retiring(&self) {
        if self.retired.get().is_none() {
            self.retired.set(Some(Instant::now()));
        }
    }

    /// A shared connection stays open until its caller has understood; some never do.
    fn is_parted(&self) -> bool {
        self.shared.get()
            && self.under_way.get() == 0
            && (self.is_quiet() || self.since.get().elapsed() > ACKNOWLEDGED)
            && self.stalled.get().is_none()
            && self.retired.get().is_some_and(|since| since.elapsed() > PARTING)
    }

    /// The socket took bytes, or did not.
    pub(crate) fn wrote(&self, taken: bool) {
        let stalled = if taken { None } else { Some(self.stalled.get().unwrap_or_else(Instant::now)) };
        self.stalled.set(stalled);
    }

    /// Pays for frames; false when there is no credit left.
    pub(crate) fn pay(&self, cost: i64) -> bool {
        self.credit.set(self.credit.get() - cost);
        self.credit.get() >= 0
    }

    /// Notes the task that serves the request which has just come.
    pub(crate) fn serves(&self, task: AbortHandle) {
        if let Some(stream) = self.fresh.take() {
            *stream.task.borrow_mut() = Some(task);
        }
    }

    /// A request has come.
    pub(crate) fn begin(self: &Rc<Self>, registry: &Arc<Registry>) -> UnderWay {
        let stream = self.shared.get().then(|| {
            let stream = Stream::new(false);
            self.streams.borrow_mut().push(Rc::clone(&stream));
            *self.fresh.borrow_mut() = Some(Rc::clone(&stream));
            stream
        });
        self.under_way(registry, stream)
    }

    /// A stream of HTTP/3 has come, and nothing on it.
    pub(crate) fn open(self: &Rc<Self>) -> OpenStream {
        let stream = Stream::new(true);
        self.streams.borrow_mut().push(Rc::clone(&stream));
        OpenStream { activity: Rc::clone(self), stream }
    }

    /// Whether no stream is open.
    pub(crate) fn is_quiet(&self) -> bool {
        self.streams.borrow().is_empty()
    }

    fn leave(&self, stream: &Rc<Stream>) {
        self.streams.borrow_mut().retain(|have| !Rc::ptr_eq(have, stream));
        self.ended.notify_one();
    }

    fn under_way(self: &Rc<Self>, registry: &Arc<Registry>, stream: Option<Rc<Stream>>) -> UnderWay {
        self.now(Doing::Request);
        self.under_way.set(self.under_way.get() + 1);
        let before = registry.status.requests.fetch_add(1, Ordering::Relaxed);
        UnderWay {
            activity: Rc::clone(self),
            stream,
            registry: Arc::clone(registry),
            before,
            counted: true,
            ended: false,
        }
    }
}

/// A stream of HTTP/3, from its first packet until the caller has all of the answer.
#[derive(Debug)]
pub(crate) struct OpenStream {
    activity: Rc<Activity>,
    stream: Rc<Stream>,
}

impl OpenStream {
    /// Notes the task that serves it.
    pub(crate) fn task(&self) -> TaskOf {
        TaskOf(Rc::clone(&self.stream))
    }

    /// Whether leaving it alone is no flood: a platform answers it, or it took its time.
    pub(crate) fn worked(&self) -> bool {
        self.stream.worked()
    }

    /// A request has come on it.
    pub(crate) fn begin(&self, registry: &Arc<Registry>) -> UnderWay {
        self.stream.headless.set(false);
        self.activity.under_way(registry, Some(Rc::clone(&self.stream)))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.activity.leave(&self.stream);
    }
}

/// Where a stream's task is noted once it runs.
pub(crate) struct TaskOf(Rc<Stream>);

impl TaskOf {
    pub(crate) fn is(self, task: AbortHandle) {
        *self.0.task.borrow_mut() = Some(task);
    }
}

/// A request under way: from its head until its answer's end, or the caller's.
#[derive(Debug)]
pub(crate) struct UnderWay {
    activity: Rc<Activity>,
    stream: Option<Rc<Stream>>,
    registry: Arc<Registry>,
    /// Requests, of all callers, that were under way before it.
    pub(crate) before: usize,
    /// Whether it is among those.
    counted: bool,
    ended: bool,
}

impl UnderWay {
    /// The answer begins. One that AIProxy gives by itself needs no place among the requests: those
    /// that nobody takes would hold up everybody else's.
    pub(crate) fn answers(&mut self, live: Option<Arc<Live>>) {
        if live.is_none() {
            self.uncount();
        }
        match &self.stream {
            Some(stream) => {
                stream.own.set(live.is_none());
                stream.waiting.set(Some(Instant::now()));
                *stream.live.borrow_mut() = live;
            }
            None => *self.activity.live.borrow_mut() = live,
        }
    }

    fn uncount(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.registry.status.requests.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A piece of the answer is handed over, or there is none at the moment.
    pub(crate) fn handed(&mut self, bytes: Option<usize>, end: bool) {
        self.ended |= end;
        let Some(stream) = &self.stream else { return };
        stream.waiting.set(bytes.map(|_| Instant::now()));
        if let Some(bytes) = bytes {
            self.activity.credit.set(frames::credit(self.activity.credit.get(), frames::piece(bytes)));
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.uncount();
        let activity = &self.activity;
        activity.under_way.set(activity.under_way.get() - 1);
        if activity.under_way.get() == 0 {
            activity.now(Doing::Idle);
        }
        match &self.stream {
            None => drop(activity.live.take()),
            Some(stream) => {
                stream.waiting.set(None);
                if !stream.held {
                    activity.leave(stream);
                }
                if self.ended || stream.worked() {
                    let earned = if self.ended { frames::A_REQUEST } else { frames::A_RESET };
                    activity.credit.set(frames::credit(activity.credit.get(), earned));
                }
            }
        }
    }
}

/// All connections of one thread.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    next: Cell<u64>,
    open: RefCell<HashMap<u64, Rc<Activity>>>,
}

impl Connections {
    /// Cuts those that take too long. Called once a second.
    pub(crate) fn tick(&self, limits: &Limits) {
        for activity in self.open.borrow().values() {
            activity.tick(limits);
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.open.borrow().len()
    }

    pub(crate) fn enter(self: &Rc<Self>, doing: Doing) -> Entry {
        let id = self.next.get();
        self.next.set(id + 1);
        let now = Instant::now();
        let activity = Rc::new(Activity {
            doing: Cell::new(doing),
            since: Cell::new(now),
            opened: now,
            stalled: Cell::new(None),
            live: RefCell::default(),
            head_late: Cell::new(false),
            leftover: RefCell::default(),
            switch: RefCell::default(),
            cut: Notify::new(),
            retire: Notify::new(),
            retired: Cell::new(None),
            shared: Cell::new(false),
            under_way: Cell::new(0),
            streams: RefCell::default(),
            fresh: RefCell::default(),
            ended: Notify::new(),
            credit: Cell::new(frames::full()),
        });
        self.open.borrow_mut().insert(id, Rc::clone(&activity));
        Entry { id, activity, connections: Rc::clone(self) }
    }
}

/// A connection among those of its thread. What it serves ends with it.
pub(crate) struct Entry {
    id: u64,
    pub(crate) activity: Rc<Activity>,
    connections: Rc<Connections>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.open.borrow_mut().remove(&self.id);
        for stream in self.activity.streams.borrow().iter() {
            stream.abort();
        }
    }
}

#[cfg(test)]
#[path = "activity_tests.rs"]
mod tests;
