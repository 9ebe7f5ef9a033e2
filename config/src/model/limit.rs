//! What several levels allow together.

/// Lists of which each has to allow a thing: those of the user's groups (one list for all of them), of
/// the user and of the key. None is no limit, so the narrowest counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit<T>(Vec<Vec<T>>);

impl<T> Default for Limit<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Limit<T> {
    /// One list.
    #[must_use]
    pub fn of(list: Vec<T>) -> Self {
        Self(vec![list])
    }

    /// Whether everything is allowed.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether each list has an item that fits.
    #[must_use]
    pub fn allows(&self, mut fits: impl FnMut(&T) -> bool) -> bool {
        self.0.iter().all(|list| list.iter().any(&mut fits))
    }

    /// Narrows it by one list more.
    pub fn narrow(&mut self, list: Vec<T>) {
        self.0.push(list);
    }

    /// The lists.
    #[must_use]
    pub fn lists(&self) -> &[Vec<T>] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Limit;

    #[test]
    fn each_list_has_to_allow() {
        let mut limit = Limit::default();
        assert!(limit.is_none() && limit.allows(|_: &u8| false));
        limit.narrow(vec![1, 2]);
        limit.narrow(vec![2, 3]);
        for (wanted, allowed) in [(1, false), (2, true), (3, false)] {
            assert_eq!(limit.allows(|item| *item == wanted), allowed, "{wanted}");
        }
        limit.narrow(Vec::new());
        assert!(!limit.allows(|_| true), "an empty list allows nothing");
    }
}
