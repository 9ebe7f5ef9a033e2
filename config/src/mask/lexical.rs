//! Secrets in a line of text, by what stands around them.

use std::collections::HashSet;
use std::ops::Range;

use super::names::{Class, class};
use crate::source::Lines;

/// Beginnings of keys as platforms and AIProxy make them.
const PREFIXES: &[&str] =
    &["pk_", "pk-", "sk_", "sk-", "st-", "st_", "ek_", "rk_", "aiza", "gsk_", "xai-", "eyj"];
/// A run of letters and digits from this length on is nothing that people name things by.
const LONG: usize = 24;

/// Values behind names of secrets: `proxy_key: …`.
pub(super) fn names(chars: &[char]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let hides = matches!(chars[at], ':' | '=' | '：') && class(&name_before(chars, at)) == Class::Secret;
        at += 1;
        if hides {
            let start = skip_spaces(chars, at);
            let end = value_end(chars, start);
            if start < end {
                ranges.push(start..end);
            }
            at = end.max(at);
        }
    }
    ranges
}

/// Everything in a line but names of fields, what stands behind the names of fields that are no
/// secret, and brackets: for files in which nothing else is certain.
pub(super) fn strangers(chars: &[char]) -> Vec<Range<usize>> {
    let mut known: Vec<bool> =
        chars.iter().map(|c| c.is_whitespace() || matches!(c, '{' | '}' | '[' | ']' | ',')).collect();
    if chars.iter().find(|c| !c.is_whitespace()).is_some_and(|c| *c == '-' || *c == '?') {
        let first = skip_spaces(chars, 0);
        known[first] = chars.get(first + 1).is_none_or(|c| c.is_whitespace());
    }
    for (at, _) in chars.iter().enumerate().filter(|(_, c)| **c == ':') {
        let name = name_before(chars, at);
        if name.is_empty() || chars.get(at + 1).is_some_and(|c| !c.is_whitespace()) {
            continue;
        }
        let quotes =
            chars[..at].iter().rev().take_while(|c| c.is_whitespace() || matches!(c, '"' | '\'')).count();
        let begin = at - quotes - name.chars().count();
        let before = chars[..begin].iter().rfind(|c| !c.is_whitespace() && !matches!(c, '"' | '\''));
        if before.is_some_and(|c| !matches!(c, '{' | '[' | ',' | '-' | '?')) {
            continue;
        }
        known[begin..=at].fill(true);
        let start = skip_spaces(chars, at + 1);
        let end = value_end(chars, start);
        let value = &chars[start..end];
        let comment = value.windows(2).position(|two| two[0] == ' ' && two[1] == '#').unwrap_or(value.len());
        // A colon in it: not the value that it seems to be.
        if class(&name) == Class::Plain && !holds_field(&value[..comment]) {
            known[start..start + comment].fill(true);
        }
    }
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (at, _) in known.iter().enumerate().filter(|(_, known)| !**known) {
        match ranges.last_mut().filter(|range| range.end == at) {
            Some(range) => range.end = at + 1,
            None => ranges.push(at..at + 1),
        }
    }
    ranges
}

fn holds_field(value: &[char]) -> bool {
    value.last() == Some(&':') || value.windows(2).any(|two| two[0] == ':' && two[1].is_whitespace())
}

/// Words that look like keys, passwords in URLs, and their queries.
pub(super) fn tokens(chars: &[char]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        if !chars[at].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        let end = run(chars, at, is_word);
        let word: String = chars[at..end.min(at + 8)].iter().collect::<String>().to_lowercase();
        if PREFIXES.iter().any(|prefix| word.starts_with(prefix) && end - at > prefix.len()) {
            ranges.push(at..run(chars, at, is_key));
        } else if is_random(&chars[at..end]) {
            ranges.push(run_back(chars, at)..run(chars, at, is_key));
        } else if ["bearer", "basic"].contains(&word.as_str()) {
            let next = skip_spaces(chars, end);
            if next > end && next < chars.len() && chars[next].is_ascii_alphanumeric() {
                ranges.push(next..run(chars, next, is_key));
            }
        }
        at = end;
    }
    ranges.extend(urls(chars));
    ranges
}

/// Lines that go on with the value of a secret field begun on an earlier line.
pub(super) fn continuations(lines: &Lines<'_>) -> HashSet<usize> {
    let mut hidden = HashSet::new();
    let mut open: Option<Open> = None;
    for (index, line) in lines.iter().enumerate() {
        let chars: Vec<char> = line.chars().collect();
        let indent = chars.iter().take_while(|c| c.is_whitespace()).count();
        if indent == chars.len() {
            continue;
        }
        if let Some(secret) = &open {
            let item = chars[indent] == '-' && indent == secret.indent;
            let inside = match secret.quote {
                Some(_) => true,
                None => indent > secret.indent || item,
            };
            if inside && !(secret.plain && begins_plain_field(&chars)) {
                hidden.insert(index + 1);
                if secret.quote.is_some_and(|quote| chars.contains(&quote)) {
                    open = None;
                }
                continue;
            }
            open = None;
        }
        if let Some(range) = names(&chars).last() {
            open = Some(Open::of(&chars[range.clone()], indent));
        } else if ends_with_secret_name(&chars) {
            open = Some(Open { indent, quote: None, plain: false });
        }
    }
    hidden
}

/// A secret value that may go on.
struct Open {
    indent: usize,
    /// The quote that is not closed yet.
    quote: Option<char>,
    /// Whether the value began as plain words, which a field below would end.
    plain: bool,
}

impl Open {
    fn of(value: &[char], indent: usize) -> Self {
        let first = value.first().copied().unwrap_or(' ');
        let quote = ['"', '\''].into_iter().find(|quote| *quote == first);
        let quote = quote.filter(|quote| value.iter().filter(|c| *c == quote).count() == 1);
        Self { indent, quote, plain: quote.is_none() && !matches!(first, '|' | '>' | '{' | '[' | '&' | '!') }
    }
}

fn begins_plain_field(chars: &[char]) -> bool {
    let Some(colon) = chars.iter().position(|c| *c == ':') else { return false };
    let name: String = chars[..colon].iter().collect();
    chars.get(colon + 1).is_none_or(|c| c.is_whitespace()) && class(name.trim()) == Class::Plain
}

fn ends_with_secret_name(chars: &[char]) -> bool {
    let end = chars.iter().rposition(|c| !c.is_whitespace());
    end.is_some_and(|end| chars[end] == ':' && class(&name_before(chars, end)) == Class::Secret)
}

/// The name that ends before the colon, quotes and spaces aside.
fn name_before(chars: &[char], colon: usize) -> String {
    let part_of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let end = chars[..colon].iter().rposition(|c| !c.is_whitespace() && !matches!(c, '"' | '\''));
    let Some(end) = end.map(|end| end + 1) else { return String::new() };
    let start = chars[..end].iter().rposition(|c| !part_of_name(*c)).map_or(0, |at| at + 1);
    chars[start..end].iter().collect()
}

/// Where a secret value ends. Outside of a flow mapping that is the end of the line, comments
/// included; inside, only where another field clearly begins or the line is over: a key with a
/// comma in it must not show its second half.
fn value_end(chars: &[char], start: usize) -> usize {
    let flow = chars[..start].iter().any(|c| matches!(c, '{' | '['));
    if !flow || chars.get(start).is_some_and(|c| matches!(c, '{' | '[')) {
        return chars.len();
    }
    let mut at = start;
    while at < chars.len() {
        if matches!(chars[at], ',' | '}' | ']') {
            let next = run(chars, at, |c| matches!(c, ',' | '}' | ']' | ' ' | '\t'));
            if next == chars.len() || chars[next] == '#' || begins_field(chars, next) {
                return at;
            }
        }
        at += 1;
    }
    chars.len()
}

fn begins_field(chars: &[char], at: usize) -> bool {
    let quoted = usize::from(matches!(chars[at], '"' | '\''));
    let end = run(chars, at + quoted, |c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let colon = if quoted == 1 && chars.get(end) == Some(&chars[at]) { end + 1 } else { end };
    end > at + quoted
        && chars.get(colon) == Some(&':')
        && chars.get(colon + 1).is_none_or(|c| c.is_whitespace())
}

/// `user:password@` and the query of URLs.
fn urls(chars: &[char]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(found) = chars[at..].windows(3).position(|three| three == [':', '/', '/']) {
        let start = at + found + 3;
        let end = run(chars, start, |c| !c.is_whitespace() && !matches!(c, '"' | '\'' | '`' | '<' | '>'));
        let url = &chars[start..end];
        if let Some(sign) = url.iter().rposition(|c| *c == '@') {
            ranges.push(start..start + sign);
        }
        if let Some(query) = url.iter().position(|c| matches!(c, '?' | '#')) {
            ranges.push(start + query + 1..end);
        }
        at = end;
    }
    ranges
}

/// A long run of letters and digits mixed, as random keys and digests are.
fn is_random(word: &[char]) -> bool {
    word.split(|c| *c == '-').any(|part| {
        part.len() >= LONG
            && part.iter().any(char::is_ascii_digit)
            && part.iter().any(char::is_ascii_alphabetic)
    })
}

const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

const fn is_key(c: char) -> bool {
    is_word(c) || matches!(c, '.' | '+' | '/' | '=' | '~' | '!' | '$' | '%' | '*' | '@' | ':' | '|')
}

fn run(chars: &[char], from: usize, inside: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().position(|c| !inside(*c)).map_or(chars.len(), |length| from + length)
}

fn run_back(chars: &[char], from: usize) -> usize {
    chars[..from].iter().rposition(|c| !matches!(c, '+' | '/' | '=' | '.')).map_or(0, |at| at + 1)
}

fn skip_spaces(chars: &[char], from: usize) -> usize {
    run(chars, from, char::is_whitespace)
}
