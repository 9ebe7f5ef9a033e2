//! Records added up by user, channel, model and the like.

use std::collections::{BTreeMap, HashMap};

use aiproxy_core::Tokens;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::codec::Decoded;

/// Rows are told apart up to this many; what comes beyond is one row.
const ROWS: usize = 200_000;
/// The value of every column in that row.
const REST: &str = "…";
/// The value where a record has none.
const NONE: &str = "-";

/// What records are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Id of the user.
    User,
    /// Name of the key: its beginning and that of its digest.
    Key,
    /// Id of the channel.
    Channel,
    /// The model asked for.
    Model,
    /// Template of the path.
    Endpoint,
    /// What the caller spoke.
    Protocol,
    /// How it ended.
    Outcome,
    /// What kind of thing went wrong.
    ErrorClass,
    /// Status of the answer.
    Status,
    /// The hour in which it began.
    Hour,
    /// The day on which it began.
    Day,
}

impl By {
    /// Every one, with its name.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("user", Self::User),
        ("key", Self::Key),
        ("channel", Self::Channel),
        ("model", Self::Model),
        ("endpoint", Self::Endpoint),
        ("protocol", Self::Protocol),
        ("outcome", Self::Outcome),
        ("error_class", Self::ErrorClass),
        ("status", Self::Status),
        ("hour", Self::Hour),
        ("day", Self::Day),
    ];

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, by)| *by == self).map_or("", |(name, _)| name)
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, by)| *by)
    }

    fn of(self, event: &Decoded<'_>, zone: &TimeZone) -> String {
        let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).unwrap_or(NONE).to_owned();
        let time = |format| {
            let at = Timestamp::try_from(event.started).unwrap_or_default();
            at.to_zoned(zone.clone()).strftime(format).to_string()
        };
        match self {
            Self::User => text(event.user),
            Self::Key => match (event.key, event.key_id) {
                (Some(key), Some(id)) => format!("{key}…{id}"),
                (_, id) => text(id),
            },
            Self::Channel => text(event.channel),
            Self::Model => text(event.any_model()),
            Self::Endpoint => text(Some(event.endpoint)),
            Self::Protocol => text(Some(event.protocol)),
            Self::Outcome => text(Some(event.outcome)),
            Self::ErrorClass => text(event.error_class),
            Self::Status => event.status.to_string(),
            Self::Hour => time("%Y-%m-%dT%H:00%:z"),
            Self::Day => time("%Y-%m-%d"),
        }
    }
}

/// What records add up to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Row {
    /// Requests and sessions.
    pub requests: u64,
    /// Platforms asked for them.
    pub attempts: u64,
    /// Requests by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Tokens by kind.
    #[serde(serialize_with = "tokens")]
    pub tokens: Tokens,
    /// Requests whose usage is, in part or whole, an estimate.
    pub estimated: u64,
    /// Seconds of sound or video, in millionths.
    #[serde(rename = "seconds", serialize_with = "millionths")]
    pub micros: u64,
    /// Images made.
    pub images: u64,
    /// Characters spoken.
    pub characters: u64,
    /// Body bytes from callers.
    pub bytes_in: u64,
    /// Body bytes to callers.
    pub bytes_out: u64,
    /// Cost by currency, in millionths of its unit.
    #[serde(serialize_with = "amounts")]
    pub cost: BTreeMap<String, i64>,
}

fn tokens<S: serde::Serializer>(tokens: &Tokens, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(Tokens::KINDS.iter().zip(tokens.counts()))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn millionths<S: serde::Serializer>(micros: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(*micros as f64 / 1e6)
}

fn amounts<S: serde::Serializer>(cost: &BTreeMap<String, i64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(cost.iter().map(|(currency, micros)| (currency, *micros as f64 / 1e6)))
}

impl Row {
    /// Adds a record.
    pub fn add(&mut self, event: &Decoded<'_>) {
        self.requests += 1;
        self.attempts += event.attempts;
        match self.outcomes.get_mut(event.outcome) {
            Some(count) => *count += 1,
            None => drop(self.outcomes.insert(event.outcome.to_owned(), 1)),
        }
        self.bytes_in = self.bytes_in.saturating_add(event.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(event.bytes_out);
        if let Some(used) = &event.usage {
            self.tokens = self.tokens.plus(&used.tokens);
            let micros = (used.seconds.unwrap_or(0.0) * 1e6).round() as u64;
            for (sum, more) in [
                (&mut self.images, used.images),
                (&mut self.characters, used.characters),
                (&mut self.micros, micros),
            ] {
                *sum = sum.saturating_add(more);
            }
            self.estimated += u64::from(used.estimated);
        }
        if let Some((micros, currency)) = event.cost {
            let sum = self.cost.entry(currency.to_owned()).or_default();
            *sum = sum.saturating_add(micros);
        }
    }

    /// Requests that ended, and not as they should.
    #[must_use]
    pub fn incomplete(&self) -> u64 {
        let well = |name| self.outcomes.get(name).copied().unwrap_or(0);
        self.requests - well("complete") - well("open")
    }
}

/// Records added up.
#[derive(Debug)]
pub struct Sums {
    by: Vec<By>,
    zone: TimeZone,
    rows: HashMap<Vec<String>, Row>,
    total: Row,
}

/// Sessions of which no last record has come yet: what is known of each. Records have to be shown in
/// the order of writing.
#[derive(Debug, Default)]
pub struct Open(HashMap<Box<str>, Vec<u8>>);

impl Open {
    /// Whether the record stands as it is; one of a session that goes on is kept instead.
    pub fn stands(&mut self, record: &[u8], event: &Decoded<'_>) -> bool {
        if event.is_open() {
            self.0.insert(event.request_id.into(), record.to_vec());
            return false;
        }
        if event.part.is_some() {
            self.0.remove(event.request_id);
        }
        true
    }

    /// The last records of those that were never closed, in no order.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        self.0.values().map(Vec::as_slice)
    }
}

impl Sums {
    /// Nothing yet. Hours and days are those of the time zone.
    #[must_use]
    pub fn new(by: Vec<By>, zone: TimeZone) -> Self {
        Self { by, zone, rows: HashMap::new(), total: Row::default() }
    }

    /// Adds a record.
    pub fn add(&mut self, event: &Decoded<'_>) {
        let mut name: Vec<String> = self.by.iter().map(|by| by.of(event, &self.zone)).collect();
        if self.rows.len() >= ROWS && !self.rows.contains_key(&name) {
            name = vec![REST.to_owned(); self.by.len()];
        }
        self.rows.entry(name).or_default().add(event);
        self.total.add(event);
    }

    /// What the rows are told apart by.
    #[must_use]
    pub fn by(&self) -> &[By] {
        &self.by
    }

    /// The rows, in the order of their names.
    #[must_use]
    pub fn rows(&self) -> Vec<(&[String], &Row)> {
        let mut rows: Vec<_> = self.rows.iter().map(|(name, row)| (name.as_slice(), row)).collect();
        rows.sort_unstable_by_key(|(name, _)| *name);
        rows
    }

    /// All of them together.
    #[must_use]
    pub fn total(&self) -> &Row {
        &self.total
    }
}

#[cfg(test)]
#[path = "sums_tests.rs"]
mod tests;
