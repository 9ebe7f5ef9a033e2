//! The member names that mean something, on any platform.

macro_rules! keys {
    ($($(#[$doc:meta])* $variant:ident = $($name:literal)|+,)*) => {
        /// A member's name. Names that mean the same on different platforms are one key.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Key {
            /// An element of an array.
            Item,
            /// Any name of no interest.
            Other,
            /// A model's in other letters: some platforms do not mind.
            LikeModel,
            /// A name under which messages name models, in other letters.
            LikePart,
            $($(#[$doc])* $variant,)*
        }

        impl Key {
            pub(crate) fn of(name: &[u8]) -> Self {
                match name {
                    $($($name)|+ => Self::$variant,)*
                    _ => Self::like(name),
                }
            }
        }
    };
}

impl Key {
    /// Names that are no others but for their letters' case.
    fn like(name: &[u8]) -> Self {
        let is = |known: &[&str]| known.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
        match name.len() {
            5..=8 if is(&["model", "model_id", "modelid"]) => Self::LikeModel,
            5..=8 if is(&["session", "response", "payload", "setup"]) => Self::LikePart,
            _ => Self::Other,
        }
    }
}

keys! {
    // Where usage stands.
    Usage = b"usage",
    UsageMetadata = b"usageMetadata",
    XGroq = b"x_groq",
    Response = b"response",
    Message = b"message",
    // Counts.
    InputTokens = b"input_tokens" | b"prompt_tokens",
    OutputTokens = b"output_tokens" | b"completion_tokens",
    TotalTokens = b"total_tokens" | b"totalTokenCount",
    InputDetails = b"input_tokens_details" | b"input_token_details" | b"prompt_tokens_details",
    OutputDetails = b"output_tokens_details" | b"output_token_details" | b"completion_tokens_details",
    CachedTokens = b"cached_tokens",
    CacheHitTokens = b"prompt_cache_hit_tokens",
    CacheReadTokens = b"cache_read_input_tokens",
    CacheWrittenTokens = b"cache_creation_input_tokens",
    ReasoningTokens = b"reasoning_tokens",
    AudioTokens = b"audio_tokens",
    ImageTokens = b"image_tokens",
    Seconds = b"seconds",
    Duration = b"duration" | b"video_duration",
    Characters = b"characters",
    ImageCount = b"image_count",
    Models = b"models",
    ModelId = b"model_id",
    // Gemini's counts.
    PromptTokenCount = b"promptTokenCount",
    CandidatesTokenCount = b"candidatesTokenCount" | b"responseTokenCount",
    ThoughtsTokenCount = b"thoughtsTokenCount",
    CachedTokenCount = b"cachedContentTokenCount",
    ToolTokenCount = b"toolUsePromptTokenCount",
    PromptDetails = b"promptTokensDetails",
    CandidatesDetails = b"candidatesTokensDetails" | b"responseTokensDetails",
    Modality = b"modality",
    TokenCount = b"tokenCount",
    // What was served, and how it ended.
    Model = b"model",
    ModelVersion = b"modelVersion",
    Type = b"type",
    Status = b"status",
    FinishReason = b"finish_reason" | b"finishReason",
    StopReason = b"stop_reason",
    IncompleteDetails = b"incomplete_details",
    Reason = b"reason",
    Error = b"error",
    Code = b"code",
    PromptFilterResults = b"prompt_filter_results",
    // Text on its way to the caller.
    Choices = b"choices",
    Candidates = b"candidates",
    Output = b"output",
    Delta = b"delta",
    Content = b"content",
    Parts = b"parts",
    Text = b"text",
    Refusal = b"refusal",
    Reasoning = b"reasoning_content" | b"reasoning" | b"thinking",
    ToolCalls = b"tool_calls",
    FunctionCall = b"function_call" | b"function",
    Arguments = b"arguments",
    Name = b"name",
    PartialJson = b"partial_json",
    Audio = b"audio",
    Transcript = b"transcript",
    // Things that are counted by being there.
    Data = b"data",
    Predictions = b"predictions",
    // Requests.
    Stream = b"stream",
    StreamOptions = b"stream_options",
    IncludeUsage = b"include_usage",
    Messages = b"messages",
    Contents = b"contents",
    Input = b"input",
    Instructions = b"instructions",
    Prompt = b"prompt",
    System = b"system",
    // Messages of sockets.
    Session = b"session",
    Setup = b"setup",
    Agent = b"agent",
    Payload = b"payload",
    Transcription = b"transcription" | b"input_audio_transcription",
    Header = b"header",
    Event = b"event",
}
