//! How many tokens a text is, where no platform counted them.
//!
//! The rule: four ASCII bytes are a token; so are two letters that take two bytes in UTF-8 (Greek,
//! Cyrillic, accents) and one character that takes three or four (Chinese, Japanese, Korean,
//! emoji). Tokenizers of today's models come within a third of it for prose. JSON escapes count as
//! what they stand for.

/// Adds up text piece by piece; a piece may end inside a character.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Meter {
    /// Quarters of a token.
    quarters: u64,
    /// Characters, as Unicode counts them.
    characters: u64,
}

impl Meter {
    /// Counts raw bytes of UTF-8. Bytes that are none count as ASCII at most.
    pub fn bytes(&mut self, bytes: &[u8]) {
        // Pieces so short that sums of 32 bits hold them, which the compiler makes wide additions of.
        for piece in bytes.chunks(1 << 20) {
            self.quarters += u64::from(piece.iter().map(|byte| weight(*byte)).sum::<u32>());
            // A character's first byte stands for it.
            let begin = |byte: &u8| u32::from(byte & 0xc0 != 0x80);
            self.characters += u64::from(piece.iter().map(begin).sum::<u32>());
        }
    }

    /// Counts one UTF-16 code unit, as `\u` escapes name it. The second half of a pair is free.
    pub fn utf16(&mut self, unit: u16) {
        self.quarters += match unit {
            0..0x80 => 1,
            0x80..0x800 => 2,
            0xdc00..0xe000 => 0,
            _ => 4,
        };
        self.characters += u64::from(!(0xdc00..0xe000).contains(&unit));
    }

    /// Counts what another has counted.
    pub fn add(&mut self, other: Self) {
        self.quarters = self.quarters.saturating_add(other.quarters);
        self.characters = self.characters.saturating_add(other.characters);
    }

    /// The larger of two counts.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        if other.quarters > self.quarters { other } else { self }
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.quarters == 0
    }

    /// Characters of the text.
    #[must_use]
    pub fn characters(self) -> u64 {
        self.characters
    }

    /// The estimate, rounded up.
    #[must_use]
    pub fn tokens(self) -> u64 {
        self.quarters.div_ceil(4)
    }
}

/// Quarters of a token that a byte stands for: a character's first byte carries all of it.
/// 1 for ASCII, 0 for a byte that continues one, 2 and 4 for the others; without a branch.
fn weight(byte: u8) -> u32 {
    u32::from(byte < 0x80) + 2 * u32::from(byte >= 0xc0) + 2 * u32::from(byte >= 0xe0)
}

#[cfg(test)]
mod tests {
    use super::Meter;

    #[test]
    fn text_is_weighed_by_script() {
        for (text, tokens) in
            [("", 0), ("a", 1), ("four", 1), ("fives", 2), ("你好，世界", 5), ("привет", 3), ("👍", 1)]
        {
            let mut whole = Meter::default();
            whole.bytes(text.as_bytes());
            assert_eq!(whole.tokens(), tokens, "{text}");
            assert_eq!(whole.characters(), text.chars().count() as u64, "{text}");
            let mut units = Meter::default();
            text.encode_utf16().for_each(|unit| units.utf16(unit));
            assert_eq!(units, whole, "{text}");
        }
    }
}
