//! WebRTC calls: how many there are, and which of ours is which of a platform's.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aiproxy_core::KeyDigest;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::live::Live;

/// Which bound there is no place within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Calls of all callers.
    Total,
    /// Calls of the Proxy-Key.
    Key,
    /// Calls of the channel.
    Channel,
    /// Calls that are being set up.
    Setups,
    /// Calls of the Proxy-Key that are being set up.
    KeySetups,
}

/// Bounds on calls at one time.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Of all callers.
    pub total: usize,
    /// Of one Proxy-Key.
    pub per_key: usize,
    /// Being set up.
    pub setups: usize,
}

/// One call under way, as hangup, refer and sideband have to know it.
#[derive(Debug)]
pub struct Call {
    /// Our id of it.
    pub id: Box<str>,
    /// The platform's id of it, where the platform named one.
    pub platform_id: Option<Box<str>>,
    /// The channel that it is on.
    pub channel: Arc<str>,
    /// What it is registered as.
    pub live: Arc<Live>,
}

/// All calls.
#[derive(Debug, Default)]
pub struct Calls {
    calls: DashMap<Box<str>, Arc<Call>>,
    keys: DashMap<KeyDigest, usize>,
    channels: DashMap<Arc<str>, usize>,
    total: AtomicUsize,
    setups: AtomicUsize,
    keys_setups: DashMap<KeyDigest, usize>,
}

impl Calls {
    /// Takes a place for a call of this Proxy-Key, until the place drops.
    ///
    /// # Errors
    /// The bound that is reached.
    pub fn place(self: &Arc<Self>, key: KeyDigest, bounds: Bounds) -> Result<Place, Full> {
        raise(&self.total, bounds.total).ok_or(Full::Total)?;
        let mut place = Place { calls: Arc::clone(self), key: None, channel: None, id: None };
        if !add(&self.keys, key, bounds.per_key) {
            return Err(Full::Key);
        }
        place.key = Some(key);
        Ok(place)
    }

    /// Takes a place for setting a call of this Proxy-Key up, until it drops. A key has a quarter of them
    /// at most, so that none keeps the others from calling.
    ///
    /// # Errors
    /// [`Full::Setups`], [`Full::KeySetups`].
    pub fn set_up(self: &Arc<Self>, key: KeyDigest, bounds: Bounds) -> Result<Setup, Full> {
        raise(&self.setups, bounds.setups).ok_or(Full::Setups)?;
        let mut setup = Setup { calls: Arc::clone(self), key: None };
        if !add(&self.keys_setups, key, bounds.setups.div_ceil(4)) {
            return Err(Full::KeySetups);
        }
        setup.key = Some(key);
        Ok(setup)
    }

    /// The call of this id, if it is under way.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<Call>> {
        self.calls.get(id).map(|call| Arc::clone(&call))
    }

    /// How many there are, being set up or set up.
    #[must_use]
    pub fn len(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many are being set up.
    #[must_use]
    pub fn setups(&self) -> usize {
        self.setups.load(Ordering::Relaxed)
    }
}

/// A call's place among all.
#[derive(Debug)]
pub struct Place {
    calls: Arc<Calls>,
    key: Option<KeyDigest>,
    channel: Option<Arc<str>>,
    id: Option<Box<str>>,
}

impl Place {
    /// Takes a place on this channel, in place of one that was tried before.
    ///
    /// # Errors
    /// [`Full::Channel`].
    pub fn on(&mut self, channel: &Arc<str>, most: Option<usize>) -> Result<(), Full> {
        if let Some(before) = self.channel.take() {
            remove(&self.calls.channels, before);
        }
        if !add(&self.calls.channels, Arc::clone(channel), most.unwrap_or(usize::MAX)) {
            return Err(Full::Channel);
        }
        self.channel = Some(Arc::clone(channel));
        Ok(())
    }

    /// The call can be found by its id from now on.
    pub fn found(&mut self, call: Call) -> Arc<Call> {
        let call = Arc::new(call);
        self.id = Some(call.id.clone());
        self.calls.calls.insert(call.id.clone(), Arc::clone(&call));
        call
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            self.calls.calls.remove(id);
        }
        if let Some(key) = self.key {
            remove(&self.calls.keys, key);
        }
        if let Some(channel) = self.channel.take() {
            remove(&self.calls.channels, channel);
        }
        self.calls.total.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call's place among those that are being set up.
#[derive(Debug)]
pub struct Setup {
    calls: Arc<Calls>,
    key: Option<KeyDigest>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            remove(&self.calls.keys_setups, key);
        }
        self.calls.setups.fetch_sub(1, Ordering::Relaxed);
    }
}

fn raise(count: &AtomicUsize, most: usize) -> Option<()> {
    let more = |count: usize| (count < most).then_some(count + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(drop)
}

fn add<K: Eq + Hash>(counts: &DashMap<K, usize>, key: K, most: usize) -> bool {
    let mut count = counts.entry(key).or_insert(0);
    let fits = *count < most;
    *count += usize::from(fits);
    fits
}

fn remove<K: Eq + Hash>(counts: &DashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut entry) = counts.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let calls = Arc::<Calls>::default();
        let bounds = Bounds { total: 3, per_key: 2, setups: 1 };
        let [one, two] = ["pk_one_12345", "pk_two_12345"].map(|key| KeyDigest::of(key.as_bytes()));
        let mut first = calls.place(one, bounds).unwrap();
        let second = calls.place(one, bounds).unwrap();
        assert_eq!(calls.place(one, bounds).unwrap_err(), Full::Key);
        assert_eq!(calls.len(), 2);
        let third = calls.place(two, bounds).unwrap();
        assert_eq!(calls.place(two, bounds).unwrap_err(), Full::Total);
        let channel: Arc<str> = "c".into();
        first.on(&channel, Some(1)).unwrap();
        first.on(&channel, Some(1)).unwrap();
        let mut third = third;
        assert_eq!(third.on(&channel, Some(1)).unwrap_err(), Full::Channel);
        let setup = calls.set_up(one, bounds).unwrap();
        assert_eq!(calls.set_up(two, bounds).unwrap_err(), Full::Setups);
        let more = Bounds { setups: 5, ..bounds };
        let other = calls.set_up(one, more).unwrap();
        assert_eq!(calls.set_up(one, more).unwrap_err(), Full::KeySetups);
        drop((calls.set_up(two, more).unwrap(), other));
        drop((first, second, third, setup));
        assert!(
            calls.is_empty()
                && calls.setups() == 0
                && calls.keys.is_empty()
                && calls.channels.is_empty()
                && calls.keys_setups.is_empty()
        );
    }
}
