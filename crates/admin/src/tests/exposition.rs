//! Is a page valid? Line by line, as `promtool check metrics` and the OpenMetrics text format
//! (version 1.0.0) have it.

use std::collections::{BTreeMap, HashSet};

#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    helped: bool,
    samples: usize,
    /// Of the histogram series being read, by its labels without `le`: upper bound, count.
    buckets: BTreeMap<String, Vec<(f64, f64)>>,
    counts: BTreeMap<String, f64>,
}

impl Family {
    fn end(&self) {
        assert!(self.helped && !self.kind.is_empty(), "{} lacks HELP or TYPE", self.name);
        assert_eq!(
            self.buckets.keys().collect::<Vec<_>>(),
            self.counts.keys().collect::<Vec<_>>(),
            "{}: buckets and counts differ",
            self.name
        );
        for (labels, buckets) in &self.buckets {
            let pairs = buckets.windows(2);
            for pair in pairs {
                assert!(pair[0].0 < pair[1].0, "{}{labels}: bounds fall", self.name);
                assert!(pair[0].1 <= pair[1].1, "{}{labels}: buckets are not cumulative", self.name);
            }
            let (bound, count) = buckets[buckets.len() - 1];
            assert!(bound.is_infinite(), "{}{labels}: no bucket for +Inf", self.name);
            assert_eq!(count, self.counts[labels], "{}{labels}: +Inf is not the count", self.name);
        }
    }

    fn sample(&mut self, name: &str, mut labels: Vec<(String, String)>, value: f64) {
        let suffix = name.strip_prefix(&*self.name).unwrap_or_else(|| panic!("{name} within {}", self.name));
        match (&*self.kind, suffix) {
            ("counter", "_total") | ("histogram", "_sum") => assert!(value >= 0.0, "{name} {value}"),
            ("gauge", "") => {}
            ("histogram", "_count") => {
                assert_eq!(self.counts.insert(format!("{labels:?}"), value), None, "{name} twice");
            }
            ("histogram", "_bucket") => {
                let le = labels.iter().position(|(name, _)| name == "le").expect("a bucket without le");
                let bound = labels.remove(le).1;
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
                self.buckets.entry(format!("{labels:?}")).or_default().push((bound, value));
            }
            (kind, suffix) => panic!("{name}: a {kind} with the suffix {suffix:?}"),
        }
        self.samples += 1;
    }
}

/// Panics at the first line that is not valid. Returns the number of samples by family.
pub(super) fn check(page: &str) -> BTreeMap<String, usize> {
    let body = page.strip_suffix("# EOF\n").expect("the page does not end with # EOF");
    let (mut done, mut series) = (BTreeMap::new(), HashSet::new());
    let mut family = Family::default();
    for line in body.split_terminator('\n') {
        assert!(!line.is_empty() && line == line.trim() && !line.contains('\r'), "{line:?}");
        if let Some(comment) = line.strip_prefix("# ") {
            let (keyword, rest) = comment.split_once(' ').unwrap();
            let (name, text) = rest.split_once(' ').unwrap();
            assert!(is_name(name), "{line}");
            if name != family.name {
                finish(&mut done, &std::mem::take(&mut family));
                family.name = name.to_owned();
            }
            assert_eq!(family.samples, 0, "{line}: after its samples");
            match keyword {
                "HELP" => assert!(!std::mem::replace(&mut family.helped, true), "{line}: twice"),
                "TYPE" => {
                    assert!(family.kind.is_empty(), "{line}: twice");
                    assert!(matches!(text, "counter" | "gauge" | "histogram"), "{line}");
                    // promtool: counters are named for their samples, which end in `_total`.
                    assert!(!name.ends_with("_total"), "{line}");
                    family.kind = text.to_owned();
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        assert!(series.insert(line.rsplit_once(' ').unwrap().0), "{line}: a series twice");
        let (name, labels, value) = sample(line);
        family.sample(name, labels, value);
    }
    finish(&mut done, &family);
    done
}

fn finish(done: &mut BTreeMap<String, usize>, family: &Family) {
    if !family.name.is_empty() {
        family.end();
        assert_eq!(done.insert(family.name.clone(), family.samples), None, "{} twice", family.name);
    }
}

/// `name{label="value",…} 1.5`
fn sample(line: &str) -> (&str, Vec<(String, String)>, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label) && !label.contains(':') && !label.starts_with("__"), "{line}");
            let (value, after) = unquote(quoted).unwrap_or_else(|| panic!("{line}"));
            assert!(labels.iter().all(|(other, _)| other != label), "{line}: a label twice");
            labels.push((label.to_owned(), value));
            rest = after.strip_prefix(',').unwrap_or(after);
            assert!(after.starts_with('}') || (after.starts_with(',') && !rest.starts_with('}')), "{line}");
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    assert!(!value.contains(' '), "{line}");
    (name, labels, value.parse().unwrap_or_else(|error| panic!("{line}: {error}")))
}

/// Up to the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let (mut out, mut chars) = (String::new(), text.char_indices());
    loop {
        match chars.next()? {
            (at, '"') => return Some((out, &text[at + 1..])),
            (_, '\\') => match chars.next()?.1 {
                'n' => out.push('\n'),
                character @ ('\\' | '"') => out.push(character),
                _ => return None,
            },
            (_, character) => out.push(character),
        }
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    bytes.next().is_some_and(first) && bytes.all(|byte| first(byte) || byte.is_ascii_digit())
}

mod tests {
    use super::check;

    fn fails(page: &'static str) -> bool {
        std::panic::catch_unwind(|| check(page)).is_err()
    }

    #[test]
    fn the_check_finds_what_is_wrong() {
        let good = "# HELP a b\n# TYPE a counter\na_total{x=\"\\\"\\n,}\"} 1\na_total{} 2\n# EOF\n";
        assert_eq!(check(good)["a"], 2);
        assert!(fails("# HELP a b\n# TYPE a counter\na_total 1\n"));
        assert!(fails("# TYPE a counter\na_total 1\n# EOF\n"));
        assert!(fails("# HELP a b\n# TYPE a counter\na 1\n# EOF\n"));
        assert!(fails("# HELP a b\n# TYPE a gauge\na 1\na 2\n# EOF\n"));
        assert!(fails("# HELP a b\n# TYPE a gauge\na{x=\"1\",x=\"2\"} 1\n# EOF\n"));
        assert!(fails("# HELP a b\n# TYPE a gauge\na{x=\"\n\"} 1\n# EOF\n"));
        assert!(fails("# HELP a b\n# TYPE a gauge\nb 1\n# EOF\n"));
        let histogram = "# HELP a b\n# TYPE a histogram\na_sum 1\na_count 2\na_bucket{le=\"1\"} 3\n";
        assert!(fails(Box::leak(format!("{histogram}a_bucket{{le=\"+Inf\"}} 2\n# EOF\n").into_boxed_str())));
        assert!(fails(Box::leak(format!("{histogram}# EOF\n").into_boxed_str())));
    }
}
