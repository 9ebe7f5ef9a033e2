//! A map of which copies share what did not change.
//!
//! A reload after one edit makes another snapshot of ten thousand users: with 256 small maps behind
//! pointers it copies one of them, and readers of the old snapshot see nothing of it. A look-up costs
//! what it costs in one map, and one more pointer.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

const SHARDS: usize = 256;

/// A hash map in pieces that copies share.
#[derive(Clone)]
pub struct Shards<K, V, S = RandomState> {
    shards: Arc<[Arc<HashMap<K, V, S>>]>,
    hasher: S,
    len: usize,
}

impl<K: Hash + Eq + Clone, V: Clone, S: BuildHasher + Clone + Default> Shards<K, V, S> {
    /// The value under this key.
    #[must_use]
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shards[self.place(key)].get(key)
    }

    /// Puts a value in place of another, which it returns. Copies of the map made before keep theirs.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let place = self.place(&key);
        let old = self.shard(place).insert(key, value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Takes a value out.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let place = self.place(key);
        if !self.shards[place].contains_key(key) {
            return None;
        }
        let old = self.shard(place).remove(key);
        self.len -= usize::from(old.is_some());
        old
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A piece to be changed: where another copy of the map has it too, a piece of our own.
    fn shard(&mut self, place: usize) -> &mut HashMap<K, V, S> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[place])
    }

    fn place<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        // The low bits choose within a piece.
        usize::from((self.hasher.hash_one(key) >> 32) as u8)
    }
}

impl<K, V, S: Clone + Default> Default for Shards<K, V, S> {
    fn default() -> Self {
        let hasher = S::default();
        let shards = (0..SHARDS).map(|_| Arc::new(HashMap::with_hasher(hasher.clone()))).collect();
        Self { shards, hasher, len: 0 }
    }
}

impl<K, V, S> fmt::Debug for Shards<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone, V: Clone, S: BuildHasher + Clone + Default> FromIterator<(K, V)>
    for Shards<K, V, S>
{
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_until_one_changes() {
        let before: Shards<u32, String> = (0..10_000).map(|n| (n, n.to_string())).collect();
        let mut after = before.clone();
        assert_eq!(after.insert(7, "seven".into()).as_deref(), Some("7"));
        assert_eq!(after.remove(&8).as_deref(), Some("8"));
        assert_eq!(after.remove(&8), None);
        assert_eq!(after.insert(10_000, "new".into()), None);
        assert_eq!((before.get(&7).unwrap().as_str(), before.get(&8).unwrap().as_str()), ("7", "8"));
        assert_eq!((after.get(&7).unwrap().as_str(), after.get(&8)), ("seven", None));
        assert_eq!((before.len(), after.len()), (10_000, 10_000));
        let shared = before.shards.iter().zip(after.shards.iter()).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= SHARDS - 3, "{shared}");
        assert_eq!(after.values().count(), 10_000);
    }
}
