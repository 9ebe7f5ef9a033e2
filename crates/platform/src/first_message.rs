//! What the first message of a WebSocket says that has to be known before a platform is asked.

use crate::path;

/// What to look for in the first message of a socket on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstMessage {
    /// A pattern over the normal path.
    pattern: &'static str,
    /// JSON pointers (RFC 6901) to the members in which a caller may present its Proxy-Key.
    pub keys: &'static [&'static str],
    /// Later messages may hold a key as well.
    pub every: bool,
    /// It names the model, and nothing before it does.
    pub model: bool,
}

const fn model(pattern: &'static str) -> FirstMessage {
    FirstMessage { pattern, keys: &[], every: false, model: true }
}

/// The rows, first match wins.
const ROWS: &[FirstMessage] = &[
    // ElevenLabs; `initialiseContext` of `multi-stream-input` repeats them.
    FirstMessage {
        pattern: "/v1/text-to-speech/**",
        keys: &["/xi_api_key", "/authorization"],
        every: true,
        model: false,
    },
    // OpenAI Live's `session.start`; the sideband (`…/attach`) has no such thing.
    model("/v1/live/sessions"),
    // `response.create`.
    model("/v1/responses"),
    model("/openai/v1/responses"),
    // DashScope's `run-task`.
    model("/api-ws/v1/inference"),
    // Gemini's `setup`.
    model("/ws/*"),
];

/// The row of a normal path, if there is something to look for.
#[must_use]
pub fn of(normal: &str) -> Option<&'static FirstMessage> {
    ROWS.iter().find(|row| path::matches(row.pattern, normal.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn paths_have_their_rows() {
        for (path, keys, model) in [
            ("/v1/text-to-speech/voice/stream-input", true, false),
            ("/v1/text-to-speech/voice/multi-stream-input", true, false),
            ("/v1/live/sessions", false, true),
            ("/v1/live/sessions/", false, true),
            ("/v1/responses", false, true),
            ("/api-ws/v1/inference", false, true),
            ("/api-ws/v1/inference/", false, true),
            ("/ws/google.ai.generativelanguage.v1beta.generativeservice.bidigeneratecontent", false, true),
        ] {
            let row = of(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!((!row.keys.is_empty(), row.model), (keys, model), "{path}");
        }
        for path in ["/v1/realtime", "/v1/live/sessions/s1/attach", "/api-ws/v1/realtime", "/v1/listen", "/"]
        {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
