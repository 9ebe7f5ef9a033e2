//! One entry per platform.

use crate::faults::AccountFault;
use crate::placement::Placement;
use crate::routes::Family;

/// A family that a platform serves, and under which prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serve {
    /// The family of the caller's path.
    pub family: Family,
    /// `(from, to)`: prefix of whole segments to replace on the way up; `None` where the path
    /// passes as it is.
    pub rewrite: Option<(&'static str, &'static str)>,
}

/// A path that would let the channel's account escape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forbidden {
    /// Pattern over the normal path; see [`crate::path::matches`].
    pub path: &'static str,
    /// What the path would give away.
    pub why: &'static str,
}

/// What AIProxy knows about one platform.
#[derive(Debug)]
pub struct Platform {
    /// The name in the configuration.
    pub id: &'static str,
    /// The name for people.
    pub title: &'static str,
    /// Hosts by which the platform is guessed; `*` stands for any run of characters.
    pub hosts: &'static [&'static str],
    /// Where the platform wants its key over HTTP.
    pub key: &'static [Placement],
    /// Where it wants the key when a WebSocket opens.
    pub socket_key: &'static [Placement],
    /// The families that it serves.
    pub serves: &'static [Serve],
    /// Names of its models, as patterns; used where a channel does not list its own.
    pub models: &'static [&'static str],
    /// Errors that are about the account.
    pub account_faults: &'static [AccountFault],
    /// Paths that are refused.
    pub forbidden: &'static [Forbidden],
    /// Request headers that choose among the account's organisations or projects.
    pub account_request_headers: &'static [&'static str],
    /// Answer headers that tell about the account.
    pub account_response_headers: &'static [&'static str],
}

impl Platform {
    /// How the platform serves a family; `custom` serves everything as it is.
    #[must_use]
    pub fn serves(&self, family: Family) -> Option<Serve> {
        if self.serves.is_empty() {
            return Some(Serve { family, rewrite: None });
        }
        self.serves.iter().copied().find(|serve| serve.family == family)
    }

    /// The rule that forbids this normal path.
    #[must_use]
    pub fn forbids(&self, normal: &str) -> Option<&'static Forbidden> {
        self.forbidden.iter().find(|rule| crate::path::matches(rule.path, normal))
    }
}

const fn as_is(family: Family) -> Serve {
    Serve { family, rewrite: None }
}

const fn moved(family: Family, from: &'static str, to: &'static str) -> Serve {
    Serve { family, rewrite: Some((from, to)) }
}

const fn no(path: &'static str, why: &'static str) -> Forbidden {
    Forbidden { path, why }
}

const MINTS_SECRET: &str = "mints a credential of the channel's account";
const ADMIN: &str = "administers the channel's account";
const SHOWS_KEY: &str = "shows the channel's account or key";

/// The table. The order matters to [`guess`] only: the first matching host wins.
pub const PLATFORMS: &[Platform] = &[
    Platform {
        id: "openai",
        title: "OpenAI",
        hosts: &["api.openai.com", "*.api.openai.com"],
        key: &[Placement::BEARER],
        socket_key: &[Placement::BEARER],
        serves: &[as_is(Family::OpenAi)],
        models: &[
            "gpt-*",
            "chatgpt-*",
            "o1*",
            "o3*",
            "o4*",
            "codex-*",
            "text-embedding-3-*",
            "text-embedding-ada-*",
            "tts-*",
            "whisper-*",
            "dall-e-*",
            "sora-*",
            "omni-moderation-*",
            "text-moderation-*",
            "computer-use-*",
            "babbage-*",
            "davinci-*",
            "ft:*",
        ],
        account_faults: &[
            AccountFault::status(401),
            AccountFault::code(429, "insufficient_quota"),
            AccountFault::code(429, "billing_hard_limit_reached"),
            AccountFault::code(400, "billing_hard_limit_reached"),
            AccountFault::code(403, "account_deactivated"),
        ],
        forbidden: OPENAI_FORBIDDEN,
        account_request_headers: &["openai-organization", "openai-project"],
        account_response_headers: &["openai-organization", "openai-project"],
    },
    Platform {
        id: "azure",
        title: "Azure OpenAI",
        hosts: &["*.openai.azure.com", "*.cognitiveservices.azure.com", "*.services.ai.azure.com"],
        key: &[Placement::header("api-key")],
        socket_key: &[Placement::header("api-key")],
        serves: &[as_is(Family::Azure), moved(Family::OpenAi, "/v1", "/openai/v1")],
        // Deployments are named by whoever made them.
        models: &["*"],
        account_faults: &[AccountFault::status(401), AccountFault::code(403, "AccountDisabled")],
        forbidden: &[
            no("/openai/v1/realtime/client_secrets/**", MINTS_SECRET),
            no("/openai/v1/realtime/translations/client_secrets/**", MINTS_SECRET),
            no("/openai/v1/realtime/sessions/**", MINTS_SECRET),
            no("/openai/v1/realtime/transcription_sessions/**", MINTS_SECRET),
            no("/openai/realtimeapi/sessions/**", MINTS_SECRET),
            no("/openai/realtime/sessions/**", MINTS_SECRET),
            no("/openai/v1/organization/**", ADMIN),
        ],
        account_request_headers: &["x-ms-client-principal-id", "ocp-apim-subscription-key"],
        account_response_headers: &["apim-request-id", "x-ms-region", "azureml-model-session"],
    },
    Platform {
        id: "dashscope",
        title: "阿里云百炼 (DashScope)",
        hosts: &["dashscope.aliyuncs.com", "dashscope-*.aliyuncs.com", "*.maas.aliyuncs.com"],
        key: &[Placement::BEARER],
        socket_key: &[Placement::BEARER],
        serves: &[
            as_is(Family::DashScope),
            moved(Family::OpenAi, "/v1", "/compatible-mode/v1"),
            moved(Family::Anthropic, "/v1", "/apps/anthropic/v1"),
        ],
        models: &[
            "qwen*",
            "qwq*",
            "qvq*",
            "wan*",
            "text-embedding-v*",
            "multimodal-embedding-*",
            "tongyi-*",
            "gte-*",
            "paraformer*",
            "cosyvoice*",
            "sambert*",
            "fun-asr*",
            "sensevoice*",
            "gummy*",
            "deepseek-*",
            "kimi-*",
            "glm-*",
            "baichuan*",
            "llama*",
            "farui*",
        ],
        account_faults: &[
            AccountFault::status(401),
            AccountFault::code(400, "Arrearage"),
            AccountFault::code(403, "Arrearage"),
            AccountFault::code(400, "InvalidApiKey"),
            AccountFault::code(403, "InvalidApiKey"),
            AccountFault::code(429, "Arrearage"),
            AccountFault::code(429, "insufficient_quota"),
        ],
        forbidden: &[
            no("/api/v1/tokens/**", MINTS_SECRET),
            no("/api/v1/api-keys/**", MINTS_SECRET),
            no("/api/v1/workspaces/**", ADMIN),
            no("/compatible-mode/v1/organization/**", ADMIN),
            no("/compatible-mode/v1/realtime/client_secrets/**", MINTS_SECRET),
            no("/apps/anthropic/v1/organizations/**", ADMIN),
        ],
        account_request_headers: &["x-dashscope-apikey", "x-dashscope-uid"],
        account_response_headers: &["x-dashscope-uid", "x-dashscope-apikeyid"],
    },
    Platform {
        id: "anthropic",
        title: "Anthropic",
        hosts: &["api.anthropic.com"],
        key: &[Placement::header("x-api-key")],
        socket_key: &[],
        serves: &[as_is(Family::Anthropic)],
        models: &["claude-*"],
        account_faults: &[
            AccountFault::status(401),
            AccountFault::code(402, "billing_error"),
            AccountFault::message(400, "credit balance is too low"),
            AccountFault::message(403, "organization has been disabled"),
        ],
        forbidden: &[
            no("/v1/organizations/**", ADMIN),
            no("/v1/oauth/**", MINTS_SECRET),
            no("/api/oauth/**", MINTS_SECRET),
        ],
        account_request_headers: &["anthropic-organization-id"],
        account_response_headers: &["anthropic-organization-id"],
    },
    Platform {
        id: "gemini",
        title: "Google Gemini",
        hosts: &["generativelanguage.googleapis.com"],
        key: &[Placement::header("x-goog-api-key")],
        socket_key: &[Placement::header("x-goog-api-key")],
        serves: &[as_is(Family::Gemini), moved(Family::OpenAi, "/v1", "/v1beta/openai")],
        models: &[
            "gemini-*",
            "gemma-*",
            "imagen-*",
            "veo-*",
            "learnlm-*",
            "text-embedding-004",
            "embedding-*",
            "models/*",
        ],
        account_faults: &[
            AccountFault::status(401),
            AccountFault::message(400, "API key not valid"),
            AccountFault::message(400, "API key expired"),
            AccountFault::code(403, "API_KEY_SERVICE_BLOCKED"),
            AccountFault::message(403, "API key was reported as leaked"),
        ],
        forbidden: &[no("/v1*/auth_tokens/**", MINTS_SECRET), no("/v1*/authtokens/**", MINTS_SECRET)],
        account_request_headers: &["x-goog-user-project"],
        account_response_headers: &[],
    },
    Platform {
        id: "xai",
        title: "xAI",
        hosts: &["api.x.ai", "*.api.x.ai"],
        key: &[Placement::BEARER],
        socket_key: &[Placement::BEARER],
        serves: &[as_is(Family::OpenAi), as_is(Family::Anthropic)],
        models: &["grok-*", "v1"],
        account_faults: &[
            AccountFault::status(401),
            AccountFault::message(400, "Incorrect API key"),
            AccountFault::message(403, "used all available credits"),
        ],
        forbidden: &[
            no("/v1/realtime/client_secrets/**", MINTS_SECRET),
            no("/v1/realtime/sessions/**", MINTS_SECRET),
            no("/v1/api-key/**", SHOWS_KEY),
            no("/v1/organization/**", ADMIN),
            no("/auth/**", ADMIN),
        ],
        account_request_headers: &[],
        account_response_headers: &[],
    },
    Platform {
        id: "deepgram",
        title: "Deepgram",
        hosts: &["api.deepgram.com", "api.*.deepgram.com", "agent.deepgram.com"],
        key: &[Placement::scheme("authorization", "Token")],
        socket_key: &[Placement::scheme("authorization", "Token")],
        serves: &[as_is(Family::Deepgram)],
        models: &["nova-*", "flux-*", "aura-*", "whisper-*", "base*", "enhanced*"],
        account_faults: &[AccountFault::status(401), AccountFault::status(402)],
        forbidden: &[
            no("/v1/projects/**", ADMIN),
            no("/v1/auth/**", MINTS_SECRET),
            no("/v1/keys/**", MINTS_SECRET),
            no("/v1/selfhosted/**", ADMIN),
        ],
        account_request_headers: &[],
        account_response_headers: &["dg-project-id"],
    },
    Platform {
        id: "elevenlabs",
        title: "ElevenLabs",
        hosts: &["api.elevenlabs.io", "api.*.elevenlabs.io"],
        key: &[Placement::header("xi-api-key")],
        socket_key: &[Placement::header("xi-api-key")],
        serves: &[as_is(Family::ElevenLabs)],
        models: &["eleven_*", "scribe_*"],
        account_faults: &[AccountFault::status(401)],
        forbidden: &[
            no("/v1/single-use-token/**", MINTS_SECRET),
            no("/v1/convai/conversation/get-signed-url/**", MINTS_SECRET),
            no("/v1/convai/conversation/get_signed_url/**", MINTS_SECRET),
            no("/v1/convai/conversation/token/**", MINTS_SECRET),
            no("/v1/user", SHOWS_KEY),
            no("/v1/service-accounts/**", MINTS_SECRET),
            no("/v1/workspace/**", ADMIN),
        ],
        account_request_headers: &[],
        account_response_headers: &[],
    },
    Platform {
        id: "volcengine",
        title: "火山引擎 (Volcengine)",
        hosts: &["openspeech.bytedance.com", "ark.*.volces.com", "*.volcengineapi.com"],
        key: &[Placement::BEARER],
        socket_key: &[Placement::header("x-api-access-key")],
        serves: &[as_is(Family::Volcengine), moved(Family::OpenAi, "/v1", "/api/v3")],
        models: &["doubao-*", "ep-*", "seedream-*", "seedance-*", "deepseek-*"],
        account_faults: &[AccountFault::status(401), AccountFault::code(403, "AccountOverdueError")],
        forbidden: &[
            no("/api/v1/sts/**", MINTS_SECRET),
            no("/api/v3/sts/**", MINTS_SECRET),
            no("/api/v3/api_keys/**", MINTS_SECRET),
            no("/api/v3/organization/**", ADMIN),
        ],
        account_request_headers: &["x-api-app-id", "x-api-app-key"],
        account_response_headers: &[],
    },
    Platform {
        id: "custom",
        title: "Custom",
        hosts: &[],
        key: &[Placement::BEARER],
        socket_key: &[Placement::BEARER],
        serves: &[],
        models: &["*"],
        account_faults: &[AccountFault::status(401), AccountFault::code(429, "insufficient_quota")],
        // What stands behind a custom channel is unknown: every shape of minting is refused.
        forbidden: &[
            no("/v1/organization/**", ADMIN),
            no("/v1/organizations/**", ADMIN),
            no("/v1/realtime/client_secrets/**", MINTS_SECRET),
            no("/v1/realtime/translations/client_secrets/**", MINTS_SECRET),
            no("/v1/realtime/sessions/**", MINTS_SECRET),
            no("/v1/realtime/transcription_sessions/**", MINTS_SECRET),
            no("/v1/chatkit/sessions/**", MINTS_SECRET),
            no("/openai/v1/realtime/client_secrets/**", MINTS_SECRET),
            no("/openai/v1/realtime/translations/client_secrets/**", MINTS_SECRET),
            no("/openai/v1/realtime/sessions/**", MINTS_SECRET),
            no("/openai/realtimeapi/sessions/**", MINTS_SECRET),
            no("/api/v1/tokens/**", MINTS_SECRET),
            no("/v1*/auth_tokens/**", MINTS_SECRET),
            no("/v1/auth/grant/**", MINTS_SECRET),
            no("/v1/projects/*/keys/**", MINTS_SECRET),
            no("/v1/single-use-token/**", MINTS_SECRET),
            no("/v1/convai/conversation/get-signed-url/**", MINTS_SECRET),
            no("/v1/convai/conversation/get_signed_url/**", MINTS_SECRET),
            no("/v1/convai/conversation/token/**", MINTS_SECRET),
            no("/v1/api-key/**", SHOWS_KEY),
            no("/v1/api_keys/**", MINTS_SECRET),
            no("/v1/admin/**", ADMIN),
            no("/v1/dashboard/**", ADMIN),
            no("/dashboard/**", ADMIN),
            no("/v1/usage/**", SHOWS_KEY),
            no("/v1/me/**", SHOWS_KEY),
            // Gateways that are channels themselves.
            no("/key/**", MINTS_SECRET),
            no("/user/**", ADMIN),
            no("/team/**", ADMIN),
        ],
        account_request_headers: &["openai-organization", "openai-project"],
        account_response_headers: &["openai-organization", "openai-project"],
    },
];

const OPENAI_FORBIDDEN: &[Forbidden] = &[
    no("/v1/organization/**", ADMIN),
    no("/v1/organizations/**", ADMIN),
    no("/v1/projects/**", ADMIN),
    no("/v1/admin/**", ADMIN),
    no("/v1/api_keys/**", MINTS_SECRET),
    no("/v1/dashboard/**", ADMIN),
    no("/dashboard/**", ADMIN),
    no("/v1/usage/**", SHOWS_KEY),
    no("/v1/me/**", SHOWS_KEY),
    no("/v1/realtime/client_secrets/**", MINTS_SECRET),
    no("/v1/realtime/translations/client_secrets/**", MINTS_SECRET),
    no("/v1/realtime/sessions/**", MINTS_SECRET),
    no("/v1/realtime/transcription_sessions/**", MINTS_SECRET),
    no("/v1/chatkit/sessions/**", MINTS_SECRET),
];

/// The entry with this id.
#[must_use]
pub fn by_id(id: &str) -> Option<&'static Platform> {
    PLATFORMS.iter().find(|platform| platform.id == id)
}

/// The platform that a host belongs to; `custom` where none claims it.
///
/// # Panics
/// Never: the table ends with `custom`, as a test asserts.
#[must_use]
#[expect(clippy::expect_used, reason = "the table is a constant and a test asserts the entry")]
pub fn guess(host: &str) -> &'static Platform {
    PLATFORMS
        .iter()
        .find(|platform| crate::glob::any(platform.hosts, host))
        .or_else(|| by_id("custom"))
        .expect("the table has an entry `custom`")
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
