//! JSON's string escapes.

use std::borrow::Cow;

/// A raw string's value. Malformed escapes stand for themselves, lone surrogates for `\u{fffd}`.
pub(crate) fn unescape(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', raw).is_none() {
        return raw.into();
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    let unit = |at: usize| {
        let digits = raw.get(at..at + 6).filter(|escape| escape.starts_with(b"\\u"))?;
        u16::from_str_radix(std::str::from_utf8(&digits[2..]).ok()?, 16).ok()
    };
    while at < raw.len() {
        let (byte, length) = match (raw[at], raw.get(at + 1)) {
            (b'\\', Some(b'u')) => {
                let Some(first) = unit(at) else {
                    at += 2;
                    continue;
                };
                let pair = char::decode_utf16([first].into_iter().chain(unit(at + 6))).next();
                let char = pair.and_then(Result::ok).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                at += if char > '\u{ffff}' { 12 } else { 6 };
                continue;
            }
            (b'\\', Some(b'n')) => (b'\n', 2),
            (b'\\', Some(b't')) => (b'\t', 2),
            (b'\\', Some(b'r')) => (b'\r', 2),
            (b'\\', Some(other)) => (*other, 2),
            (byte, _) => (byte, 1),
        };
        out.push(byte);
        at += length;
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn escapes_stand_for_characters() {
        for (raw, value) in [
            ("plain 你好", "plain 你好"),
            (r#"\" \/ \\ \n"#, "\" / \\ \n"),
            (r"\u901a\u4E49", "通义"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\ud83d \ude00", "\u{fffd} \u{fffd}"),
            (r"\ud83d\u0041", "\u{fffd}A"),
            (r"a\u12", "a12"),
            ("\\", "\\"),
        ] {
            assert_eq!(unescape(raw.as_bytes()), value.as_bytes(), "{raw}");
        }
    }
}
