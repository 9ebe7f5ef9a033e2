//! Which requests begin a realtime session, and which join one: what client secrets are for.

use crate::path;

/// Where a request that begins a session names its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelPlace {
    /// This query parameter; beside an offer, the body may name it instead.
    Query(&'static str),
    /// Its body, or its first message.
    Message,
}

/// What a request has to do with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It begins one.
    Begins(ModelPlace),
    /// It acts upon a call that was begun before: it hangs up, or listens in.
    Joins,
}

/// A pattern over normal paths, and where the model is named.
type Row = (&'static str, ModelPlace);

/// WebSockets.
const SOCKETS: &[Row] = &[
    ("/v1/realtime", ModelPlace::Query("model")),
    ("/v1/realtime/translations", ModelPlace::Query("model")),
    ("/v1/live/sessions", ModelPlace::Message),
    ("/openai/v1/realtime", ModelPlace::Query("model")),
    // Azure's preview.
    ("/openai/realtime", ModelPlace::Query("deployment")),
    ("/api-ws/v1/realtime", ModelPlace::Query("model")),
];

/// POSTs of SDP offers.
const OFFERS: &[Row] = &[
    ("/v1/realtime/calls", ModelPlace::Query("model")),
    ("/v1/realtime/translations/calls", ModelPlace::Query("model")),
    ("/v1/realtime", ModelPlace::Query("model")),
    ("/v1/live/sessions", ModelPlace::Message),
    ("/openai/v1/realtime/calls", ModelPlace::Query("model")),
    ("/api/v1/webrtc/realtime", ModelPlace::Query("model")),
];

/// What acts upon a call.
const JOINS: &[&str] =
    &["/v1/realtime/calls/*/hangup", "/openai/v1/realtime/calls/*/hangup", "/v1/live/sessions/*/attach"];

/// What a request to this normal path has to do with a session: a WebSocket, or else a POST. A
/// `call_id` in the query joins a call, whatever the path.
#[must_use]
pub fn part(normal: &str, socket: bool, call_id: bool) -> Option<Part> {
    if JOINS.iter().any(|pattern| path::matches(pattern, normal)) {
        return Some(Part::Joins);
    }
    let rows = if socket { SOCKETS } else { OFFERS };
    let (_, place) = rows.iter().find(|(pattern, _)| path::matches(pattern, normal))?;
    Some(if call_id { Part::Joins } else { Part::Begins(*place) })
}

/// Whether sessions on this normal path are of the kind that translates.
#[must_use]
pub fn translates(normal: &str) -> bool {
    normal.contains("/realtime/translations")
}

/// Where client secrets are minted: a pattern over normal paths, and the paths of which a channel has to
/// serve one, for sessions that translate and for others.
pub struct Mint {
    path: &'static str,
    sessions: &'static [&'static str],
    translations: &'static [&'static str],
}

const MINTS: &[Mint] = &[
    Mint {
        path: "/v1/realtime/client_secrets",
        sessions: &["/v1/realtime"],
        translations: &["/v1/realtime/translations"],
    },
    Mint {
        path: "/v1/realtime/translations/client_secrets",
        sessions: &["/v1/realtime"],
        translations: &["/v1/realtime/translations"],
    },
    Mint {
        path: "/openai/v1/realtime/client_secrets",
        sessions: &["/openai/v1/realtime"],
        translations: &["/v1/realtime/translations"],
    },
    // For every channel: AIProxy's own.
    Mint {
        path: "/aiproxy/v1/client_secrets",
        sessions: &["/v1/realtime", "/openai/v1/realtime", "/api-ws/v1/realtime"],
        translations: &["/v1/realtime/translations"],
    },
];

impl Mint {
    /// The row of a normal path.
    #[must_use]
    pub fn of(normal: &str) -> Option<&'static Self> {
        MINTS.iter().find(|mint| mint.path == normal)
    }

    /// Paths that sessions use.
    #[must_use]
    pub const fn paths(&self, translations: bool) -> &'static [&'static str] {
        if translations { self.translations } else { self.sessions }
    }
}

/// Platforms whose realtime sessions take `session.update` as their first message, in OpenAI's shape.
const TAKE_UPDATES: &[&str] = &["openai", "azure"];

/// Whether the sessions of a platform can be given settings to begin with.
#[must_use]
pub fn takes_settings(platform: &str) -> bool {
    TAKE_UPDATES.contains(&platform)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_told_from_everything_else() {
        let query = |name| Some(Part::Begins(ModelPlace::Query(name)));
        for (path, socket, expected) in [
            ("/v1/realtime", true, query("model")),
            ("/v1/realtime", false, query("model")),
            ("/openai/realtime", true, query("deployment")),
            ("/openai/realtime", false, None),
            ("/v1/realtime/calls", false, query("model")),
            ("/v1/realtime/calls", true, None),
            ("/v1/live/sessions", true, Some(Part::Begins(ModelPlace::Message))),
            ("/api/v1/webrtc/realtime", false, query("model")),
            ("/v1/realtime/calls/rtc_1/hangup", false, Some(Part::Joins)),
            ("/v1/realtime/calls/rtc_1/refer", false, None),
            ("/v1/realtime/client_secrets", false, None),
            ("/aiproxy/v1/client_secrets", false, None),
            ("/v1/responses", true, None),
            ("/v1/chat/completions", false, None),
            ("/v1/realtime/sessions", false, None),
        ] {
            assert_eq!(part(path, socket, false), expected, "{path}");
        }
        assert_eq!(part("/v1/realtime", true, true), Some(Part::Joins));
        assert_eq!(part("/v1/responses", true, true), None);
    }

    #[test]
    fn no_platform_is_asked_to_mint() {
        for mint in MINTS {
            assert!(part(mint.path, false, false).is_none());
            assert!(
                mint.paths(false)
                    .iter()
                    .chain(mint.paths(true))
                    .all(|path| part(path, true, false).is_some())
            );
        }
        for (id, path) in [
            ("openai", "/v1/realtime/client_secrets"),
            ("openai", "/v1/realtime/translations/client_secrets"),
            ("azure", "/openai/v1/realtime/client_secrets"),
            ("azure", "/openai/v1/realtime/translations/client_secrets"),
        ] {
            assert!(crate::by_id(id).is_some_and(|platform| platform.forbids(path).is_some()), "{path}");
        }
        assert!(Mint::of("/openai/v1/realtime/client_secrets").is_some());
        assert!(Mint::of("/v1/realtime/sessions").is_none());
    }
}
