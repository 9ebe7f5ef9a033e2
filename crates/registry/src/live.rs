//! What is under way: every request from before its upstream is dialled until its last byte.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::SystemTime;

use aiproxy_config::model::User;
use aiproxy_core::ports::EndOrder;
use aiproxy_core::{ErrorKind, KeyDigest, KeyTag, RequestId};
use dashmap::DashMap;
use futures_util::task::AtomicWaker;

/// What kind of thing is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One HTTP request and its answer, streaming or not.
    Http,
    /// A WebSocket, from its handshake to its end.
    WebSocket,
    /// A WebRTC call, from its offer to its end.
    Call,
}

/// The mark of what was asked to end with the process.
const RETIRED: u8 = u8::MAX;
/// The mark of a call that was hung up.
const HUNG_UP: u8 = u8::MAX - 1;

/// One request or session under way. Its own thread drives it; any thread may cut it.
#[derive(Debug)]
pub struct Live {
    /// Its name in answers and logs.
    pub id: RequestId,
    /// What it is.
    pub kind: Kind,
    /// Whose it is.
    pub user: Arc<str>,
    /// With which key.
    pub key: Arc<KeyTag>,
    /// The key's digest.
    pub digest: KeyDigest,
    /// When it began.
    pub started: SystemTime,
    /// Body bytes handed to the caller so far.
    pub bytes_out: AtomicU64,
    /// The model asked for, once it is known.
    model: OnceLock<Box<str>>,
    channel: Mutex<Option<Arc<str>>>,
    /// 0, or one more than the index of the reason in [`ErrorKind::ALL`], or [`RETIRED`] or [`HUNG_UP`].
    cut: AtomicU8,
    waker: AtomicWaker,
}

impl Live {
    /// A request of this user.
    #[must_use]
    pub fn new(id: RequestId, kind: Kind, user: &User) -> Self {
        let started = SystemTime::now();
        user.key.used.note(started);
        Self {
            id,
            kind,
            user: Arc::clone(&user.id),
            key: Arc::clone(&user.key.tag),
            digest: user.key.digest,
            started,
            bytes_out: AtomicU64::new(0),
            model: OnceLock::new(),
            channel: Mutex::new(None),
            cut: AtomicU8::new(0),
            waker: AtomicWaker::new(),
        }
    }

    /// The model asked for, as far as it is known.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.get().map(AsRef::as_ref)
    }

    /// Notes the model; the first counts.
    pub fn set_model(&self, model: &str) {
        let _ = self.model.set(model.into());
    }

    /// The channel that serves it at the moment.
    #[must_use]
    pub fn channel(&self) -> Option<Arc<str>> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the channel that is tried next.
    pub fn set_channel(&self, channel: &Arc<str>) {
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(channel));
    }

    /// Ends it, from any thread. The first reason stays.
    pub fn cut(&self, reason: ErrorKind) {
        let index = ErrorKind::ALL.iter().position(|kind| *kind == reason).unwrap_or_default();
        let mark = u8::try_from(index + 1).unwrap_or(u8::MAX);
        if self.cut.compare_exchange(0, mark, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.waker.wake();
        }
    }

    /// Asks it to end because the process does. Only sessions listen to that; requests have the drain
    /// time to finish.
    pub fn retire(&self) {
        if self.cut.compare_exchange(0, RETIRED, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.waker.wake();
        }
    }

    /// Asks a call to end because its caller wants it to.
    pub fn hang_up(&self) {
        if self.cut.compare_exchange(0, HUNG_UP, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.waker.wake();
        }
    }

    /// Ready once it has been cut or asked to end; else wakes the task when that happens.
    pub fn poll_end(&self, cx: &Context<'_>) -> Poll<EndOrder> {
        self.waker.register(cx.waker());
        match self.cut.load(Ordering::SeqCst) {
            RETIRED => return Poll::Ready(EndOrder::Drained),
            HUNG_UP => return Poll::Ready(EndOrder::HungUp),
            _ => {}
        }
        self.is_cut().map_or(Poll::Pending, |kind| Poll::Ready(EndOrder::Cut(kind)))
    }

    /// Why it has been cut, if it has.
    #[must_use]
    pub fn is_cut(&self) -> Option<ErrorKind> {
        let mark = self.cut.load(Ordering::SeqCst);
        ErrorKind::ALL.get(usize::from(mark).checked_sub(1)?).copied()
    }

    /// Ready once it has been cut; else wakes the task when that happens.
    pub fn poll_cut(&self, cx: &Context<'_>) -> Poll<ErrorKind> {
        self.waker.register(cx.waker());
        self.is_cut().map_or(Poll::Pending, Poll::Ready)
    }
}

/// All that is under way.
#[derive(Debug, Default)]
pub struct LiveMap {
    entries: DashMap<RequestId, Arc<Live>>,
}

/// Keeps an entry in the map until it drops.
#[derive(Debug)]
pub struct Registration {
    live: Arc<Live>,
    registry: Arc<crate::Registry>,
}

impl Registration {
    /// The entry itself, for whoever has to see that it was cut.
    #[must_use]
    pub fn entry(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }
}

impl std::ops::Deref for Registration {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.live
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.live.entries.remove(&self.live.id);
    }
}

impl LiveMap {
    pub(crate) fn enter(registry: &Arc<crate::Registry>, live: Live) -> Registration {
        let live = Arc::new(live);
        registry.live.entries.insert(live.id, Arc::clone(&live));
        Registration { live, registry: Arc::clone(registry) }
    }

    /// Cuts every entry for which there is a reason; returns how many were.
    pub fn cut_where(&self, reason: impl Fn(&Live) -> Option<ErrorKind>) -> usize {
        let mut count = 0;
        for entry in &self.entries {
            if entry.is_cut().is_none()
                && let Some(kind) = reason(&entry)
            {
                entry.cut(kind);
                count += 1;
            }
        }
        count
    }

    /// Everything under way at this moment, in no order.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Live>> {
        self.entries.iter().map(|entry| Arc::clone(&entry)).collect()
    }

    /// How much is under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
