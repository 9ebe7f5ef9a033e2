//! When to leave a channel alone for a while. No clock inside: `now` is an argument.
//!
//! Closed, it lets everything through and counts. Consecutive failures, or too high a rate of
//! failures over a window, open it: nothing goes through for a cooldown. Then it is half-open: one
//! request at a time goes through as a probe; a success closes it, a failure opens it again for
//! twice as long, up to a bound.

use std::time::{Duration, Instant};

use aiproxy_config::model::Breaker as Settings;

/// What a breaker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Everything goes through.
    Closed,
    /// Nothing goes through until then.
    Open(Instant),
    /// One probe at a time goes through.
    HalfOpen,
}

impl State {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open(_) => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// One channel's breaker.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    consecutive: u32,
    cooldown: Option<Duration>,
    /// When the probe under way began; an abandoned one gives way after the window.
    probe: Option<Instant>,
    current: Bucket,
    previous: Bucket,
}

/// Half a window.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    since: Option<Instant>,
    requests: u32,
    failures: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed,
            consecutive: 0,
            cooldown: None,
            probe: None,
            current: Bucket::default(),
            previous: Bucket::default(),
        }
    }
}

impl Breaker {
    /// What it is doing at `now`.
    #[must_use]
    pub fn state(&self, now: Instant) -> State {
        match self.state {
            State::Open(until) if until <= now => State::HalfOpen,
            state => state,
        }
    }

    /// Whether a request may go through now. In half-open state a `true` makes it the probe: its
    /// outcome has to be reported.
    pub fn admit(&mut self, settings: &Settings, now: Instant) -> bool {
        self.state = self.state(now);
        match self.state {
            State::Closed => true,
            State::Open(_) => false,
            State::HalfOpen => {
                if self.probe.is_some_and(|began| now.duration_since(began) < settings.window) {
                    return false;
                }
                self.probe = Some(now);
                true
            }
        }
    }

    /// A request has been answered. Returns whether this closed the breaker.
    pub fn success(&mut self, settings: &Settings, now: Instant) -> bool {
        self.count(settings, now, false);
        self.consecutive = 0;
        if self.state(now) != State::HalfOpen {
            return false;
        }
        *self = Self::default();
        true
    }

    /// A request has failed for reasons of the channel. Returns whether this opened the breaker.
    pub fn failure(&mut self, settings: &Settings, now: Instant) -> bool {
        self.count(settings, now, true);
        self.consecutive = self.consecutive.saturating_add(1);
        match self.state(now) {
            State::Open(_) => false,
            State::HalfOpen => {
                self.open(settings, now);
                true
            }
            State::Closed => {
                let requests = self.current.requests + self.previous.requests;
                let failures = self.current.failures + self.previous.failures;
                let rate = f64::from(failures) / f64::from(requests.max(1));
                let opens = self.consecutive >= settings.failures
                    || (requests >= settings.min_requests && rate >= settings.error_rate);
                if opens {
                    self.open(settings, now);
                }
                opens
            }
        }
    }

    /// A request that was let through came to nothing that says anything about the channel.
    pub fn abandoned(&mut self) {
        self.probe = None;
    }

    fn open(&mut self, settings: &Settings, now: Instant) {
        let cooldown = self.cooldown.map_or(settings.cooldown, |last| (last * 2).min(settings.max_cooldown));
        *self = Self { state: State::Open(now + cooldown), cooldown: Some(cooldown), ..Self::default() };
    }

    fn count(&mut self, settings: &Settings, now: Instant, failed: bool) {
        let half = settings.window / 2;
        let age = now.duration_since(*self.current.since.get_or_insert(now));
        if age >= half {
            self.previous = if age < settings.window { self.current } else { Bucket::default() };
            self.current = Bucket { since: Some(now), ..Bucket::default() };
        }
        self.current.requests += 1;
        self.current.failures += u32::from(failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Settings = Settings {
        failures: 3,
        error_rate: 0.5,
        min_requests: 10,
        window: Duration::from_secs(10),
        cooldown: Duration::from_secs(4),
        max_cooldown: Duration::from_secs(10),
    };

    fn fail_thrice(breaker: &mut Breaker, now: Instant) {
        for _ in 0..3 {
            breaker.failure(&S, now);
        }
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn one_failure_never_opens_it_consecutive_ones_do() {
        let (mut breaker, t) = (Breaker::default(), Instant::now());
        assert!(!breaker.failure(&S, t));
        assert!(!breaker.failure(&S, t));
        assert!(!breaker.success(&S, t));
        assert!(!breaker.failure(&S, t));
        assert!(!breaker.failure(&S, t));
        assert!(breaker.admit(&S, t));
        assert!(breaker.failure(&S, t));
        assert!(!breaker.admit(&S, t));
        assert_eq!(breaker.state(t), State::Open(after(t, 4)));
    }

    #[test]
    fn half_open_lets_one_probe_through_and_its_outcome_decides() {
        let (mut breaker, t) = (Breaker::default(), Instant::now());
        fail_thrice(&mut breaker, t);
        assert!(!breaker.admit(&S, after(t, 3)));
        assert_eq!(breaker.state(after(t, 4)), State::HalfOpen);
        assert!(breaker.admit(&S, after(t, 4)));
        assert!(!breaker.admit(&S, after(t, 4)));
        assert!(breaker.failure(&S, after(t, 5)));
        assert_eq!(breaker.state(after(t, 5)), State::Open(after(t, 13)));
        assert!(breaker.admit(&S, after(t, 13)));
        assert!(breaker.success(&S, after(t, 13)));
        assert_eq!(breaker.state(after(t, 13)), State::Closed);
        // The next cooldown is the first again.
        fail_thrice(&mut breaker, after(t, 14));
        assert_eq!(breaker.state(after(t, 14)), State::Open(after(t, 18)));
    }

    #[test]
    fn cooldowns_grow_up_to_a_bound() {
        let (mut breaker, t) = (Breaker::default(), Instant::now());
        fail_thrice(&mut breaker, t);
        let mut now = after(t, 4);
        for expected in [8, 10, 10] {
            assert!(breaker.admit(&S, now));
            assert!(breaker.failure(&S, now));
            assert_eq!(breaker.state(now), State::Open(after(now, expected)));
            now = after(now, expected);
        }
    }

    #[test]
    fn a_rate_of_failures_over_the_window_opens_it() {
        let (mut breaker, t) = (Breaker::default(), Instant::now());
        let mut opened = false;
        for n in 0..10 {
            opened |= if n % 2 == 0 { breaker.failure(&S, t) } else { breaker.success(&S, t) };
        }
        assert!(!opened);
        assert!(breaker.failure(&S, t));
        // Old outcomes are forgotten.
        let mut breaker = Breaker::default();
        for n in 0..9 {
            if n % 2 == 0 {
                breaker.failure(&S, t)
            } else {
                breaker.success(&S, t)
            };
        }
        assert!(!breaker.failure(&S, after(t, 11)));
    }

    #[test]
    fn an_abandoned_probe_gives_way() {
        let (mut breaker, t) = (Breaker::default(), Instant::now());
        fail_thrice(&mut breaker, t);
        assert!(breaker.admit(&S, after(t, 4)));
        breaker.abandoned();
        assert!(breaker.admit(&S, after(t, 4)));
        assert!(!breaker.admit(&S, after(t, 13)));
        assert!(breaker.admit(&S, after(t, 14)));
    }
}
