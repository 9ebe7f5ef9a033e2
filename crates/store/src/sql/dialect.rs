//! What differs between databases: the rest of this module says the same to all of them.

use super::link::Statement;

/// The character that takes the meaning from `%`, `_` and itself in a pattern. It is no character that a
/// database gives a meaning of its own in texts.
const ESCAPE: char = '!';
/// Nobody looks for longer texts; longer patterns cost, and SQLite refuses the longest.
const LONGEST_SEARCH: usize = 1000;

/// Which database speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
}

impl Dialect {
    /// Begins a transaction that writes: the lock is taken now, so that nothing read in it can have
    /// changed before it writes.
    pub(super) const fn begin_write(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
        }
    }

    /// Between a column and a pattern that is to be bound; the pattern's end follows.
    pub(super) const fn like(self) -> (&'static str, &'static str) {
        match self {
            Self::Sqlite => (" LIKE ", " ESCAPE '!'"),
        }
    }

    /// After a column that is compared or sorted without the case of ASCII letters.
    pub(super) const fn no_case(self) -> &'static str {
        match self {
            Self::Sqlite => " COLLATE NOCASE",
        }
    }

    /// The end of an insert that replaces `columns` where a row with these `keys` is there.
    pub(super) fn or_update(
        self,
        statement: &mut Statement,
        keys: &[&'static str],
        columns: &[&'static str],
    ) {
        match self {
            Self::Sqlite => {
                statement.push(" ON CONFLICT (");
                statement.names(keys);
                statement.push(") DO UPDATE SET ");
                for (index, column) in columns.iter().enumerate() {
                    statement.push(if index == 0 { "" } else { ", " });
                    statement.push(column).push(" = excluded.").push(column);
                }
            }
        }
    }
}

/// A pattern of what contains the text. `None` where nothing can contain it.
pub(super) fn containing(text: &str) -> Option<String> {
    pattern(text).map(|inner| format!("%{inner}%"))
}

/// A pattern of what begins with the text. `None` where nothing can.
pub(super) fn beginning(text: &str) -> Option<String> {
    pattern(text).map(|inner| format!("{inner}%"))
}

/// A pattern of the text itself. One that is too long, or with NUL, at which SQLite would stop reading, finds
/// nothing.
fn pattern(text: &str) -> Option<String> {
    if text.len() > LONGEST_SEARCH || text.contains('\0') {
        return None;
    }
    let mut out = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if matches!(character, '%' | '_' | ESCAPE) {
            out.push(ESCAPE);
        }
        out.push(character);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_no_wildcards_but_ours() {
        assert_eq!(containing("50%_off!").as_deref(), Some("%50!%!_off!!%"));
        assert_eq!(beginning("user.").as_deref(), Some("user.%"));
        assert_eq!(containing("a\0b"), None);
        assert_eq!(containing(&"x".repeat(1001)), None);
    }
}
