//! Is an upstream error about the channel's account rather than about the request?

/// JSON pointers under which platforms put codes.
pub const ERROR_CODES: &[&str] = &[
    "/error/code",
    "/error/type",
    "/error/status",
    "/error/details/0/reason",
    "/code",
    "/type",
    "/status",
    "/err_code",
    "/detail/status",
    "/detail/code",
    "/detail/type",
    "/header/error_code",
];
/// JSON pointers under which platforms put messages; the first that is there counts.
pub const ERROR_MESSAGES: &[&str] =
    &["/error/message", "/message", "/err_msg", "/detail/message", "/error", "/detail"];

/// What an error answer says of itself: the codes found in its JSON body, whatever the platform's
/// shape, and its message.
#[derive(Debug, Clone, Copy, Default)]
pub struct ErrorFacts<'a> {
    /// `error.code`, `error.type`, `error.status`, `code`, … in no particular order.
    pub codes: &'a [&'a str],
    /// The human-readable message, where there is one.
    pub message: &'a str,
}

/// One row: this status, together with this code or wording, means that the platform refused the
/// channel's key or account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountFault {
    /// Status of the answer.
    pub status: u16,
    /// Any of the answer's codes, compared without regard to case.
    pub code: Option<&'static str>,
    /// A part of the message, for platforms that have no code of their own for it.
    pub message: Option<&'static str>,
}

impl AccountFault {
    /// The status alone says it.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self { status, code: None, message: None }
    }

    /// The status and a code say it.
    #[must_use]
    pub const fn code(status: u16, code: &'static str) -> Self {
        Self { status, code: Some(code), message: None }
    }

    /// The status and a wording say it.
    #[must_use]
    pub const fn message(status: u16, message: &'static str) -> Self {
        Self { status, code: None, message: Some(message) }
    }

    /// Whether this row covers the answer.
    #[must_use]
    pub fn covers(&self, status: u16, facts: &ErrorFacts<'_>) -> bool {
        self.status == status
            && self.code.is_none_or(|code| facts.codes.iter().any(|have| have.eq_ignore_ascii_case(code)))
            && self.message.is_none_or(|part| facts.message.contains(part))
    }
}
