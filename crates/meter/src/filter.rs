//! Which records are meant.

use std::time::SystemTime;

use aiproxy_platform::glob;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::codec::Decoded;

/// Narrows records down. Lists that are empty narrow nothing; in patterns `*` is any run of
/// characters.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Begun at this moment or later.
    pub since: Option<SystemTime>,
    /// Begun before this moment.
    pub until: Option<SystemTime>,
    /// Ids of users, as patterns.
    pub users: Vec<String>,
    /// Ids of channels, as patterns.
    pub channels: Vec<String>,
    /// Names of models, as patterns: those asked for, else those served.
    pub models: Vec<String>,
    /// Endpoints, as patterns.
    pub endpoints: Vec<String>,
    /// Names of outcomes.
    pub outcomes: Vec<String>,
}

impl Filter {
    /// Whether the record is meant.
    #[must_use]
    pub fn admits(&self, event: &Decoded<'_>) -> bool {
        let among = |patterns: &[String], value: Option<&str>| {
            patterns.is_empty() || value.is_some_and(|value| glob::any(patterns, value))
        };
        self.since.is_none_or(|since| event.started >= since)
            && self.until.is_none_or(|until| event.started < until)
            && among(&self.users, event.user)
            && among(&self.channels, event.channel)
            && among(&self.models, event.any_model())
            && among(&self.endpoints, Some(event.endpoint))
            && among(&self.outcomes, Some(event.outcome))
    }
}

/// A moment as people write it: RFC 3339 (`2026-11-23T08:00:00+08:00`), a date with or without a time
/// (in the time zone), or a span before `now` (`90m`, `24h`, `7d`). None for anything else.
#[must_use]
pub fn moment(text: &str, now: SystemTime, zone: &TimeZone) -> Option<SystemTime> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp.into());
    }
    // A date alone is read as its beginning; jiff would take one that a time follows as well.
    if let Ok(moment) = text.parse::<jiff::civil::DateTime>() {
        return Some(moment.to_zoned(zone.clone()).ok()?.timestamp().into());
    }
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let number = number.parse::<u32>().ok()?;
    let span = SignedDuration::from_secs(i64::from(number) * seconds);
    let now = Timestamp::try_from(now).ok()?;
    Some(now.checked_sub(span).ok()?.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::codec::{decode, encode};
    use crate::testing::event;

    #[test]
    fn moments_are_read_as_people_write_them() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        for (text, expected) in [
            ("1970-01-02T00:00:00Z", Some(at(86_400))),
            ("1970-01-02T00:00:00+08:00", Some(at(57_600))),
            ("1970-01-02", Some(at(57_600))),
            ("1970-01-02T08:00:01", Some(at(86_401))),
            ("1970-01-02 08:00", Some(at(86_400))),
            ("90m", Some(at(1_000_000 - 5400))),
            ("2d", Some(at(1_000_000 - 172_800))),
            ("0s", Some(at(1_000_000))),
            ("", None),
            ("d", None),
            ("-1d", None),
            ("1w", None),
            ("昨天", None),
            ("9999999999d", None),
        ] {
            assert_eq!(moment(text, at(1_000_000), &zone), expected, "{text}");
        }
    }

    #[test]
    fn records_are_narrowed_down_by_every_field() {
        let mut record = Vec::new();
        encode(&mut record, &event("/v1/chat/completions"));
        let event = decode(&record).unwrap();
        let one = |text: &str| vec![text.to_owned()];
        assert!(Filter::default().admits(&event));
        for (filter, admits) in [
            (Filter { users: one("张*"), ..Filter::default() }, true),
            (Filter { users: one("李四"), ..Filter::default() }, false),
            (Filter { channels: vec!["x".into(), "openai".into()], ..Filter::default() }, true),
            (Filter { models: one("gpt-*"), ..Filter::default() }, true),
            (Filter { models: one("qwen*"), ..Filter::default() }, false),
            (Filter { endpoints: one("/v1/chat/*"), ..Filter::default() }, true),
            (Filter { outcomes: one("complete"), ..Filter::default() }, false),
            (Filter { since: Some(event.started), ..Filter::default() }, true),
            (Filter { until: Some(event.started), ..Filter::default() }, false),
        ] {
            assert_eq!(filter.admits(&event), admits, "{filter:?}");
        }
    }
}
