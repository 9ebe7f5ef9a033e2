//! How each channel is doing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aiproxy_config::model::Breaker as Settings;
use dashmap::DashMap;

use crate::breaker::{Breaker, State};

/// How long a success speaks against a refusal of the account.
const STILL_GOOD: Duration = Duration::from_secs(10);

/// How a request to a channel went, as far as it says something about the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The channel answered, be it with an error of the caller's making.
    Good,
    /// The channel failed: unreachable, broken, too late, or a server error.
    Bad,
    /// Nothing can be said: the caller left first, or was itself at fault.
    Nothing,
}

/// Whether a channel may be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It may.
    Ready,
    /// Only if there is no other: it asked to be left alone, refused our account, or its health
    /// check fails.
    LastResort,
    /// It may not until then: its breaker is open.
    Closed(Instant),
}

/// What is known of one channel; kept across reloads.
#[derive(Debug, Default)]
pub struct Channel {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    breaker: Breaker,
    /// Left alone until then.
    resting: Option<Instant>,
    /// The platform refused the channel's key or account; cleared by the next success.
    rejected: bool,
    /// When it last answered anything but a refusal of the account.
    good: Option<Instant>,
    /// Consecutive failures of the health check.
    checks_failed: u32,
    /// The health check has failed often enough.
    unhealthy: bool,
}

/// A moment's view of a channel, for metrics and `/readyz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// What the breaker does.
    pub breaker: State,
    /// Whether the platform refuses the channel's key or account.
    pub rejected: bool,
    /// Whether the health check fails.
    pub unhealthy: bool,
}

impl Channel {
    /// Whether the channel may be used now. Changes nothing.
    #[must_use]
    pub fn availability(&self, now: Instant) -> Availability {
        let inner = self.lock();
        if let State::Open(until) = inner.breaker.state(now) {
            return Availability::Closed(until);
        }
        if inner.unhealthy || inner.resting.is_some_and(|until| until > now) {
            return Availability::LastResort;
        }
        Availability::Ready
    }

    /// Takes a place at the channel: false while the breaker is open or its probe under way. Who
    /// got `true` has to [`report`](Self::report).
    pub fn admit(&self, settings: &Settings, now: Instant) -> bool {
        self.lock().breaker.admit(settings, now)
    }

    /// Tells how it went. Returns the breaker's new state when it has changed.
    pub fn report(&self, verdict: Verdict, settings: &Settings, now: Instant) -> Option<State> {
        let mut inner = self.lock();
        let changed = match verdict {
            Verdict::Good => {
                inner.rejected = false;
                inner.good = Some(now);
                inner.breaker.success(settings, now)
            }
            Verdict::Bad => inner.breaker.failure(settings, now),
            Verdict::Nothing => {
                inner.breaker.abandoned();
                false
            }
        };
        changed.then(|| inner.breaker.state(now))
    }

    /// Leaves the channel alone for a while, as it asked.
    pub fn rest(&self, time: Duration, now: Instant) {
        let mut inner = self.lock();
        let until = now + time;
        inner.resting = Some(inner.resting.map_or(until, |already| already.max(until)));
    }

    /// The platform refused the channel's key or account. Returns whether that is news. Where the
    /// same key worked a moment ago, the refusal is about what was asked for, whatever its status:
    /// one caller must not be able to mark the channel for everybody.
    pub fn reject(&self, rest: Duration, now: Instant) -> bool {
        let mut inner = self.lock();
        inner.breaker.abandoned();
        if inner.good.is_some_and(|good| now.duration_since(good) < STILL_GOOD) {
            return false;
        }
        let until = now + rest;
        inner.resting = Some(inner.resting.map_or(until, |already| already.max(until)));
        !std::mem::replace(&mut inner.rejected, true)
    }

    /// The outcome of a health check. Returns the new verdict when it has changed.
    pub fn checked(&self, healthy: bool, threshold: u32) -> Option<bool> {
        let mut inner = self.lock();
        inner.checks_failed = if healthy { 0 } else { inner.checks_failed.saturating_add(1) };
        let unhealthy = inner.checks_failed >= threshold.max(1);
        let changed = inner.unhealthy != unhealthy;
        inner.unhealthy = unhealthy;
        changed.then_some(!unhealthy)
    }

    /// A moment's view.
    #[must_use]
    pub fn view(&self, now: Instant) -> View {
        let inner = self.lock();
        View { breaker: inner.breaker.state(now), rejected: inner.rejected, unhealthy: inner.unhealthy }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All channels by id.
#[derive(Debug, Default)]
pub struct HealthMap {
    channels: DashMap<Arc<str>, Arc<Channel>>,
}

impl HealthMap {
    /// The channel's entry, made when it is first asked for.
    #[must_use]
    pub fn get(&self, id: &Arc<str>) -> Arc<Channel> {
        if let Some(channel) = self.channels.get(id) {
            return Arc::clone(&channel);
        }
        Arc::clone(&self.channels.entry(Arc::clone(id)).or_default())
    }

    /// Forgets what is known of a channel: it has been given another key or another place.
    pub fn forget(&self, id: &str) {
        self.channels.remove(id);
    }

    /// Forgets channels that are no longer configured.
    pub fn retain(&self, configured: impl Fn(&str) -> bool) {
        self.channels.retain(|id, _| configured(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_that_rests_is_a_last_resort_for_that_time_only() {
        let (channel, now) = (Channel::default(), Instant::now());
        assert_eq!(channel.availability(now), Availability::Ready);
        channel.rest(Duration::from_secs(5), now);
        assert_eq!(channel.availability(now), Availability::LastResort);
        assert_eq!(channel.availability(now + Duration::from_secs(5)), Availability::Ready);
    }

    #[test]
    fn a_rejected_account_is_news_once_until_it_works_again() {
        let (channel, now) = (Channel::default(), Instant::now());
        assert!(channel.reject(Duration::from_secs(5), now));
        assert!(!channel.reject(Duration::from_secs(5), now));
        assert!(channel.view(now).rejected);
        channel.report(Verdict::Good, &Settings::default(), now);
        assert!(!channel.view(now).rejected);
        assert!(!channel.reject(Duration::from_secs(5), now), "it has just worked");
        assert!(!channel.view(now).rejected);
        assert!(channel.reject(Duration::from_secs(5), now + STILL_GOOD));
    }

    #[test]
    fn health_checks_count_to_a_threshold() {
        let channel = Channel::default();
        assert_eq!(channel.checked(false, 2), None);
        assert_eq!(channel.checked(false, 2), Some(false));
        assert_eq!(channel.availability(Instant::now()), Availability::LastResort);
        assert_eq!(channel.checked(false, 2), None);
        assert_eq!(channel.checked(true, 2), Some(true));
        assert_eq!(channel.availability(Instant::now()), Availability::Ready);
    }
}
