//! Client secrets that count: how many of a Proxy-Key live, and which are used up.
//!
//! The secrets themselves are nowhere: a sealed token says all there is. Minting and first uses are
//! rare, so that one lock will do.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aiproxy_core::KeyDigest;
use aiproxy_core::ports::UsedSecrets;

/// Used secrets that are remembered at one time; each until it expires.
pub const LIMIT: usize = 100_000;
/// How often what has expired is forgotten, in seconds.
const SWEEP: i64 = 60;

/// Why a secret for one session begins none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// It has begun one.
    Already,
    /// No more can be remembered at the moment.
    Full,
}

/// What is known of client secrets.
#[derive(Default)]
pub struct Minted {
    inner: Mutex<Inner>,
    journal: Option<Arc<dyn UsedSecrets>>,
}

#[derive(Default)]
struct Inner {
    /// When the secrets of each Proxy-Key expire.
    living: HashMap<KeyDigest, BinaryHeap<Reverse<i64>>>,
    /// Ids of used secrets, and when they expire.
    used: HashMap<Box<str>, i64>,
    swept: i64,
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted").finish_non_exhaustive()
    }
}

impl Minted {
    /// Goes on where the process before ended: with these ids of used secrets and when they expire.
    /// Further ones are told to the journal. How many secrets live is not known of before.
    #[must_use]
    pub fn kept(journal: Arc<dyn UsedSecrets>, used: Vec<(String, i64)>) -> Self {
        let used = used.into_iter().take(LIMIT).map(|(id, expires)| (id.into(), expires)).collect();
        Self { inner: Mutex::new(Inner { used, ..Inner::default() }), journal: Some(journal) }
    }

    /// Counts one more secret of this Proxy-Key, of which `most` may live at one time.
    ///
    /// # Errors
    /// In how many seconds the next one expires, where there are as many already.
    pub fn count(&self, key: &KeyDigest, expires: i64, now: i64, most: usize) -> Result<(), u64> {
        let mut inner = self.lock();
        inner.sweep(now);
        let living = inner.living.entry(*key).or_default();
        while living.peek().is_some_and(|Reverse(end)| *end <= now) {
            living.pop();
        }
        if living.len() >= most {
            let next = living.peek().map_or(1, |Reverse(end)| end.saturating_sub(now));
            return Err(next.unsigned_abs());
        }
        living.push(Reverse(expires));
        Ok(())
    }

    /// Uses up a secret for one session.
    ///
    /// # Errors
    /// See [`Spent`]: it begins none then.
    pub fn spend(&self, id: &str, expires: i64, now: i64) -> Result<(), Spent> {
        let mut inner = self.lock();
        inner.sweep(now);
        if inner.used.contains_key(id) {
            return Err(Spent::Already);
        }
        if inner.used.len() >= LIMIT {
            return Err(Spent::Full);
        }
        inner.used.insert(id.into(), expires);
        // Before anybody else can ask: the order of the notes does not matter, that there is one does.
        if let Some(journal) = &self.journal {
            journal.keep(id, expires);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn sweep(&mut self, now: i64) {
        if now - self.swept < SWEEP && self.used.len() < LIMIT {
            return;
        }
        self.swept = now;
        self.used.retain(|_, expires| *expires > now);
        self.living.retain(|_, living| {
            living.retain(|Reverse(end)| *end > now);
            !living.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> KeyDigest {
        KeyDigest::of(text.as_bytes())
    }

    #[derive(Default)]
    struct Notes(Mutex<Vec<(String, i64)>>);

    impl UsedSecrets for Notes {
        fn keep(&self, id: &str, expires: i64) {
            self.0.lock().unwrap().push((id.to_owned(), expires));
        }
    }

    #[test]
    fn each_key_has_so_many_that_live() {
        let minted = Minted::default();
        let (one, two) = (digest("one"), digest("two"));
        assert_eq!(minted.count(&one, 130, 100, 2), Ok(()));
        assert_eq!(minted.count(&one, 110, 100, 2), Ok(()));
        assert_eq!(minted.count(&one, 200, 100, 2), Err(10), "the first to expire");
        assert_eq!(minted.count(&two, 200, 100, 2), Ok(()));
        assert_eq!(minted.count(&one, 200, 109, 2), Err(1));
        assert_eq!(minted.count(&one, 200, 110, 2), Ok(()));
        assert_eq!(minted.count(&one, 200, 110, 2), Err(20));
        assert_eq!(minted.count(&one, 900, 500, 0), Err(1), "none at all");
        assert_eq!(minted.lock().living.len(), 1, "keys without secrets are forgotten");
    }

    #[test]
    fn a_secret_is_used_once_and_remembered_until_it_expires() {
        let notes = Arc::new(Notes::default());
        let minted = Minted::kept(Arc::clone(&notes) as _, vec![("old".into(), 500)]);
        assert_eq!(minted.spend("old", 500, 100), Err(Spent::Already));
        assert_eq!(minted.spend("new", 300, 100), Ok(()));
        assert_eq!(minted.spend("new", 300, 100), Err(Spent::Already));
        assert_eq!(*notes.0.lock().unwrap(), [("new".to_owned(), 300)]);
        assert_eq!(minted.spend("third", 900, 400), Ok(()));
        assert_eq!(minted.lock().used.len(), 2, "what has expired is forgotten");
    }

    #[test]
    fn there_is_a_bound() {
        let used = (0..LIMIT + 5).map(|index| (index.to_string(), 500)).collect();
        let minted = Minted::kept(Arc::new(Notes::default()), used);
        assert_eq!(minted.spend("one more", 600, 100), Err(Spent::Full));
        assert_eq!(minted.spend("one more", 600, 500), Ok(()));
    }

    #[test]
    fn of_many_at_once_one_is_first() {
        let minted = Arc::new(Minted::default());
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let minted = Arc::clone(&minted);
                std::thread::spawn(move || minted.spend("once", 500, 100).is_ok())
            })
            .collect();
        let won: Vec<bool> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
    }
}
