//! Admin tokens: for programs, in `Authorization: Bearer`.

use aiproxy_core::ids::random_key;
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// How a token begins.
const PREFIX: &str = "at_";
/// Base-62 characters after the prefix: 238 bits.
const LENGTH: usize = 40;
/// Characters that are shown for people to tell tokens apart.
const SHOWN: usize = 8;

/// A fresh token.
pub(crate) fn fresh() -> String {
    random_key(PREFIX, LENGTH)
}

/// The beginning that is stored and shown.
pub(crate) fn prefix(token: &str) -> String {
    token.chars().take(SHOWN).collect()
}

/// What the request brings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Given<'a> {
    Nothing,
    Token(&'a str),
    /// An `Authorization` that holds no token of ours.
    Malformed,
}

/// The token in the request.
pub(crate) fn given(headers: &HeaderMap) -> Given<'_> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Given::Nothing };
    let text = value.to_str().unwrap_or_default();
    let token = text
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    match token {
        Some(token) if token.len() == PREFIX.len() + LENGTH && token.starts_with(PREFIX) => {
            Given::Token(token)
        }
        _ => Given::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_ours_are_taken_and_nothing_else() {
        let token = fresh();
        let told = |value: String| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            given(&headers) == Given::Token(&token)
        };
        assert!(told(format!("Bearer {token}")) && told(format!("bearer  {token}")));
        assert!(!told(format!("Basic {token}")) && !told(token.clone()) && !told(format!("Bearer {token}x")));
        assert_eq!(given(&HeaderMap::new()), Given::Nothing);
        assert_eq!(prefix(&token).len(), 8);
    }
}
