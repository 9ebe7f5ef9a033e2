//! One row per platform, and rules that hold for all.

use super::*;
use crate::faults::ErrorFacts;
use crate::routes::classify;

/// platform, host, path that it serves (and as what), model, forbidden path, account fault.
type Row = (
    &'static str,
    &'static str,
    (&'static str, &'static str),
    &'static str,
    &'static str,
    (u16, &'static str),
);

const ROWS: &[Row] = &[
    (
        "openai",
        "api.openai.com",
        ("/v1/chat/completions", "/v1/chat/completions"),
        "gpt-4o-mini",
        "/v1/organization/admin_api_keys",
        (429, "insufficient_quota"),
    ),
    (
        "azure",
        "res1.openai.azure.com",
        ("/v1/chat/completions", "/openai/v1/chat/completions"),
        "my-deployment",
        "/openai/v1/realtime/client_secrets",
        (401, ""),
    ),
    (
        "dashscope",
        "dashscope-intl.aliyuncs.com",
        ("/v1/chat/completions", "/compatible-mode/v1/chat/completions"),
        "qwen-plus",
        "/api/v1/tokens",
        (400, "Arrearage"),
    ),
    (
        "anthropic",
        "api.anthropic.com",
        ("/v1/messages", "/v1/messages"),
        "claude-sonnet-4-5",
        "/v1/organizations/api_keys",
        (401, "authentication_error"),
    ),
    (
        "gemini",
        "generativelanguage.googleapis.com",
        ("/v1/chat/completions", "/v1beta/openai/chat/completions"),
        "gemini-2.5-flash",
        "/v1alpha/auth_tokens",
        (401, "UNAUTHENTICATED"),
    ),
    ("xai", "api.x.ai", ("/v1/messages", "/v1/messages"), "grok-4", "/v1/realtime/client_secrets", (401, "")),
    (
        "deepgram",
        "api.deepgram.com",
        ("/v1/listen", "/v1/listen"),
        "nova-3",
        "/v1/projects/p1/keys",
        (402, ""),
    ),
    (
        "elevenlabs",
        "api.elevenlabs.io",
        ("/v1/text-to-speech/v1", "/v1/text-to-speech/v1"),
        "eleven_v3",
        "/v1/single-use-token/realtime_scribe",
        (401, ""),
    ),
    (
        "volcengine",
        "ark.cn-beijing.volces.com",
        ("/v1/chat/completions", "/api/v3/chat/completions"),
        "doubao-seed-1-6",
        "/api/v1/sts/token",
        (403, "AccountOverdueError"),
    ),
    (
        "custom",
        "llm.internal.example",
        ("/anything", "/anything"),
        "whatever",
        "/v1/realtime/client_secrets",
        (401, ""),
    ),
];

#[test]
fn every_platform_has_a_row_and_behaves_as_it_says() {
    assert_eq!(
        ROWS.iter().map(|row| row.0).collect::<Vec<_>>(),
        PLATFORMS.iter().map(|p| p.id).collect::<Vec<_>>()
    );
    for (id, host, (path, upstream), model, forbidden, (status, code)) in ROWS {
        let platform = guess(host);
        assert_eq!(platform.id, *id, "{host}");
        let serve =
            platform.serves(classify(path, |_| false).family).unwrap_or_else(|| panic!("{id} serves {path}"));
        let rewritten = serve.rewrite.map_or((*path).to_owned(), |(from, to)| path.replacen(from, to, 1));
        assert_eq!(rewritten, *upstream, "{id}");
        assert!(crate::glob::any(platform.models, model), "{id} claims {model}");
        assert!(platform.forbids(forbidden).is_some(), "{id} forbids {forbidden}");
        assert!(platform.forbids(path).is_none(), "{id} allows {path}");
        let facts = ErrorFacts { codes: &[code], message: "" };
        assert!(
            platform.account_faults.iter().any(|fault| fault.covers(*status, &facts)),
            "{id} {status} {code}"
        );
    }
}

#[test]
fn a_forbidden_model_or_a_rate_limit_is_not_an_account_fault() {
    for platform in PLATFORMS {
        for (status, code) in [
            (403, "model_not_found"),
            (429, "rate_limit_exceeded"),
            (400, "invalid_request_error"),
            (404, "model_not_found"),
            (500, ""),
        ] {
            let facts = ErrorFacts { codes: &[code], message: "The model does not exist" };
            assert!(
                !platform.account_faults.iter().any(|fault| fault.covers(status, &facts)),
                "{} {status} {code}",
                platform.id
            );
        }
    }
}

#[test]
fn names_and_patterns_are_in_normal_form() {
    for platform in PLATFORMS {
        for rule in platform.forbidden {
            assert_eq!(rule.path, rule.path.to_lowercase(), "patterns match lower-case paths");
            assert!(rule.path.starts_with('/'));
        }
        for name in platform.account_request_headers.iter().chain(platform.account_response_headers) {
            assert!(http::HeaderName::from_lowercase(name.as_bytes()).is_ok(), "{name}");
        }
        assert!(!platform.key.is_empty());
    }
    assert_eq!(PLATFORMS.last().map(|p| p.id), Some("custom"));
}

#[test]
fn forbidden_paths_hold_after_the_rewrite_too() {
    for platform in PLATFORMS.iter().filter(|p| p.serves.iter().any(|s| s.rewrite.is_some())) {
        for serve in platform.serves {
            if let Some((from, to)) = serve.rewrite {
                assert!(from.starts_with('/') && !from.ends_with('/'), "{}", platform.id);
                assert!(to.starts_with('/') && !to.ends_with('/'), "{}", platform.id);
            }
        }
    }
    assert!(
        by_id("azure").is_some_and(|azure| azure.forbids("/openai/v1/realtime/client_secrets").is_some())
    );
}
