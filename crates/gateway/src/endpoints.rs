//! The endpoints that records name: known templates, and a bounded number of others.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

/// Endpoints of no known template that are named as they are. What comes beyond is named by its
/// prefix alone.
const MOST: usize = 256;

/// Endpoints of no known template, as seen so far. Shared by all threads.
#[derive(Debug, Default)]
pub(crate) struct Endpoints(RwLock<HashSet<Box<str>>>);

impl Endpoints {
    /// The name of an endpoint that was guessed. Only one that a platform has served
    /// takes one of the places, so that nobody fills them with nonsense.
    pub(crate) fn name(&self, guess: String, prefix: &str, served: bool) -> Cow<'static, str> {
        if self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&*guess) {
            return guess.into();
        }
        if served {
            let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if known.len() < MOST {
                known.insert(guess.as_str().into());
                return guess.into();
            }
        }
        format!("{}/…", prefix.trim_end_matches('/')).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_served_is_named_and_only_so_much() {
        let endpoints = Endpoints::default();
        assert_eq!(endpoints.name("/v1/a".into(), "/v1", false), "/v1/…");
        assert_eq!(endpoints.name("/v1/a".into(), "/v1", true), "/v1/a");
        assert_eq!(endpoints.name("/v1/a".into(), "/v1", false), "/v1/a");
        for number in 1..MOST {
            assert_eq!(endpoints.name(format!("/x/{number}"), "/", true), format!("/x/{number}"));
        }
        assert_eq!(endpoints.name("/x/more".into(), "/", true), "/…");
        assert_eq!(endpoints.name("/v1/a".into(), "/v1", true), "/v1/a");
    }
}
