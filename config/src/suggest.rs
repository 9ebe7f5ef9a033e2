//! "Did you mean …?"

/// Longest word that is compared.
const LONGEST: usize = 64;
/// Most words that are compared.
const MOST: usize = 4096;

/// The known word that is nearest to the written one, if it is near enough to be a slip.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > LONGEST {
        return None;
    }
    let fold = |word: &str| word.to_lowercase().replace('-', "_");
    let folded = fold(written);
    known
        .into_iter()
        .take(MOST)
        .filter(|word| word.len() <= LONGEST)
        .map(|word| (strsim::osa_distance(&folded, &fold(word)), word))
        .filter(|(distance, word)| {
            let length = folded.chars().count().max(word.chars().count());
            // Short words are near to everything.
            *distance * 4 <= length || (*distance == 1 && length >= 3)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Words in backticks with commas between.
pub(crate) fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_recognised() {
        let known = ["status", "proxy_key", "channels", "name", "base_url"];
        for (written, expected) in [
            ("stauts", Some("status")),
            ("Status", Some("status")),
            ("proxy-key", Some("proxy_key")),
            ("proxykey", Some("proxy_key")),
            ("chanels", Some("channels")),
            ("baseurl", Some("base_url")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, known), expected, "{written}");
        }
    }
}
