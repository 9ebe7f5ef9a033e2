//! Answers as the platforms send them.

use aiproxy_core::usage::Tokens;
use aiproxy_platform::UsageShape;

use crate::report::{Finish, Usage};
use crate::tap::Tap;

/// One answer and what it used.
pub(super) struct Fixture {
    pub(super) name: &'static str,
    pub(super) shape: UsageShape,
    pub(super) path: &'static str,
    pub(super) stream: bool,
    pub(super) body: &'static str,
    /// The end shows in the body itself.
    pub(super) says_its_end: bool,
    pub(super) expected: fn() -> Usage,
}

impl Fixture {
    pub(super) fn tap(&self) -> Tap {
        let content_type = if self.stream { "text/event-stream; charset=utf-8" } else { "application/json" };
        Tap::new(self.shape, self.path, content_type, "").expect("can be tapped")
    }
}

fn reported(input: u64, output: u64, model: &str, finish: Option<Finish>) -> Usage {
    Usage {
        tokens: Tokens { input, output, ..Tokens::default() },
        model: (!model.is_empty()).then(|| model.to_owned()),
        reported: true,
        finish,
        ..Usage::default()
    }
}

const fn plain(
    name: &'static str,
    shape: UsageShape,
    path: &'static str,
    body: &'static str,
    expected: fn() -> Usage,
) -> Fixture {
    Fixture { name, shape, path, stream: false, body, says_its_end: true, expected }
}

const fn stream(
    name: &'static str,
    shape: UsageShape,
    path: &'static str,
    body: &'static str,
    expected: fn() -> Usage,
) -> Fixture {
    Fixture { name, shape, path, stream: true, body, says_its_end: true, expected }
}

use Finish::{Error, Filtered, Length, Stop, ToolCalls};
use UsageShape::{Anthropic, DashScope, Gemini, OpenAi, OpenAiResponses};

const CHAT: &str = "/v1/chat/completions";
const GENERATION: &str = "/api/v1/services/aigc/text-generation/generation";
const MULTIMODAL: &str = "/api/v1/services/aigc/multimodal-generation/generation";
const GENERATE: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const STREAM_GENERATE: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent";

pub(super) const ALL: &[Fixture] = &[
    plain("openai chat", OpenAi, CHAT, include_str!("fixtures/chat.json"), || {
        let mut usage = reported(1117, 46, "gpt-4o-audio-preview-2024-12-17", Some(Stop));
        usage.tokens.cached = 1024;
        usage.tokens.reasoning = 7;
        usage.tokens.audio_input = 11;
        usage.tokens.audio_output = 13;
        usage
    }),
    stream("openai chat stream", OpenAi, CHAT, include_str!("fixtures/chat.sse"), || {
        reported(19, 10, "gpt-4o-mini-2024-07-18", Some(Stop))
    }),
    stream(
        "azure chat stream",
        OpenAi,
        "/openai/deployments/prod/chat/completions",
        include_str!("fixtures/azure.sse"),
        || reported(9, 3, "gpt-4o-2024-11-20", Some(Filtered)),
    ),
    stream(
        "dashscope compatible stream",
        OpenAi,
        "/compatible-mode/v1/chat/completions",
        include_str!("fixtures/compatible.sse"),
        || {
            let mut usage = reported(22, 240, "qwen3-235b-a22b", Some(Stop));
            usage.tokens.reasoning = 224;
            usage.tokens.cached = 16;
            usage
        },
    ),
    stream(
        "moonshot stream: usage inside the choice, no space, CRLF",
        OpenAi,
        CHAT,
        "data:{\"id\":\"cmpl-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"你好\"},\"finish_reason\":null}],\"model\":\"kimi-k2\"}\r\n\r\ndata:{\"id\":\"cmpl-1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":2,\"total_tokens\":10,\"cached_tokens\":4}}],\"model\":\"kimi-k2\"}\r\n\r\ndata:[DONE]\r\n\r\n",
        || {
            let mut usage = reported(8, 2, "kimi-k2", Some(Stop));
            usage.tokens.cached = 4;
            usage
        },
    ),
    plain(
        "xai chat: thoughts beside the output",
        OpenAi,
        CHAT,
        r#"{"id":"1","object":"chat.completion","model":"grok-4","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"completion_tokens":2,"total_tokens":122,"completion_tokens_details":{"reasoning_tokens":100}}}"#,
        || {
            let mut usage = reported(20, 102, "grok-4", Some(Stop));
            usage.tokens.reasoning = 100;
            usage
        },
    ),
    stream(
        "an error inside a stream",
        OpenAi,
        CHAT,
        ": OPENROUTER PROCESSING\n\ndata: {\"error\":{\"message\":\"overloaded\",\"code\":502}}\n\ndata: [DONE]\n\n",
        || Usage { finish: Some(Error), ..Usage::default() },
    ),
    plain(
        "openai error",
        OpenAi,
        CHAT,
        r#"{"error":{"message":"Rate limit reached","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#,
        || Usage { finish: Some(Error), ..Usage::default() },
    ),
    plain(
        "embeddings",
        OpenAi,
        "/v1/embeddings",
        r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.0023064255,-0.009327292,1e-3]}],"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}"#,
        || reported(8, 0, "text-embedding-3-small", None),
    ),
    plain(
        "moderation",
        OpenAi,
        "/v1/moderations",
        r#"{"id":"modr-970","model":"omni-moderation-latest","results":[{"flagged":false,"categories":{"harassment":false},"category_scores":{"harassment":1.2e-7}}]}"#,
        || Usage { model: Some("omni-moderation-latest".to_owned()), ..Usage::default() },
    ),
    plain(
        "transcription by tokens",
        OpenAi,
        "/v1/audio/transcriptions",
        r#"{"text":"今天天气很好。","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":0,"audio_tokens":14},"output_tokens":45,"total_tokens":59}}"#,
        || {
            let mut usage = reported(14, 45, "", None);
            usage.tokens.audio_input = 14;
            usage
        },
    ),
    plain(
        "transcription by time",
        OpenAi,
        "/v1/audio/transcriptions",
        r#"{"text":"hello","usage":{"type":"duration","seconds":9}}"#,
        || Usage { seconds: Some(9.0), reported: true, ..Usage::default() },
    ),
    plain(
        "verbose transcription without usage",
        OpenAi,
        "/v1/audio/translations",
        r#"{"task":"translate","language":"chinese","duration":8.470000267028809,"text":"hello","segments":[{"id":0,"start":0.0,"end":8.4,"text":"hello","tokens":[50364]}]}"#,
        || Usage { seconds: Some(8.470000267028809), reported: true, ..Usage::default() },
    ),
    stream(
        "transcription stream",
        OpenAi,
        "/v1/audio/transcriptions",
        "event: transcript.text.delta\ndata: {\"delta\":\"今天\",\"type\":\"transcript.text.delta\"}\n\nevent: transcript.text.done\ndata: {\"type\":\"transcript.text.done\",\"text\":\"今天\",\"usage\":{\"type\":\"tokens\",\"input_tokens\":30,\"input_token_details\":{\"text_tokens\":0,\"audio_tokens\":30},\"output_tokens\":3,\"total_tokens\":33}}\n\n",
        || {
            let mut usage = reported(30, 3, "", None);
            usage.tokens.audio_input = 30;
            usage
        },
    ),
    plain(
        "images",
        OpenAi,
        "/v1/images/generations",
        r#"{"created":1713833628,"data":[{"b64_json":"iVBORw0KGgo="},{"b64_json":"iVBORw0KGgo="}],"background":"opaque","usage":{"total_tokens":2262,"input_tokens":150,"output_tokens":2112,"input_tokens_details":{"text_tokens":50,"image_tokens":100}}}"#,
        || {
            let mut usage = reported(150, 2112, "", None);
            usage.images = 2;
            usage.tokens.image_input = 100;
            usage
        },
    ),
    Fixture {
        says_its_end: false,
        ..stream(
            "images stream",
            OpenAi,
            "/v1/images/edits",
            "event: image_edit.partial_image\ndata: {\"type\":\"image_edit.partial_image\",\"b64_json\":\"aGk=\",\"partial_image_index\":0}\n\nevent: image_edit.completed\ndata: {\"type\":\"image_edit.completed\",\"b64_json\":\"aGk=\",\"usage\":{\"total_tokens\":100,\"input_tokens\":50,\"output_tokens\":50,\"input_tokens_details\":{\"text_tokens\":10,\"image_tokens\":40},\"output_tokens_details\":{\"image_tokens\":50}}}\n\n",
            || {
                let mut usage = reported(50, 50, "", None);
                usage.images = 1;
                usage.tokens.image_input = 40;
                usage.tokens.image_output = 50;
                usage
            },
        )
    },
    plain(
        "responses",
        OpenAiResponses,
        "/v1/responses",
        r#"{"id":"resp_1","object":"response","created_at":1741476542,"status":"incomplete","error":null,"incomplete_details":{"reason":"max_output_tokens"},"model":"gpt-4.1-2025-04-14","output":[{"type":"message","id":"msg_1","status":"completed","role":"assistant","content":[{"type":"output_text","text":"In a peaceful grove","annotations":[]}]}],"text":{"format":{"type":"text"}},"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":12},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":5},"total_tokens":123},"user":null}"#,
        || {
            let mut usage = reported(36, 87, "gpt-4.1-2025-04-14", Some(Length));
            usage.tokens.cached = 12;
            usage.tokens.reasoning = 5;
            usage
        },
    ),
    stream(
        "responses stream",
        OpenAiResponses,
        "/v1/responses",
        include_str!("fixtures/responses.sse"),
        || {
            let mut usage = reported(37, 11, "gpt-5-2025-08-07", Some(Stop));
            usage.tokens.reasoning = 4;
            usage
        },
    ),
    plain(
        "anthropic",
        Anthropic,
        "/v1/messages",
        r#"{"id":"msg_013","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929","content":[{"type":"thinking","thinking":"hm","signature":"x"},{"type":"tool_use","id":"toolu_1","name":"get_weather","input":{"usage":{"output_tokens":99999},"city":"上海"}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":2095,"cache_creation_input_tokens":10,"cache_read_input_tokens":20,"cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":0},"output_tokens":503,"service_tier":"standard"}}"#,
        || {
            let mut usage = reported(2125, 503, "claude-sonnet-4-5-20250929", Some(ToolCalls));
            usage.tokens.cached = 20;
            usage.tokens.cache_written = 10;
            usage
        },
    ),
    stream("anthropic stream", Anthropic, "/v1/messages", include_str!("fixtures/anthropic.sse"), || {
        let mut usage = reported(137, 15, "claude-opus-4-1-20250805", Some(Stop));
        usage.tokens.cached = 100;
        usage.tokens.cache_written = 12;
        usage
    }),
    plain(
        "dashscope native",
        DashScope,
        GENERATION,
        r#"{"status_code":200,"request_id":"902fee3b-f7f0-9a8c-96a1-6b4ea25af114","code":"","message":"","output":{"text":null,"finish_reason":null,"choices":[{"finish_reason":"stop","message":{"role":"assistant","content":"我是阿里云开发的一款超大规模语言模型，我叫通义千问。"}}]},"usage":{"input_tokens":22,"output_tokens":17,"total_tokens":39,"prompt_tokens_details":{"cached_tokens":8}}}"#,
        || {
            let mut usage = reported(22, 17, "", Some(Stop));
            usage.tokens.cached = 8;
            usage
        },
    ),
    stream("dashscope native stream", DashScope, GENERATION, include_str!("fixtures/dashscope.sse"), || {
        reported(12, 8, "", Some(Stop))
    }),
    plain(
        "dashscope multimodal",
        DashScope,
        MULTIMODAL,
        r#"{"output":{"choices":[{"finish_reason":"stop","message":{"role":"assistant","content":[{"text":"图中是一只狗"}]}}]},"usage":{"input_tokens":1277,"output_tokens":81,"image_tokens":1247,"input_tokens_details":{"text_tokens":30,"image_tokens":1247},"output_tokens_details":{"text_tokens":81}},"request_id":"x"}"#,
        || {
            let mut usage = reported(1277, 81, "", Some(Stop));
            usage.tokens.image_input = 1247;
            usage
        },
    ),
    plain(
        "dashscope speech",
        DashScope,
        MULTIMODAL,
        r#"{"output":{"finish_reason":"stop","audio":{"data":"","expires_at":1758187426,"id":"audio_1","url":"http://example/x.wav"}},"usage":{"characters":14},"request_id":"x"}"#,
        || Usage { characters: 14, reported: true, finish: Some(Stop), ..Usage::default() },
    ),
    plain(
        "dashscope images",
        DashScope,
        MULTIMODAL,
        r#"{"output":{"choices":[{"finish_reason":"stop","message":{"role":"assistant","content":[{"image":"https://example/a.png"}]}}]},"usage":{"width":1328,"image_count":1,"height":1328},"request_id":"x"}"#,
        || Usage { images: 1, reported: true, finish: Some(Stop), ..Usage::default() },
    ),
    plain(
        "dashscope embeddings",
        DashScope,
        "/api/v1/services/embeddings/text-embedding/text-embedding",
        r#"{"status_code":200,"request_id":"x","code":"","message":"","output":{"embeddings":[{"text_index":0,"embedding":[-2.19,0.66]}]},"usage":{"total_tokens":23}}"#,
        || reported(23, 0, "", None),
    ),
    plain(
        "dashscope application",
        DashScope,
        "/api/v1/apps/abc/completion",
        r#"{"output":{"finish_reason":"stop","session_id":"s","text":"好的"},"usage":{"models":[{"output_tokens":5,"model_id":"qwen-max","input_tokens":71},{"output_tokens":2,"model_id":"qwen-plus","input_tokens":9}]},"request_id":"x"}"#,
        || reported(80, 7, "qwen-max", Some(Stop)),
    ),
    plain("gemini", Gemini, GENERATE, include_str!("fixtures/gemini.json"), || {
        let mut usage = reported(1030, 60, "gemini-2.5-flash", Some(Length));
        usage.tokens.cached = 512;
        usage.tokens.reasoning = 48;
        usage.tokens.image_input = 258;
        usage.tokens.audio_input = 160;
        usage
    }),
    plain(
        "gemini stream as an array",
        Gemini,
        STREAM_GENERATE,
        include_str!("fixtures/gemini-array.json"),
        || {
            let mut usage = reported(8, 34, "gemini-2.5-flash", Some(Stop));
            usage.tokens.reasoning = 20;
            usage
        },
    ),
    Fixture {
        says_its_end: false,
        ..stream("gemini sse", Gemini, STREAM_GENERATE, include_str!("fixtures/gemini.sse"), || {
            reported(8, 14, "gemini-2.5-flash", Some(Stop))
        })
    },
    plain(
        "gemini error in an array",
        Gemini,
        STREAM_GENERATE,
        "[{\n  \"error\": {\n    \"code\": 429,\n    \"message\": \"Quota exceeded\",\n    \"status\": \"RESOURCE_EXHAUSTED\"\n  }\n}\n]\n",
        || Usage { finish: Some(Error), ..Usage::default() },
    ),
];
