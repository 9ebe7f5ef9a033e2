//! An input is eight bytes of choices, and then what is parsed.
//!
//! ```text
//! 0     the target's own choices
//! 1..8  lengths of pieces, in turn: below 128 as they are, above in steps of 32; all zero: 1
//! 8..   the text
//! ```
//! Choices come first and are of fixed length, so that an edit of the text leaves them alone.

/// One input.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The target's own choices.
    pub choice: u8,
    lengths: [u8; 7],
    /// What is parsed.
    pub text: &'a [u8],
}

impl<'a> Input<'a> {
    /// None where there is not even a choice.
    #[must_use]
    pub fn new(data: &'a [u8]) -> Option<Self> {
        let ([choice, lengths @ ..], text) = data.split_first_chunk::<8>()?;
        Some(Self { choice: *choice, lengths: *lengths, text })
    }

    /// The text in pieces, some empty.
    #[must_use]
    pub fn pieces(&self) -> Vec<&'a [u8]> {
        let (mut rest, mut pieces) = (self.text, Vec::new());
        let idle = self.lengths == [0; 7];
        let mut lengths = self.lengths.iter().cycle().map(|length| match *length {
            _ if idle => 1,
            short @ ..0x80 => usize::from(short),
            long => (usize::from(long) - 0x7f) * 32,
        });
        while let Some(length) = lengths.next().filter(|_| !rest.is_empty()) {
            let (piece, behind) = rest.split_at(length.min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        pieces
    }

    /// The text byte by byte.
    #[must_use]
    pub fn single(&self) -> Vec<&'a [u8]> {
        self.text.chunks(1).collect()
    }
}

/// Whether `part` is `whole` with some bytes gone.
#[must_use]
pub fn is_subsequence(part: &[u8], whole: &[u8]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|byte| rest.any(|other| other == byte))
}
