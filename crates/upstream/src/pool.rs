//! Per-thread pools of upstream connections.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use aiproxy_config::model::{Channel, Status};
use aiproxy_quic::endpoint::Dialler as Sockets;

use crate::environment::Environment;
use crate::resolve::Resolver;
use crate::slot::Slot;
use crate::supply::Supply;
use crate::tls::TlsConfigs;

/// All channels' connections of one thread.
#[derive(Debug)]
pub struct Pool {
    slots: RefCell<HashMap<Arc<str>, Rc<Slot>>>,
    configs: Arc<TlsConfigs>,
    resolver: Rc<Resolver>,
    /// UDP sockets towards platforms.
    sockets: Rc<RefCell<Sockets>>,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(configs: Arc<TlsConfigs>) -> Self {
        // Read now, so that what is wrong with it is said at the start.
        let _ = Environment::read();
        Self { slots: RefCell::default(), configs, resolver: Rc::default(), sockets: Rc::default() }
    }

    /// The slot of a channel. After a reload its connections are kept if they still lead to the
    /// same place by the same way.
    #[must_use]
    pub fn slot(&self, channel: &Arc<Channel>) -> Rc<Slot> {
        let mut slots = self.slots.borrow_mut();
        let conns = match slots.get(&channel.id) {
            Some(slot) if Arc::ptr_eq(slot.channel(), channel) => return Rc::clone(slot),
            Some(slot) if slot.channel().reaches_as(channel) => Some(Rc::clone(&slot.supply().conns)),
            _ => None,
        };
        let supply = Supply::new(channel, conns, &self.configs, &self.resolver, &self.sockets);
        let slot = Rc::new(Slot::new(channel, supply));
        slots.insert(Arc::clone(&channel.id), Rc::clone(&slot));
        slot
    }

    /// Closes connections that have been idle for long or lead where the platform is no longer.
    /// Called now and then by the owner, on a `LocalSet`.
    pub fn sweep(&self) {
        for slot in self.slots.borrow().values() {
            slot.supply().conns.sweep();
            slot.supply().follow();
        }
        self.resolver.sweep();
    }

    /// Closes connections that would otherwise seem to go on: those over HTTP/3. Ends when the platforms
    /// have been told.
    pub fn part(&self) -> impl Future<Output = ()> + use<> {
        self.sockets.borrow().part()
    }

    /// Closes the connections of channels that are gone, and opens those that channels want to have
    /// ahead of need. Called now and then by the owner, on a `LocalSet`.
    pub fn keep(&self, channels: &[Arc<Channel>]) {
        let known: HashSet<&str> = channels.iter().map(|channel| &*channel.id).collect();
        self.slots.borrow_mut().retain(|id, _| known.contains(&**id));
        for channel in channels {
            if channel.pool.warm > 0 && channel.status == Status::Active {
                self.slot(channel).supply().warm();
            }
        }
    }
}
