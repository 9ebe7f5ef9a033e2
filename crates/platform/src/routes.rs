//! Path prefix → API family, error shape and usage shape.

/// The API that a path belongs to. Channels say which families they serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// OpenAI's `/v1/…` and the many platforms that copy it.
    OpenAi,
    /// Azure OpenAI's `/openai/…`.
    Azure,
    /// DashScope's native `/api/v1/…`, `/compatible-mode/…`, `/apps/…`, `/api-ws/…`.
    DashScope,
    /// Anthropic's `/v1/messages`.
    Anthropic,
    /// Google's `/v1beta/models/…`.
    Gemini,
    /// Deepgram's `/v1/listen` and `/v1/speak`.
    Deepgram,
    /// ElevenLabs' `/v1/text-to-speech` and others.
    ElevenLabs,
    /// Volcengine's `/api/v3/…`.
    Volcengine,
    /// A path of no known family: only `custom` channels serve it.
    Other,
}

/// The JSON shape in which the SDKs of a family expect errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorShape {
    /// `{"error":{"message","type","code","param":null}}`
    OpenAi,
    /// `{"type":"error","error":{"type","message"},"request_id"}`
    Anthropic,
    /// `{"error":{"code":<status>,"message","status"}}`
    Google,
    /// `{"code","message","request_id"}`
    DashScope,
    /// `{"err_code","err_msg","request_id"}`
    Deepgram,
    /// `{"detail":{"status","message"}}`
    ElevenLabs,
}

/// Where the answers of a path report usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageShape {
    /// `usage` of the body, or of the last chunk before `[DONE]`.
    OpenAi,
    /// `usage` of the body, or `response.usage` of the event `response.completed`.
    OpenAiResponses,
    /// `usage` of the body, or of `message_start` and `message_delta`.
    Anthropic,
    /// `usage` of the body, or of each chunk, cumulative.
    DashScope,
    /// `usageMetadata` of the body or of each chunk, cumulative.
    Gemini,
    /// The path reports none.
    None,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Whole segments that the normal path begins with.
    pub prefix: &'static str,
    /// A request header that must be there, for prefixes that two families share.
    pub header: Option<&'static str>,
    /// The API family.
    pub family: Family,
    /// The shape of errors.
    pub errors: ErrorShape,
    /// Where usage is reported.
    pub usage: UsageShape,
}

const fn row(prefix: &'static str, family: Family, errors: ErrorShape, usage: UsageShape) -> Route {
    Route { prefix, header: None, family, errors, usage }
}

const fn with(header: &'static str, route: Route) -> Route {
    Route { header: Some(header), ..route }
}

/// The rows, first match wins.
pub const ROUTES: &[Route] = &[
    row("/v1/messages", Family::Anthropic, ErrorShape::Anthropic, UsageShape::Anthropic),
    row("/v1/complete", Family::Anthropic, ErrorShape::Anthropic, UsageShape::None),
    with("anthropic-version", row("/v1", Family::Anthropic, ErrorShape::Anthropic, UsageShape::None)),
    with("xi-api-key", row("/v1", Family::ElevenLabs, ErrorShape::ElevenLabs, UsageShape::None)),
    row("/v1/listen", Family::Deepgram, ErrorShape::Deepgram, UsageShape::None),
    row("/v2/listen", Family::Deepgram, ErrorShape::Deepgram, UsageShape::None),
    row("/v1/speak", Family::Deepgram, ErrorShape::Deepgram, UsageShape::None),
    row("/v1/read", Family::Deepgram, ErrorShape::Deepgram, UsageShape::None),
    row("/v1/agent", Family::Deepgram, ErrorShape::Deepgram, UsageShape::None),
    row("/v1/auth", Family::Deepgram, ErrorShape::Deepgram, UsageShape::None),
    row("/v1/text-to-speech", Family::ElevenLabs, ErrorShape::ElevenLabs, UsageShape::None),
    row("/v1/speech-to-text", Family::ElevenLabs, ErrorShape::ElevenLabs, UsageShape::None),
    row("/v1/speech-to-speech", Family::ElevenLabs, ErrorShape::ElevenLabs, UsageShape::None),
    row("/v1/sound-generation", Family::ElevenLabs, ErrorShape::ElevenLabs, UsageShape::None),
    row("/v1/convai", Family::ElevenLabs, ErrorShape::ElevenLabs, UsageShape::None),
    row("/v1/voices", Family::ElevenLabs, ErrorShape::ElevenLabs, UsageShape::None),
    row("/v2/voices", Family::ElevenLabs, ErrorShape::ElevenLabs, UsageShape::None),
    row("/v1/single-use-token", Family::ElevenLabs, ErrorShape::ElevenLabs, UsageShape::None),
    row("/v1/responses", Family::OpenAi, ErrorShape::OpenAi, UsageShape::OpenAiResponses),
    row("/v1", Family::OpenAi, ErrorShape::OpenAi, UsageShape::OpenAi),
    row("/dashboard", Family::OpenAi, ErrorShape::OpenAi, UsageShape::None),
    row("/openai/v1/responses", Family::Azure, ErrorShape::OpenAi, UsageShape::OpenAiResponses),
    row("/openai", Family::Azure, ErrorShape::OpenAi, UsageShape::OpenAi),
    row("/compatible-mode/v1/responses", Family::DashScope, ErrorShape::OpenAi, UsageShape::OpenAiResponses),
    row("/compatible-mode", Family::DashScope, ErrorShape::OpenAi, UsageShape::OpenAi),
    row("/compatible-api", Family::DashScope, ErrorShape::OpenAi, UsageShape::OpenAi),
    row("/apps/anthropic", Family::DashScope, ErrorShape::Anthropic, UsageShape::Anthropic),
    row("/apps", Family::DashScope, ErrorShape::DashScope, UsageShape::None),
    row("/api-ws", Family::DashScope, ErrorShape::DashScope, UsageShape::None),
    row("/api/v1", Family::DashScope, ErrorShape::DashScope, UsageShape::DashScope),
    row("/api/v3", Family::Volcengine, ErrorShape::OpenAi, UsageShape::OpenAi),
    row("/v1beta/openai", Family::Gemini, ErrorShape::OpenAi, UsageShape::OpenAi),
    row("/v1beta", Family::Gemini, ErrorShape::Google, UsageShape::Gemini),
    row("/v1beta1", Family::Gemini, ErrorShape::Google, UsageShape::Gemini),
    row("/v1alpha", Family::Gemini, ErrorShape::Google, UsageShape::Gemini),
    row("/upload/v1beta", Family::Gemini, ErrorShape::Google, UsageShape::None),
    row("/download/v1beta", Family::Gemini, ErrorShape::Google, UsageShape::None),
    row("/ws", Family::Gemini, ErrorShape::Google, UsageShape::None),
];

/// Paths of no known family: answered in OpenAI's error shape, the one most clients parse.
pub const OTHER: Route = row("/", Family::Other, ErrorShape::OpenAi, UsageShape::None);

/// The first row that covers the normal path. `has_header` is asked for names in lower case.
pub fn classify(normal: &str, has_header: impl Fn(&str) -> bool) -> &'static Route {
    ROUTES
        .iter()
        .find(|route| crate::path::has_prefix(normal, route.prefix) && route.header.is_none_or(&has_header))
        .unwrap_or(&OTHER)
}

/// The model named by the path itself, decoded: Azure's `/openai/deployments/{model}/…`, Gemini's
/// `/{version}/models/{model}:{method}` and `…/tunedModels/…`. Segments are compared in their normal form,
/// whatever family the headers suggest: the platform reads the path alone.
#[must_use]
pub fn model_in_path(path: &str) -> Option<String> {
    let mut segments = path.split('/').skip(1).map(|raw| {
        let decoded = percent_encoding::percent_decode_str(raw).decode_utf8_lossy();
        decoded.split_once(';').map_or(decoded.as_ref(), |(name, _)| name).trim().to_owned()
    });
    let (first, second, third) = (segments.next()?, segments.next()?, segments.next()?);
    let is = |segment: &str, name: &str| segment.eq_ignore_ascii_case(name);
    let model = if is(&first, "openai") && is(&second, "deployments") {
        third
    } else if (is(&second, "models") || is(&second, "tunedModels")) && third.contains(':') {
        third.split_once(':').map_or(String::new(), |(name, _)| name.to_owned())
    } else {
        return None;
    };
    (!model.is_empty()).then_some(model)
}

/// Paths that make a model work, as patterns over the normal path: where a caller is limited to
/// certain models, a POST to one of these has to name one. Batches count among them: they name
/// their models in a file or in nested requests, out of sight.
pub const RUNS_A_MODEL: &[&str] = &[
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/responses/compact",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/audio/*",
    "/v1/models/*",
    "/v1/realtime/calls/**",
    "/v1/realtime",
    "/v1/live/sessions/**",
    "/v1/images/*",
    "/v1/videos",
    "/v1/batches",
    "/v1/evals/**",
    "/v1/fine_tuning/jobs",
    "/v1/threads/**",
    "/v1/messages/**",
    "/v1/complete",
    "/v1/listen",
    "/v1/speak",
    "/v1/text-to-speech/**",
    "/v1/speech-to-text/**",
    "/v1/speech-to-speech/**",
    "/v1/sound-generation/**",
    "/openai/v1/**",
    "/openai/deployments/**",
    "/compatible-mode/v1/**",
    "/compatible-api/v1/**",
    "/apps/**",
    "/api/v1/services/**",
    "/api/v1/apps/**",
    "/api/v3/**",
    "/v1beta/**",
    "/v1beta1/**",
    "/v1alpha/**",
];

/// Paths to which a POST creates something that lasts at the platform, or starts billing at once:
/// never sent twice once bytes were sent.
pub const CREATES: &[&str] = &[
    "/v1/files/**",
    "/v1/uploads/**",
    "/v1/batches/**",
    "/v1/messages/batches/**",
    "/v1/vector_stores/**",
    "/v1/fine_tuning/**",
    "/v1/conversations/**",
    "/v1/containers/**",
    "/v1/assistants/**",
    "/v1/threads/**",
    "/v1/evals/**",
    "/v1/videos/**",
    "/v1/realtime/calls/**",
    "/v1/live/sessions/**",
    "/v1/convai/**",
    "/openai/files/**",
    "/openai/batches/**",
    "/openai/v1/files/**",
    "/openai/v1/uploads/**",
    "/openai/v1/batches/**",
    "/openai/v1/vector_stores/**",
    "/openai/v1/fine_tuning/**",
    "/openai/v1/realtime/calls/**",
    "/compatible-mode/v1/files/**",
    "/compatible-mode/v1/batches/**",
    "/api/v1/files/**",
    "/api/v1/fine-tunes/**",
    "/upload/**",
    "/v1beta/files/**",
    "/v1beta/cachedcontents/**",
];

/// Whether a POST to this normal path creates something that lasts.
#[must_use]
pub fn creates(normal: &str) -> bool {
    CREATES.iter().any(|pattern| crate::path::matches(pattern, normal))
}

/// Whether a POST to this normal path makes a model work.
#[must_use]
pub fn runs_a_model(normal: &str) -> bool {
    RUNS_A_MODEL.iter().any(|pattern| crate::path::matches(pattern, normal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_prefixes_are_told_apart_by_header() {
        let none = |_: &str| false;
        assert_eq!(classify("/v1/models", none).family, Family::OpenAi);
        assert_eq!(classify("/v1/models", |h| h == "anthropic-version").family, Family::Anthropic);
        assert_eq!(classify("/v1/messages/count_tokens", none).family, Family::Anthropic);
        assert_eq!(classify("/v1/messagesx", none).family, Family::OpenAi);
        assert_eq!(classify("/api/v1/services/aigc", none).family, Family::DashScope);
        assert_eq!(classify("/v1beta/openai/chat/completions", none).errors, ErrorShape::OpenAi);
        assert_eq!(classify("/nothing", none).family, Family::Other);
    }

    #[test]
    fn models_are_read_from_paths_in_any_spelling() {
        for (path, model) in [
            ("/openai/deployments/gpt4/chat/completions", Some("gpt4")),
            ("/openai/d%65ployments/gpt4/chat/completions", Some("gpt4")),
            ("/OpenAI/Deployments/gpt%344/x", Some("gpt44")),
            ("/openai/v1/chat/completions", None),
            ("/v1beta/models/gemini-2.5-pro:generateContent", Some("gemini-2.5-pro")),
            ("/v1beta/m%6Fdels/gemini-pro:generateContent", Some("gemini-pro")),
            ("/v1/models/gemini-pro%3AgenerateContent", Some("gemini-pro")),
            ("/v1beta/tunedModels/mine:generateContent", Some("mine")),
            ("/v1beta/models", None),
            ("/v1/models/gpt-4o", None),
        ] {
            assert_eq!(model_in_path(path).as_deref(), model, "{path}");
        }
    }
}
