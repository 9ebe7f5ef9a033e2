//! Who may do what: one table of every route. What is not in it is refused.

use std::fmt;

use super::caller::Role;

mod documents;
mod scope;

pub(crate) use scope::{Area, Right, Scope, Scopes};

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// No login.
    Open,
    /// A login of any role, also one whose password has to be changed first.
    Own,
    /// A login of any role.
    Any,
    /// A login whose role and scopes have this right.
    Needs(Area, Right),
}

impl Access {
    /// Whether this caller may, a login given.
    pub(crate) fn allows(self, role: Role, scopes: &Scopes) -> bool {
        match self {
            Self::Open | Self::Own | Self::Any => true,
            Self::Needs(area, right) => {
                (role == Role::Administrator || right == Right::Read) && scopes.hold(Scope { area, right })
            }
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Own => f.write_str("own"),
            Self::Any => f.write_str("any"),
            Self::Needs(area, right) => Scope { area: *area, right: *right }.fmt(f),
        }
    }
}

/// One route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    /// In upper case. `HEAD` goes where `GET` goes.
    pub(crate) method: &'static str,
    /// As axum matches it.
    pub(crate) path: &'static str,
    pub(crate) access: Access,
}

/// A row of the table.
const fn row(method: &'static str, path: &'static str, access: Access) -> Route {
    Route { method, path, access }
}

const fn reads(area: Area) -> Access {
    Access::Needs(area, Right::Read)
}

const fn writes(area: Area) -> Access {
    Access::Needs(area, Right::Write)
}

/// The routes of logins, administrators, tokens and the process; those of what is administered are
/// in [`documents`].
const OWN: &[Route] = &[
    row("GET", "/api", Access::Open),
    row("POST", "/api/v1/login", Access::Open),
    row("POST", "/api/v1/logout", Access::Own),
    row("GET", "/api/v1/me", Access::Own),
    row("POST", "/api/v1/password", Access::Own),
    row("GET", "/api/v1/openapi.json", Access::Any),
    row("GET", "/api/v1/status", Access::Any),
    row("GET", "/api/v1/administrators", reads(Area::Administrators)),
    row("POST", "/api/v1/administrators", writes(Area::Administrators)),
    row("GET", "/api/v1/administrators/{id}", reads(Area::Administrators)),
    row("PATCH", "/api/v1/administrators/{id}", writes(Area::Administrators)),
    row("DELETE", "/api/v1/administrators/{id}", writes(Area::Administrators)),
    row("GET", "/api/v1/tokens", reads(Area::Administrators)),
    row("POST", "/api/v1/tokens", writes(Area::Administrators)),
    row("DELETE", "/api/v1/tokens/{id}", writes(Area::Administrators)),
    row("GET", "/api/v1/audit", reads(Area::Audit)),
    row("GET", "/api/v1/settings", reads(Area::Settings)),
    row("PATCH", "/api/v1/settings", writes(Area::Settings)),
];

/// Every route.
pub(crate) fn routes() -> impl Iterator<Item = &'static Route> {
    OWN.iter().chain(documents::ROUTES)
}

/// What a request may be refused for before anybody asks who makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Route(Access),
    /// The path takes other methods.
    OtherMethods,
    /// A route that the table forgot: nobody may.
    Nothing,
}

/// Looks a matched path up.
pub(crate) fn find(method: &http::Method, path: &str) -> Found {
    let method = if method == http::Method::HEAD { "GET" } else { method.as_str() };
    let mut found = Found::Nothing;
    for route in routes().filter(|route| route.path == path) {
        if route.method == method {
            return Found::Route(route.access);
        }
        found = Found::OtherMethods;
    }
    found
}
