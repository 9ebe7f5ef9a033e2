//! Words, echoes and token counts.
//!
//! A token is a word: a run without spaces together with the spaces before it, or one character of
//! a script that writes without spaces. Words never split a character and add up to the text.

use serde_json::Value;

/// An echo is at most this long, so that a huge prompt cannot make a huge answer.
const ECHO_LIMIT: usize = 256 << 10;
/// `chunks=` beyond the words of the answer is filled up with this.
const FILLER: &str = " again";

/// The words of a text; concatenated they are the text.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut solid = false;
        let mut end = rest.len();
        for (at, c) in rest.char_indices() {
            if is_dense(c) {
                end = if solid { at } else { at + c.len_utf8() };
                break;
            }
            if c.is_whitespace() && solid {
                end = at;
                break;
            }
            solid |= !c.is_whitespace();
        }
        let (word, tail) = rest.split_at(end);
        rest = tail;
        Some(word)
    })
}

/// Scripts written without spaces (and emoji): each character is a word.
fn is_dense(c: char) -> bool {
    c >= '\u{2e80}'
}

/// How many tokens a text is.
pub(crate) fn tokens(text: &str) -> u64 {
    words(text).count() as u64
}

/// The text of a message's `content` on any of the platforms: a string, or a list of parts of
/// which the texts count.
pub(crate) fn content_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part.as_str().or_else(|| part["text"].as_str())).collect()
        }
        _ => String::new(),
    }
}

/// What the last user message says (or the last message, where no user spoke), and the tokens of
/// all messages.
pub(crate) fn conversation(messages: &[Value]) -> (String, u64) {
    let total = messages.iter().map(|message| tokens(&content_text(&message["content"]))).sum();
    let last = messages.iter().rfind(|message| message["role"] == "user").or(messages.last());
    (last.map_or_else(String::new, |message| content_text(&message["content"])), total)
}

/// A deterministic answer, ready to be sent whole or in chunks.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    text: String,
    /// Byte offsets at which each word ends.
    ends: Vec<usize>,
    truncated: bool,
}

impl Reply {
    /// `You said: ...`, made long enough for `at_least` words, cut to `at_most` words.
    pub(crate) fn echo(said: &str, at_least: Option<usize>, at_most: Option<u64>) -> Reply {
        let mut text = format!("You said: {}", said.trim());
        if text.len() > ECHO_LIMIT {
            text.truncate(text.floor_char_boundary(ECHO_LIMIT));
        }
        let missing = at_least.unwrap_or(0).saturating_sub(words(&text).count());
        text.extend(std::iter::repeat_n(FILLER, missing));
        let mut end = 0;
        let mut ends: Vec<usize> = words(&text)
            .map(|word| {
                end += word.len();
                end
            })
            .collect();
        let limit = at_most.map_or(usize::MAX, |limit| usize::try_from(limit.max(1)).unwrap_or(usize::MAX));
        let truncated = ends.len() > limit;
        if truncated {
            ends.truncate(limit);
            text.truncate(ends[limit - 1]);
        }
        Reply { text, ends, truncated }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Whether the caller's limit cut the answer short.
    pub(crate) fn truncated(&self) -> bool {
        self.truncated
    }

    /// The answer in `count` chunks (default: one per word), each with its tokens.
    pub(crate) fn into_chunks(self, count: Option<usize>) -> impl Iterator<Item = (String, u64)> + Send {
        let total = self.ends.len();
        let count = count.unwrap_or(total).clamp(1, total.max(1));
        (0..count).map(move |n| {
            let (first, last) = (n * total / count, (n + 1) * total / count);
            let offset = |word: usize| if word == 0 { 0 } else { self.ends[word - 1] };
            let text = self.text[offset(first)..offset(last)].to_owned();
            (text, (last - first) as u64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_add_up_and_keep_characters_whole() {
        for text in ["", "a", " a  b ", "你好 world 世界", "日本語。 ok 👩‍👩‍👧 é", "\n\n"]
        {
            assert_eq!(words(text).collect::<String>(), text);
        }
        assert_eq!(words("hi 你好 you").collect::<Vec<_>>(), ["hi", " 你", "好", " you"]);
    }

    #[test]
    fn chunks_add_up_to_the_text() {
        for count in [None, Some(1), Some(2), Some(3), Some(50)] {
            let reply = Reply::echo("你好，世界 and all", count, None);
            let whole = reply.text().to_owned();
            let tokens = reply.tokens();
            let chunks: Vec<_> = reply.into_chunks(count).collect();
            if let Some(count) = count {
                assert_eq!(chunks.len(), count);
            }
            assert_eq!(chunks.iter().map(|c| c.1).sum::<u64>(), tokens);
            assert_eq!(chunks.into_iter().map(|c| c.0).collect::<String>(), whole);
        }
    }

    #[test]
    fn limits_hold() {
        let reply = Reply::echo("one two three", None, Some(3));
        assert_eq!((reply.text(), reply.tokens()), ("You said: one", 3));
        assert!(reply.truncated());
        assert!(Reply::echo(&"字".repeat(1 << 20), None, None).text().len() <= ECHO_LIMIT);
    }
}
