//! JSON pointers (RFC 6901) to members of objects.

/// Members that lead to one another, at most; no platform has more than two.
const DEPTH: usize = 8;

/// A JSON pointer through objects: the names of the members, outermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// From its text, as `/auth/token`; `None` where that does not point to a member, or goes deeper
    /// than eight.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let names = text.strip_prefix('/')?.split('/').map(|raw| {
            let bad = raw.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1']));
            (!bad && !raw.is_empty()).then(|| raw.replace("~1", "/").replace("~0", "~"))
        });
        let names: Vec<String> = names.collect::<Option<_>>()?;
        (names.len() <= DEPTH).then_some(Self(names))
    }

    /// The names, outermost first; never none.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Pointer;

    #[test]
    fn pointers_are_read_as_the_standard_says() {
        assert_eq!(Pointer::parse("/a/b~1c~0d").unwrap().names(), ["a", "b/c~d"]);
        assert_eq!(Pointer::parse("/~01").unwrap().names(), ["~1"]);
        for bad in ["", "a", "/", "//a", "/a/", "/a~", "/a~2", "/1/2/3/4/5/6/7/8/9"] {
            assert_eq!(Pointer::parse(bad), None, "{bad}");
        }
    }
}
