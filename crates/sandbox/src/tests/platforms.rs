use super::*;
use serde_json::json;

const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");
const GENERATION: &str = "/api/v1/services/aigc/text-generation/generation";

#[tokio::test]
async fn anthropic_answers_and_streams() {
    let sandbox = sandbox().await;
    for path in ["/v1/messages", "/apps/anthropic/v1/messages"] {
        let ask = async |headers: &[(&str, &str)], stream: bool, max: u64| {
            let body = json!({"model": "claude-sandbox", "max_tokens": max, "stream": stream,
                "system": "s", "messages": [{"role": "user", "content": "你好 there"}]});
            let mut all = vec![("x-api-key", "sk-test-0123456789")];
            all.extend_from_slice(headers);
            keyless(&sandbox, "POST", path, &all, body.to_string()).await
        };
        let plain = ask(&[VERSION], false, 100).await.json();
        assert_eq!(plain["content"][0]["text"], "You said: 你好 there");
        assert_eq!(plain["usage"]["input_tokens"], 4);
        assert_eq!(plain["stop_reason"], "end_turn");

        let reply = ask(&[VERSION], true, 4).await;
        let events = reply.events();
        let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(types[..3], ["message_start", "content_block_start", "ping"]);
        assert_eq!(types[types.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
        let text: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
        assert_eq!(text, "You said: 你好");
        let end = &events[events.len() - 2];
        assert_eq!(
            (&end["usage"]["output_tokens"], &end["delta"]["stop_reason"]),
            (&json!(4), &json!("max_tokens"))
        );

        let refused = ask(&[], false, 100).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["error"]["type"]),
            (400, &json!("invalid_request_error"))
        );
    }
    let models = call(&sandbox, "GET", "/v1/models", &[VERSION], "").await.json();
    assert_eq!(models["data"][0]["type"], "model");
}

#[tokio::test]
async fn dashscope_answers_in_both_formats() {
    let sandbox = sandbox().await;
    let body = json!({"model": "qwen-plus", "input": {"prompt": "你好 a"}});
    let text = post(&sandbox, GENERATION, "", body).await.json();
    assert_eq!(text["output"]["text"], "You said: 你好 a");
    assert_eq!(text["usage"], json!({"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}));
    assert_eq!(text["request_id"].as_str().unwrap().len(), 36);

    let path = "/api/v1/services/aigc/multimodal-generation/generation";
    let body = json!({"model": "qwen-vl-plus", "input": {"messages": [
        {"role": "user", "content": [{"image": "data:..."}, {"text": "什么"}]}]}});
    let multi = post(&sandbox, path, "", body).await.json();
    assert_eq!(multi["output"]["choices"][0]["message"]["content"][0]["text"], "You said: 什么");
}

#[tokio::test]
async fn dashscope_streams_count_up() {
    let sandbox = sandbox().await;
    for incremental in [true, false] {
        let body = json!({"model": "qwen-plus",
            "input": {"messages": [{"role": "user", "content": "一 b"}]},
            "parameters": {"result_format": "message", "incremental_output": incremental}});
        let headers = [("x-dashscope-sse", "enable")];
        let reply = call(&sandbox, "POST", GENERATION, &headers, body.to_string()).await;
        assert!(reply.text().starts_with("id:1\nevent:result\n:HTTP_STATUS/200\ndata:{"));
        let events = reply.events();
        let message =
            |event: &Value| event["output"]["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
        let spent: Vec<_> =
            events.iter().map(|event| event["usage"]["output_tokens"].as_u64().unwrap()).collect();
        assert_eq!(spent, [1, 2, 3, 4, 4]);
        let last = events.last().unwrap();
        assert_eq!(last["output"]["choices"][0]["finish_reason"], "stop");
        assert_eq!(events[0]["output"]["choices"][0]["finish_reason"], "null");
        let text = if incremental { events.iter().map(message).collect() } else { message(last) };
        assert_eq!(text, "You said: 一 b");
    }
}

#[tokio::test]
async fn minted_tokens_open_nothing() {
    let sandbox = sandbox().await;
    let minted = call(&sandbox, "POST", "/api/v1/tokens?expire_in_seconds=90", &[], "").await.json();
    let token = minted["token"].as_str().unwrap();
    assert!(token.starts_with("st-") && minted["expires_at"].as_u64().is_some());
    let bearer = format!("Bearer {token}");
    let reply = keyless(&sandbox, "GET", "/v1/models", &[("authorization", &bearer)], "").await;
    assert_eq!(reply.status, 401);
}

#[tokio::test]
async fn keys_are_checked_wherever_they_sit() {
    let sandbox = sandbox().await;
    let key = "sk-test-0123456789";
    for (path, headers, status) in [
        ("/v1/models", vec![("authorization", "Bearer sk-test-0123456789")], 200),
        ("/v1/models", vec![("authorization", "Basic sk-test-0123456789")], 401),
        ("/v1/models", vec![("api-key", key)], 200),
        ("/v1/models", vec![("x-goog-api-key", key)], 200),
        ("/v1/models?a=b&key=sk%2Dtest-0123456789", vec![], 200),
        ("/v1/models", vec![("x-api-key", key)], 401),
        ("/apps/anthropic/v1/models", vec![("x-api-key", key), VERSION], 200),
        ("/v1/models?key=other", vec![], 401),
        ("/compatible-mode/v1/models", vec![("api-key", key)], 200),
        ("/compatible-modest/v1/models", vec![("api-key", key)], 404),
    ] {
        let reply = keyless(&sandbox, "GET", path, &headers, "").await;
        assert_eq!(reply.status.as_u16(), status, "{path} {headers:?}");
    }
}

#[tokio::test]
async fn refusals_speak_the_platform() {
    let sandbox = sandbox().await;
    let refuse = async |path: &str| {
        let headers = [("authorization", "Bearer sk-abcdefghijxyz")];
        let reply = keyless(&sandbox, "POST", path, &headers, "{}").await;
        assert_eq!(reply.status, 401);
        reply.json()
    };
    let openai = refuse("/v1/embeddings").await;
    assert_eq!(openai["error"]["code"], "invalid_api_key");
    assert!(openai["error"]["message"].as_str().unwrap().contains(": sk-ab****yz."));
    let anthropic = refuse("/v1/messages").await;
    assert_eq!(
        (&anthropic["type"], &anthropic["error"]["type"]),
        (&json!("error"), &json!("authentication_error"))
    );
    assert_eq!(refuse(GENERATION).await["code"], "InvalidApiKey");
    assert!(sandbox.requests().iter().all(|seen| !seen.authorized));
}
