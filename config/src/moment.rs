//! Moments in time as people write them.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::complaint::{Complaint, shown};

/// RFC 3339, or a date that means 00:00 UTC; Unix seconds.
pub(crate) fn parse(text: &str) -> Result<i64, Complaint> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment.as_second());
    }
    // A date's parser takes a time as well and forgets it.
    let date = text.parse::<Date>().ok().filter(|_| text.len() == "2027-01-01".len());
    if let Some(moment) = date.and_then(|date| date.to_zoned(TimeZone::UTC).ok()) {
        return Ok(moment.timestamp().as_second());
    }
    Err(Complaint::new(
        format!("{} is not a moment", shown(text)),
        "write a date such as `2027-01-01`, or a time with its offset such as `2027-01-01T00:00:00+08:00`",
    ))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn moments() {
        for (text, expected) in [
            ("2027-01-01", 1_798_761_600),
            ("2027-01-01T00:00:00Z", 1_798_761_600),
            ("2027-01-01T08:00:00+08:00", 1_798_761_600),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for text in
            ["", "tomorrow", "2027-13-01", "2027-02-30", "2027-01-01T18:00:00", "20270101", "2027/01/01"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
