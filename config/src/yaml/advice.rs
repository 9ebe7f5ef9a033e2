//! What to do about YAML that does not parse.

use super::Fault;
use crate::tree::{Pos, Span};

/// The parser's own words with the cure for the usual causes.
pub(super) fn syntax(info: &str, at: Pos) -> Fault {
    let suggestion = [
        ("escape", "in double quotes write `\\\\` for a backslash, or use single quotes"),
        ("hexadecimal", "in double quotes write `\\\\` for a backslash, or use single quotes"),
        ("quoted scalar", "close the quote that is open here"),
        ("double-quoted", "put a comma or line break after the closing quote; inside, write `\\\"` for a quote"),
        ("tab", "indent with spaces"),
        ("mapping values are not allowed", "check the indentation, that each colon before has a space after it, and that a value with `: ` in it is in quotes"),
        ("simple key expect", "write `key: value`, with a space after the colon"),
        ("':'", "write `key: value`, with a space after the colon"),
        ("end of stream", "close the quote or bracket that is still open"),
        ("unexpected end", "close the quote or bracket that is still open"),
        ("indent", "indent the fields of one section alike"),
        ("while parsing a block mapping", "indent the fields of one section alike"),
        ("unknown anchor", "define the anchor with `&name` before it is used"),
        ("unexpected character", "put a value that begins with `@`, `%` or a backtick in quotes"),
    ]
    .into_iter()
    .find(|(part, _)| info.contains(part))
    .map(|(_, suggestion)| suggestion);
    Fault { span: Span::at(at), message: format!("not valid YAML: {info}"), suggestion }
}
