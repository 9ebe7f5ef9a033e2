//! The line of the file that a problem shows, safe and aligned for a terminal.

use std::ops::Range;

/// Columns of a terminal that an excerpt may fill.
const WIDTH: usize = 120;
/// Columns kept before the mark where a long line is cut.
const BEFORE: usize = 40;
const MASK: &str = "***";

/// A line with its secrets masked, and where the mark goes under it.
#[derive(Debug, Clone)]
pub(crate) struct Excerpt {
    text: String,
    /// Terminal columns before the mark.
    indent: usize,
    /// Terminal columns under which the mark stands.
    width: usize,
}

impl Excerpt {
    /// Shows `line` with the character ranges `masked` replaced by `***`, marking the characters
    /// `marked`. The masked ranges may overlap and come in any order.
    pub(crate) fn new(line: &str, masked: &[Range<usize>], marked: Range<usize>) -> Self {
        // Only what is near the mark can be shown: the rest of a very long line is not looked at.
        let skipped = marked.start.saturating_sub(2 * WIDTH);
        let cells = cells(line, skipped, masked);
        let length = line.chars().skip(skipped).take(4 * WIDTH).count() + skipped;
        let begin: usize =
            cells.iter().take_while(|cell| cell.until <= marked.start).map(|cell| cell.width).sum();
        // The end of the line is a place too.
        let begin = begin + marked.start.saturating_sub(length).min(1);
        let end: usize = cells.iter().take_while(|cell| cell.at < marked.end).map(|cell| cell.width).sum();
        let mut text = String::new();
        let total: usize = cells.iter().map(|cell| cell.width).sum();
        let from = if total <= WIDTH && skipped == 0 { 0 } else { begin.saturating_sub(BEFORE) };
        let (mut column, mut indent, mut cut) = (0, 0, false);
        if from > 0 {
            text.push('…');
            indent = 1;
        }
        let mut first = None;
        for cell in &cells {
            let next = column + cell.width;
            if column >= from && next <= from + WIDTH {
                first.get_or_insert(column);
                text.push_str(&cell.text);
            } else if column >= from {
                cut = true;
            }
            column = next;
        }
        if cut {
            text.push('…');
        }
        let first = first.unwrap_or(from);
        indent += begin.saturating_sub(first);
        let room = (first + WIDTH).saturating_sub(begin).max(1);
        Self { text: text.trim_end().to_owned(), indent, width: end.saturating_sub(begin).clamp(1, room) }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The line below: spaces, then `^` under the place.
    pub(crate) fn marks(&self) -> String {
        format!("{}{}", " ".repeat(self.indent), "^".repeat(self.width))
    }
}

/// What is shown in place of some characters of the line.
struct Cell {
    /// Index of the first of these characters.
    at: usize,
    /// Index of the first character after them.
    until: usize,
    text: String,
    width: usize,
}

fn cells(line: &str, skipped: usize, masked: &[Range<usize>]) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    let mut hidden = false;
    for (at, c) in line.chars().enumerate().skip(skipped).take(4 * WIDTH) {
        if masked.iter().any(|range| range.contains(&at)) {
            match cells.last_mut().filter(|_| hidden) {
                Some(mask) => mask.until = at + 1,
                None => cells.push(Cell { at, until: at + 1, text: MASK.to_owned(), width: MASK.len() }),
            }
            hidden = true;
            continue;
        }
        hidden = false;
        let (text, width) = match c {
            '\t' => ("    ".to_owned(), 4),
            // Neither may a file write to the terminal, nor turn the direction of the text.
            c if c.is_control() || is_invisible(c) => ("\u{fffd}".to_owned(), 1),
            c => (c.to_string(), width_of(c)),
        };
        cells.push(Cell { at, until: at + 1, text, width });
    }
    cells
}

const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Columns that a character takes in a terminal: the wide and full-width ranges of Unicode's
/// East Asian Width, and the common combining marks.
pub(crate) const fn width_of(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}' | '\u{fe00}'..='\u{fe0f}' | '\u{20d0}'..='\u{20ff}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{303e}'
        | '\u{3041}'..='\u{33ff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{a000}'..='\u{a4cf}'
        | '\u{a960}'..='\u{a97f}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1f64f}'
        | '\u{1f680}'..='\u{1f6ff}'
        | '\u{1f900}'..='\u{1f9ff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges are what is meant")]
mod tests {
    use super::*;

    fn show(line: &str, masked: &[Range<usize>], marked: Range<usize>) -> String {
        let excerpt = Excerpt::new(line, masked, marked);
        format!("{}\n{}", excerpt.text(), excerpt.marks())
    }

    #[test]
    fn the_mark_stands_under_the_place() {
        assert_eq!(show("a: bcd", &[], 3..6), "a: bcd\n   ^^^");
        assert_eq!(show("张三: x", &[], 4..5), "张三: x\n      ^");
        assert_eq!(show("a: 张三", &[], 3..5), "a: 张三\n   ^^^^");
        assert_eq!(show("\ta", &[], 1..2), "    a\n    ^");
        assert_eq!(show("a:", &[], 2..3), "a:\n  ^");
        assert_eq!(show("a: bcd", &[], 3..3), "a: bcd\n   ^");
    }

    #[test]
    fn masks_move_the_mark() {
        assert_eq!(show("k: secret, b: x", &[3..9], 11..12), "k: ***, b: x\n        ^");
        assert_eq!(show("k: secret", &[3..9], 3..9), "k: ***\n   ^^^");
        assert_eq!(show("k: secret", &[3..9], 5..6), "k: ***\n   ^^^");
        assert_eq!(show("k: secret", &[3..7, 5..9], 0..1), "k: ***\n^");
    }

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        assert_eq!(show("a\u{1b}[31mb", &[], 0..1), "a\u{fffd}[31mb\n^");
        assert_eq!(show("a\u{202e}b", &[], 0..1), "a\u{fffd}b\n^");
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let line = format!("{}X{}", "a".repeat(300), "b".repeat(300));
        let shown = show(&line, &[], 300..301);
        let (text, marks) = shown.split_once('\n').unwrap();
        assert!(text.chars().count() <= WIDTH + 2);
        assert_eq!(text.chars().position(|c| c == 'X'), Some(marks.len() - 1));
    }
}
