//! Name patterns: `*` stands for any run of characters, everything else for itself.

/// Whether `name` matches `pattern`. ASCII letters compare without regard to case: platforms
/// treat model names so, and a limit must not be passed by changing the case.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to go on when a literal fails: after the last star, one character further.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, n));
        } else if pattern.get(p).is_some_and(|c| c.eq_ignore_ascii_case(&name[n])) {
            p += 1;
            n += 1;
        } else if let Some((star, from)) = retry {
            p = star;
            n = from + 1;
            retry = Some((star, n));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// Whether any of the patterns matches.
pub fn any<P: AsRef<str>>(patterns: &[P], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern.as_ref(), name))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_stand_for_any_run() {
        for (pattern, name, expected) in [
            ("gpt-*", "gpt-4o-mini", true),
            ("gpt-*", "GPT-4o", true),
            ("gpt-*", "my-gpt-4o", false),
            ("*", "", true),
            ("*", "通义千问", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("qwen*", "qwen", true),
            ("*-realtime", "gpt-4o-realtime", true),
            ("*-realtime", "gpt-4o-realtime-preview", false),
            ("**a", "bba", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} against {name}");
        }
    }
}
