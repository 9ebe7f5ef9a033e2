//! What a token may do: `users:read`, `keys:write`, `*`.

use std::fmt;

/// What rights are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    Users,
    Groups,
    Keys,
    Channels,
    Sessions,
    Audit,
    Settings,
    Administrators,
    Denials,
}

impl Area {
    pub(crate) const ALL: [Self; 9] = [
        Self::Users,
        Self::Groups,
        Self::Keys,
        Self::Channels,
        Self::Sessions,
        Self::Audit,
        Self::Settings,
        Self::Administrators,
        Self::Denials,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Groups => "groups",
            Self::Keys => "keys",
            Self::Channels => "channels",
            Self::Sessions => "sessions",
            Self::Audit => "audit",
            Self::Settings => "settings",
            Self::Administrators => "administrators",
            Self::Denials => "denials",
        }
    }
}

/// To look or to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    Read,
    Write,
}

/// One right in one area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) area: Area,
    pub(crate) right: Right,
}

impl Scope {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (area, right) = text.split_once(':')?;
        let area = Area::ALL.into_iter().find(|known| known.as_str() == area)?;
        let right = match right {
            "read" => Right::Read,
            "write" => Right::Write,
            _ => return None,
        };
        Some(Self { area, right })
    }

    /// Every scope there is.
    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Area::ALL.into_iter().flat_map(|area| [Right::Read, Right::Write].map(|right| Self { area, right }))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let right = match self.right {
            Right::Read => "read",
            Right::Write => "write",
        };
        write!(f, "{}:{right}", self.area.as_str())
    }
}

/// What a caller may do of what its role may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scopes {
    /// All of it: `*`.
    All,
    /// These alone. To write is not to read.
    Some(Vec<Scope>),
}

impl Scopes {
    /// Reads a list; the first that is unknown is the error.
    pub(crate) fn parse(list: &[String]) -> Result<Self, &str> {
        if list.iter().any(|text| text == "*") {
            return Ok(Self::All);
        }
        list.iter().map(|text| Scope::parse(text).ok_or(&**text)).collect::<Result<_, _>>().map(Self::Some)
    }

    pub(crate) fn hold(&self, scope: Scope) -> bool {
        match self {
            Self::All => true,
            Self::Some(scopes) => scopes.contains(&scope),
        }
    }

    /// Whether every scope of the other is one of these.
    pub(crate) fn cover(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Some(_), Self::All) => false,
            (Self::Some(_), Self::Some(others)) => others.iter().all(|scope| self.hold(*scope)),
        }
    }

    /// As they are stored and shown.
    pub(crate) fn list(&self) -> Vec<String> {
        match self {
            Self::All => vec!["*".into()],
            Self::Some(scopes) => scopes.iter().map(ToString::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(list: &[&str]) -> Scopes {
        Scopes::parse(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_scope_reads_back_as_it_is_written() {
        for scope in Scope::all() {
            assert_eq!(Scope::parse(&scope.to_string()), Some(scope));
        }
        for wrong in ["users", "users:", "users:delete", "user:read", "*:read", ""] {
            assert_eq!(Scope::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_token_holds_no_more_than_its_list() {
        let some = scopes(&["users:read", "keys:write"]);
        assert!(some.hold(Scope { area: Area::Users, right: Right::Read }));
        assert!(!some.hold(Scope { area: Area::Users, right: Right::Write }));
        assert!(!some.hold(Scope { area: Area::Keys, right: Right::Read }));
        assert!(scopes(&["*"]).cover(&some) && some.cover(&scopes(&["keys:write"])));
        assert!(!some.cover(&scopes(&["*"])) && !some.cover(&scopes(&["channels:read"])));
        assert_eq!(Scopes::parse(&["users:read".into(), "x".into()]), Err("x"));
    }
}
