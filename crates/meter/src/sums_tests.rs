use std::time::{Duration, SystemTime};

use aiproxy_core::{Outcome, UsageEvent};

use super::*;
use crate::codec::{decode, encode};
use crate::testing::{event, used};

fn add(sums: &mut Sums, event: &UsageEvent) {
    let mut record = Vec::new();
    encode(&mut record, event);
    sums.add(&decode(&record).unwrap());
}

#[test]
fn records_are_added_up_by_what_is_asked_for() {
    let mut sums = Sums::new(vec![By::User, By::Hour], TimeZone::fixed(jiff::tz::offset(8)));
    let mut one = used(event("/v1/x"));
    (one.outcome, one.error) = (Outcome::Complete, None);
    add(&mut sums, &one);
    add(&mut sums, &one);
    let mut other = event("/v1/x");
    (other.user, other.started) = (None, SystemTime::UNIX_EPOCH + Duration::from_secs(3600));
    add(&mut sums, &other);
    let rows = sums.rows();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].0, ["-", "1970-01-01T09:00+08:00"]);
    assert_eq!(rows[1].0, ["张三", "2023-11-15T06:00+08:00"]);
    let row = rows[1].1;
    assert_eq!((row.requests, row.tokens.output, row.tokens.image_output, row.images), (2, 600, 18, 4));
    assert_eq!((row.micros, row.characters, row.estimated), (2_500_000, 154, 2));
    assert_eq!((row.cost["CNY"], row.incomplete()), (2_500_000, 0));
    assert_eq!((sums.total().requests, sums.total().incomplete()), (3, 1));
    let json = serde_json::to_value(row).unwrap();
    assert_eq!((&json["cost"]["CNY"], &json["seconds"]), (&2.5.into(), &2.5.into()));
    assert_eq!(json["tokens"]["reasoning"], 10);
}

#[test]
fn every_column_has_a_name_and_a_value() {
    let mut record = Vec::new();
    encode(&mut record, &event("/v1/x"));
    let event = decode(&record).unwrap();
    for (name, by) in By::ALL {
        assert_eq!((By::named(name), by.as_str()), (Some(*by), *name));
        assert!(!by.of(&event, &TimeZone::UTC).is_empty(), "{name}");
    }
    assert_eq!(By::named("department"), None);
}

#[test]
fn rows_are_bounded_and_nothing_is_left_out() {
    let mut sums = Sums::new(vec![By::Endpoint], TimeZone::UTC);
    let mut record = Vec::new();
    encode(&mut record, &event("/"));
    let mut event = decode(&record).unwrap();
    let names: Vec<String> = (0..ROWS + 5).map(|number| number.to_string()).collect();
    for name in &names {
        event.endpoint = name;
        sums.add(&event);
    }
    let rest = vec![REST.to_owned()];
    assert_eq!((sums.rows.len(), sums.rows[&rest].requests), (ROWS + 1, 5));
    assert_eq!(sums.total().requests, ROWS as u64 + 5);
}
