//! Until when a certificate is valid: the one field of X.509 that nothing else here reads.

/// `notAfter` as Unix time in seconds; `None` where this is no certificate.
pub(super) fn of(der: &[u8]) -> Option<i64> {
    let (certificate, _) = element(der, 0x30)?;
    let (mut fields, _) = element(certificate, 0x30)?;
    // The version is absent in certificates of version 1.
    if let Some((_, rest)) = element(fields, 0xa0) {
        fields = rest;
    }
    // Serial number, algorithm, issuer.
    for tag in [0x02, 0x30, 0x30] {
        fields = element(fields, tag)?.1;
    }
    let (validity, _) = element(fields, 0x30)?;
    let not_after = time(validity)?.1;
    time(not_after).map(|(seconds, _)| seconds)
}

/// The contents of the element with this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&have, rest) = der.split_first()?;
    let (&short, mut rest) = rest.split_first()?;
    if have != tag {
        return None;
    }
    let length = match short {
        0..=0x7f => usize::from(short),
        0x81..=0x83 => {
            let (bytes, after) = rest.split_at_checked(usize::from(short & 0x7f))?;
            rest = after;
            bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// A `UTCTime` or `GeneralizedTime`, and what follows it.
fn time(der: &[u8]) -> Option<(i64, &[u8])> {
    let (text, rest) = element(der, 0x17).or_else(|| element(der, 0x18))?;
    let digits = text.strip_suffix(b"Z")?;
    let number = |from: usize, count: usize| {
        let digits = digits.get(from..from + count)?;
        digits
            .iter()
            .try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
    };
    let (year, at) = match digits.len() {
        // RFC 5280, section 4.1.2.5.1.
        12 => (number(0, 2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        14 => (number(0, 4)?, 4),
        _ => return None,
    };
    let field = |index: usize| number(at + index * 2, 2);
    let days = days_before(year, field(0)?, field(1)?)?;
    Some((((days * 24 + field(2)?) * 60 + field(3)?) * 60 + field(4)?, rest))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days_before(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March: the leap day is the last.
    let year = if month < 3 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leap_days + day_of_year - 719_468)
}
