//! Usage as aligned columns. Chinese characters are two columns wide.

use std::collections::HashMap;
use std::fmt;

use aiproxy_meter::codec::Decoded;
use aiproxy_meter::{By, Row, Sums};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use unicode_width::UnicodeWidthStr as _;

/// Columns that say nothing are left out.
#[derive(Debug)]
pub struct Table {
    head: Vec<&'static str>,
    /// How many of the columns are text, on the left.
    texts: usize,
    rows: Vec<Vec<String>>,
    /// The last row is their sum.
    total: Vec<String>,
}

/// A column of numbers: its heading, and how a row shows it.
type Number = (&'static str, fn(&Row) -> String);

const NUMBERS: &[Number] = &[
    ("REQUESTS", |row| grouped(row.requests)),
    ("FAILED", |row| grouped(row.incomplete())),
    ("INPUT", |row| grouped(row.tokens.input)),
    ("CACHED", |row| grouped(row.tokens.cached)),
    ("OUTPUT", |row| grouped(row.tokens.output)),
    ("REASONING", |row| grouped(row.tokens.reasoning)),
    ("AUDIO IN", |row| grouped(row.tokens.audio_input)),
    ("AUDIO OUT", |row| grouped(row.tokens.audio_output)),
    ("IMAGE IN", |row| grouped(row.tokens.image_input)),
    ("IMAGE OUT", |row| grouped(row.tokens.image_output)),
    ("SECONDS", |row| decimal(i64::try_from(row.micros).unwrap_or(i64::MAX))),
    ("IMAGES", |row| grouped(row.images)),
    ("CHARACTERS", |row| grouped(row.characters)),
    ("ESTIMATED", |row| grouped(row.estimated)),
    ("COST", |row| {
        let amounts = row.cost.iter().map(|(currency, micros)| format!("{} {currency}", decimal(*micros)));
        amounts.collect::<Vec<_>>().join(" + ")
    }),
];
/// Columns that are there whatever they say.
const ALWAYS: &[&str] = &["REQUESTS", "FAILED", "INPUT", "OUTPUT"];

impl Table {
    /// The rows of the sums, and their total.
    #[must_use]
    pub fn of(sums: &Sums, names: &HashMap<String, String>) -> Self {
        let mut head = Vec::new();
        for by in sums.by() {
            head.push(heading_of(*by));
            if *by == By::User && !names.is_empty() {
                head.push("NAME");
            }
        }
        let texts = head.len();
        let says =
            |number: &Number| ALWAYS.contains(&number.0) || !matches!(&*(number.1)(sums.total()), "0" | "");
        let numbers: Vec<&Number> = NUMBERS.iter().filter(|number| says(number)).collect();
        head.extend(numbers.iter().map(|(heading, _)| *heading));
        let shown = |row: &Row| numbers.iter().map(|(_, show)| show(row)).collect::<Vec<_>>();
        let rows = sums.rows().into_iter().map(|(values, row)| {
            let mut cells = Vec::with_capacity(texts);
            for (by, value) in sums.by().iter().zip(values) {
                cells.push(plain(value));
                if *by == By::User && !names.is_empty() {
                    cells.push(plain(names.get(value).map_or("", String::as_str)));
                }
            }
            cells.extend(shown(row));
            cells
        });
        let rows = rows.collect();
        let mut total = vec![String::new(); texts];
        if let Some(first) = total.first_mut() {
            *first = "TOTAL".to_owned();
        }
        total.extend(shown(sums.total()));
        Self { head, texts, rows, total }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head: Vec<String> = self.head.iter().map(|text| (*text).to_owned()).collect();
        let all = std::iter::once(&head).chain(&self.rows).chain(std::iter::once(&self.total));
        f.write_str(&lines(&all.collect::<Vec<_>>(), self.texts))
    }
}

/// Rows of texts with their columns aligned, whatever the script; the first is the heading.
#[must_use]
pub fn aligned(rows: &[Vec<String>]) -> String {
    lines(&rows.iter().collect::<Vec<_>>(), usize::MAX)
}

/// Lines of aligned columns: the first `texts` to the left, the others, which hold numbers, to the right.
fn lines(rows: &[&Vec<String>], texts: usize) -> String {
    let columns = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = " ".repeat(width - cell.width());
            let separator = if column == 0 { "" } else { "  " };
            let (left, right) = if column < texts { ("", &*gap) } else { (&*gap, "") };
            line.extend([separator, left, cell, right]);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn heading_of(by: By) -> &'static str {
    match by {
        By::User => "USER",
        By::Key => "KEY",
        By::Channel => "CHANNEL",
        By::Model => "MODEL",
        By::Endpoint => "ENDPOINT",
        By::Protocol => "PROTOCOL",
        By::Outcome => "OUTCOME",
        By::ErrorClass => "ERROR",
        By::Status => "STATUS",
        By::Hour => "HOUR",
        By::Day => "DAY",
    }
}

/// Widths of the columns of single requests.
const WIDTHS: [usize; 6] = [23, 14, 12, 18, 34, 15];

/// The heading over single requests.
#[must_use]
pub fn heading() -> String {
    let texts = ["TIME", "USER", "CHANNEL", "MODEL", "ENDPOINT", "OUTCOME"];
    let mut line = fitted(texts);
    line.push_str("STATUS       MS    INPUT   OUTPUT  COST");
    line
}

/// One request on a line; what is too long for its column is cut.
#[must_use]
pub fn event(event: &Decoded<'_>, zone: &TimeZone) -> String {
    let at = Timestamp::try_from(event.started).unwrap_or_default();
    let time = at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.3f").to_string();
    let text = |text: Option<&str>| plain(text.unwrap_or("-"));
    let outcome = event.error.unwrap_or(event.outcome);
    let mut line = fitted([
        &time,
        &text(event.user),
        &text(event.channel),
        &text(event.model),
        &text(Some(event.endpoint)),
        &text(Some(outcome)),
    ]);
    let mark = if event.usage.as_ref().is_some_and(|used| used.estimated) { "~" } else { "" };
    let count = |count: u64| format!("{mark}{count}");
    let (input, output) = event.usage.as_ref().map_or_else(
        || ("-".to_owned(), "-".to_owned()),
        |used| (count(used.tokens.input), count(used.tokens.output)),
    );
    let cost =
        event.cost.map_or_else(String::new, |(micros, currency)| format!("{} {currency}", decimal(micros)));
    let millis = event.total_us / 1000;
    line.push_str(&format!("{:>6} {millis:>8} {input:>8} {output:>8}  {cost}", event.status));
    line.trim_end().to_owned()
}

fn fitted(texts: [&str; 6]) -> String {
    let mut line = String::new();
    for (text, width) in texts.into_iter().zip(WIDTHS) {
        let mut used = 0;
        for (index, c) in text.char_indices() {
            let wide = c.to_string().width();
            // Room for the mark, unless this is the end.
            let rest = text[index..].width();
            if used + rest > width && used + wide > width - 1 {
                line.push('…');
                used += 1;
                break;
            }
            line.push(c);
            used += wide;
        }
        line.push_str(&" ".repeat((width + 1).saturating_sub(used)));
    }
    line
}

/// Without characters that would move the cursor or the eye.
#[must_use]
pub fn plain(text: &str) -> String {
    let bidi =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || bidi(c) { '\u{fffd}' } else { c }).collect()
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Millionths as a decimal number without needless zeros, but for cents.
fn decimal(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let (whole, part) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    if whole == 0 && part == 0 {
        return "0".to_owned();
    }
    let part = format!("{part:06}");
    let kept = part.trim_end_matches('0').len().max(2);
    format!("{sign}{}.{}", grouped(whole), &part[..kept])
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use aiproxy_core::{Cost, Outcome, Tokens, Usage, UsageEvent};
    use aiproxy_meter::codec;

    use super::*;

    fn record(user: &str, model: &str, input: u64) -> Vec<u8> {
        let tokens = Tokens { input, output: 7, ..Tokens::default() };
        let mut record = Vec::new();
        let event = UsageEvent {
            user: Some(user.into()),
            model: Some(model.into()),
            endpoint: "/v1/chat/completions".into(),
            status: 200,
            outcome: Outcome::Complete,
            usage: Some(Usage { tokens, ..Usage::default() }),
            cost: Some(Cost { micros: 1_500_000, currency: "CNY".into() }),
            ..UsageEvent::begin(http::Method::POST, IpAddr::V4(Ipv4Addr::LOCALHOST))
        };
        codec::encode(&mut record, &event);
        record
    }

    #[test]
    fn columns_stay_aligned_whatever_the_script() {
        let mut sums = Sums::new(vec![By::User], TimeZone::UTC);
        for (user, input) in [("zhangsan", 1_234_567), ("李四", 1), ("x\u{1b}[2J", 20)] {
            sums.add(&codec::decode(&record(user, "m", input)).unwrap());
        }
        let names = HashMap::from([("zhangsan".to_owned(), "张三".to_owned())]);
        assert_eq!(
            Table::of(&sums, &names).to_string(),
            "USER      NAME  REQUESTS  FAILED      INPUT  OUTPUT      COST\n\
             x\u{fffd}[2J                  1       0         20       7  1.50 CNY\n\
             zhangsan  张三         1       0  1,234,567       7  1.50 CNY\n\
             李四                   1       0          1       7  1.50 CNY\n\
             TOTAL                  3       0  1,234,588      21  4.50 CNY\n"
        );
    }

    #[test]
    fn requests_are_cut_to_their_columns() {
        let record = record("一个名字很长很长的用户", "通义千问", 12);
        let line = event(&codec::decode(&record).unwrap(), &TimeZone::UTC);
        assert!(line.contains("一个名字很长… "), "{line}");
        assert!(line.contains("通义千问 "), "{line}");
        assert!(line.ends_with("1.50 CNY"), "{line}");
        let column = |text: &str| heading().find(text).unwrap();
        let before = &line[..line.find("complete").unwrap()];
        assert_eq!(before.width(), column("OUTCOME"));
    }

    #[test]
    fn amounts_are_exact() {
        for (micros, text) in [
            (0, "0"),
            (1, "0.000001"),
            (1_500_000, "1.50"),
            (-20_000, "-0.02"),
            (1_234_567_891_234, "1,234,567.891234"),
        ] {
            assert_eq!(decimal(micros), text);
        }
    }
}
