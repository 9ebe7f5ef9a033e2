//! What an administrator has cut off, whatever the configuration says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aiproxy_config::model::User;
use aiproxy_core::{ErrorKind, KeyDigest};
use dashmap::DashMap;

/// Who or what is denied.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A user, with every key.
    User(Arc<str>),
    /// One key, even if the configuration gives it to somebody again.
    Key(KeyDigest),
}

/// Denials by subject. They win over the configuration and survive its reloads.
#[derive(Debug, Default)]
pub struct Denials {
    subjects: DashMap<Subject, ()>,
    /// So that the usual case, none at all, costs one load.
    count: AtomicUsize,
}

impl Denials {
    /// Denies; returns whether that is news.
    pub(crate) fn add(&self, subject: Subject) -> bool {
        let news = self.subjects.insert(subject, ()).is_none();
        self.count.fetch_add(usize::from(news), Ordering::SeqCst);
        news
    }

    /// Takes a denial back; returns whether there was one.
    pub(crate) fn remove(&self, subject: &Subject) -> bool {
        let was = self.subjects.remove(subject).is_some();
        self.count.fetch_sub(usize::from(was), Ordering::SeqCst);
        was
    }

    /// Why this user may not go on: [`ErrorKind::UserDisabled`] or [`ErrorKind::KeyDisabled`].
    #[must_use]
    pub fn of(&self, user: &User) -> Option<ErrorKind> {
        self.of_ids(&user.id, &user.key.digest)
    }

    /// As [`of`](Self::of), where only ids are at hand.
    #[must_use]
    pub fn of_ids(&self, user: &Arc<str>, key: &KeyDigest) -> Option<ErrorKind> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        if self.subjects.contains_key(&Subject::User(Arc::clone(user))) {
            return Some(ErrorKind::UserDisabled);
        }
        self.subjects.contains_key(&Subject::Key(*key)).then_some(ErrorKind::KeyDisabled)
    }
}
