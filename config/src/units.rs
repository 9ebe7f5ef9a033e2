//! Durations and sizes as people write them.

use std::time::Duration;

use crate::complaint::{Complaint, shown};

/// Longest duration: ten years. Timers overflow somewhere beyond.
const LONGEST: f64 = 3650.0 * 86_400.0;
/// Largest size: what a double counts exactly.
const LARGEST: f64 = 9_007_199_254_740_992.0;

/// `250ms`, `30s`, `5m`, `1h`, `1d`, or plain seconds; fractions are allowed.
pub(crate) fn duration(text: &str) -> Result<Duration, Complaint> {
    let how = "write a number with `ms`, `s`, `m`, `h` or `d`, such as `30s`, or plain seconds";
    let (number, unit) =
        split(text).ok_or_else(|| Complaint::new(format!("{} is not a duration", shown(text)), how))?;
    let scale = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(Complaint::new(format!("{} is not a unit of time", shown(unit)), how)),
    };
    seconds(number * scale)
}

/// A number of seconds.
pub(crate) fn seconds(seconds: f64) -> Result<Duration, Complaint> {
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(Complaint::new(
            "a duration cannot be negative or infinite",
            "write a number such as `30s`",
        ));
    }
    if seconds > LONGEST {
        return Err(Complaint::new("the duration is too long", "write at most `3650d`"));
    }
    // Whole milliseconds: `0.1 * 60` seconds is not to become 5.999999999.
    Ok(if seconds >= 0.001 {
        Duration::from_millis((seconds * 1000.0).round() as u64)
    } else {
        Duration::from_secs_f64(seconds)
    })
}

/// `64KiB`, `1MiB`, `10MB`, or plain bytes; fractions are allowed where the result is whole.
pub(crate) fn size(text: &str) -> Result<u64, Complaint> {
    let how = "write a number with `KiB`, `MiB`, `GiB`, `KB`, `MB` or `GB`, such as `64KiB`, or plain bytes";
    let (number, unit) =
        split(text).ok_or_else(|| Complaint::new(format!("{} is not a size", shown(text)), how))?;
    let scale: u64 = match unit {
        "" | "B" => 1,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(Complaint::new(format!("{} is not a unit of size", shown(unit)), how)),
    };
    bytes(number * scale as f64)
}

/// A number of bytes.
pub(crate) fn bytes(bytes: f64) -> Result<u64, Complaint> {
    if !(0.0..=LARGEST).contains(&bytes) {
        return Err(Complaint::new("the size is out of range", "write a number such as `64KiB`"));
    }
    if bytes.fract() != 0.0 {
        return Err(Complaint::new(
            "the size is not a whole number of bytes",
            "write a number such as `64KiB`",
        ));
    }
    Ok(bytes as u64)
}

/// A number without sign or exponent, and what follows it.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.starts_with('.') || number.ends_with('.') {
        return None;
    }
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("30s", 30_000),
            ("250ms", 250),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("1.5h", 5_400_000),
            ("0.1m", 6000),
            ("300", 300_000),
            ("0.5", 500),
            ("0s", 0),
            ("30 s", 30_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "s", "-5s", "5x", "1e3", "1.s", ".5s", "5S", "9999999999999d", "1h30m", "30秒", "${X}"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        for number in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            assert!(seconds(number).is_err(), "{number}");
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("64KiB", 65_536),
            ("1MiB", 1 << 20),
            ("1.5MiB", 1_572_864),
            ("10MB", 10_000_000),
            ("2GiB", 2 << 30),
            ("1GB", 1_000_000_000),
            ("512", 512),
            ("512B", 512),
            ("0.5KiB", 512),
        ] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["", "KiB", "-1", "1.5", "10mb", "10Mb", "1TiB1", "99999999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
