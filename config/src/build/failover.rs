//! What happens when a channel fails: retries, breaker, health check.

use std::time::Duration;

use aiproxy_platform::{Placement, Platform, path};

use super::Builder;
use crate::complaint::{Complaint, shown};
use crate::model::{BaseUrl, Breaker, HealthCheck, Ownership, Retry};
use crate::tree::Trail;
use crate::{paths, raw};

/// Statuses after which another channel is always tried.
const ALWAYS: [u16; 2] = [429, 503];

/// What of the channel a health check meets.
pub(super) struct Target<'a> {
    pub(super) base: Option<&'a BaseUrl>,
    pub(super) platform: Option<&'static Platform>,
    pub(super) placement: &'a [Placement],
}

impl Builder<'_> {
    pub(super) fn breaker(&mut self, trail: &Trail, raw: &raw::Breaker) -> Breaker {
        let usual = Breaker::default();
        self.at_least_a_second(trail, "window", raw.window);
        let cooldown = raw.cooldown.map_or(usual.cooldown, |value| value.0);
        let max_cooldown = raw.max_cooldown.map_or(usual.max_cooldown, |value| value.0);
        if cooldown.is_zero() {
            let complaint = Complaint::new("a cooldown of 0 is none", "write a time such as `10s`");
            self.error(&trail.key("cooldown"), complaint);
        } else if max_cooldown < cooldown {
            let (at, what) = match raw.max_cooldown {
                Some(_) => ("max_cooldown", String::new()),
                None => ("cooldown", format!(" of {} seconds", max_cooldown.as_secs())),
            };
            let message = format!("`max_cooldown`{what} is shorter than `cooldown`");
            self.error(&trail.key(at), Complaint::new(message, "write a longer `max_cooldown`"));
        }
        Breaker {
            failures: raw.failures.unwrap_or(usual.failures),
            error_rate: raw.error_rate.unwrap_or(usual.error_rate),
            min_requests: raw.min_requests.unwrap_or(usual.min_requests),
            window: raw.window.map_or(usual.window, |value| value.0),
            cooldown,
            max_cooldown,
        }
    }

    pub(super) fn health(
        &mut self,
        trail: &Trail,
        raw: &raw::Health,
        target: &Target<'_>,
    ) -> Option<HealthCheck> {
        self.at_least_a_second(trail, "interval", raw.interval);
        let text = raw.path.as_deref()?;
        let (path, query) = paths::request(text).ok()?;
        let at = trail.key("path");
        // As for callers: both what is written and what the platform will see.
        let base = target.base.map_or("", |base| &base.path);
        let rule = [path.to_owned(), format!("{base}{path}")].iter().find_map(|path| {
            let normal = path::normalize(path).ok()?;
            target.platform?.forbids(&normal)
        });
        if let Some(rule) = rule {
            let message = format!("{} is never asked for: it {}", shown(path), rule.why);
            self.error(&at, Complaint::new(message, "choose a harmless path, such as a list of models"));
        }
        let names = || query.into_iter().flat_map(|query| query.split('&')).map(name);
        let taken = target.placement.iter().find_map(|place| match place {
            Placement::Query { name } if names().any(|have| *have == **name) => Some(name),
            _ => None,
        });
        if let Some(name) = taken {
            let message = format!("the channel's key goes into the query parameter `{name}`");
            self.error(&at, Complaint::new(message, "leave it out here: it is added by itself"));
        }
        Some(HealthCheck {
            path: text.to_owned(),
            interval: raw.interval.map_or(Duration::from_secs(30), |value| value.0),
            threshold: raw.threshold.unwrap_or(3),
        })
    }

    fn at_least_a_second(&mut self, trail: &Trail, name: &str, value: Option<raw::Span>) {
        if value.is_some_and(|value| value.0 < Duration::from_secs(1)) {
            let complaint =
                Complaint::new(format!("`{name}` is shorter than a second"), "write `1s` or more");
            self.error(&trail.key(name), complaint);
        }
    }
}

/// The name of a `name=value` pair.
fn name(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

pub(super) fn retry(raw: &raw::Retry) -> Retry {
    let usual = Retry::default();
    let mut on: Vec<u16> = raw.on.iter().flatten().flatten().copied().collect();
    on.retain(|status| !ALWAYS.contains(status));
    on.sort_unstable();
    on.dedup();
    Retry { attempts: raw.attempts.unwrap_or(usual.attempts), on }
}

impl From<raw::Ownership> for Ownership {
    fn from(ownership: raw::Ownership) -> Self {
        match ownership {
            raw::Ownership::Enforce => Self::Enforce,
            raw::Ownership::Shared => Self::Shared,
            raw::Ownership::Off => Self::Off,
        }
    }
}
