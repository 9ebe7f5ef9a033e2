use super::*;
use base64::Engine as _;
use serde_json::json;

#[tokio::test]
async fn chat_echoes_and_counts() {
    let sandbox = sandbox().await;
    let request = json!({"model": "gpt-4o-mini", "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "你好 world"}]},
    ]});
    for path in ["/v1/chat/completions", "/compatible-mode/v1/chat/completions"] {
        let reply = post(&sandbox, path, "", request.clone()).await;
        assert_eq!(reply.status, 200);
        assert!(reply.headers["x-request-id"].to_str().unwrap().starts_with("req_"));
        let answer = reply.json();
        assert_eq!(answer["choices"][0]["message"]["content"], "You said: 你好 world");
        assert_eq!(answer["usage"]["prompt_tokens"], 5);
        assert_eq!(answer["usage"]["total_tokens"], 10);
    }
    let counters = sandbox.counters();
    assert_eq!((counters.requests, counters.by_status[&200]), (2, 2));
    assert_eq!((counters.tokens.input, counters.by_model["gpt-4o-mini"].output), (10, 10));
}

#[tokio::test]
async fn chat_streams_with_usage_only_on_demand() {
    let sandbox = sandbox().await;
    for include in [true, false] {
        let request = json!({
            "model": "sandbox-chat", "stream": true, "stream_options": {"include_usage": include},
            "messages": [{"role": "user", "content": "一二 three"}],
        });
        let reply = post(&sandbox, "/v1/chat/completions", "", request).await;
        assert!(reply.headers["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        let events = reply.events();
        let text: String =
            events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, "You said: 一二 three");
        assert_eq!(events.last().unwrap(), "[DONE]");
        let usage = &events[events.len() - 2];
        if include {
            assert_eq!(usage["choices"], json!([]));
            assert_eq!(usage["usage"]["completion_tokens"], 5);
            assert!(events[0]["usage"].is_null());
        } else {
            assert_eq!(usage["choices"][0]["finish_reason"], "stop");
            assert!(events.iter().all(|event| event.get("usage").is_none()));
        }
    }
    // Streamed tokens count too, as far as they were sent.
    assert_eq!(sandbox.counters().tokens.output, 10);
}

#[tokio::test]
async fn bad_requests_are_told_apart() {
    let sandbox = sandbox().await;
    let chat = "/v1/chat/completions";
    let error = |reply: &Reply| reply.json()["error"].clone();

    let reply = call(&sandbox, "POST", chat, &[], "{").await;
    assert_eq!((reply.status.as_u16(), &error(&reply)["type"]), (400, &json!("invalid_request_error")));
    let reply = post(&sandbox, chat, "", json!({"model": "sandbox-chat"})).await;
    assert_eq!((reply.status.as_u16(), &error(&reply)["param"]), (400, &json!("messages")));
    let reply = post(&sandbox, chat, "", json!({"model": "nope", "messages": [{}]})).await;
    assert_eq!((reply.status.as_u16(), &error(&reply)["code"]), (404, &json!("model_not_found")));
    let reply = call(&sandbox, "PUT", chat, &[], "").await;
    assert_eq!((reply.status.as_u16(), &reply.headers["allow"]), (405, &"POST".parse().unwrap()));
    let reply = call(&sandbox, "GET", "/v1/nothing", &[], "").await;
    assert_eq!(
        (reply.status.as_u16(), &error(&reply)["message"]),
        (404, &json!("Invalid URL (GET /v1/nothing)"))
    );
}

#[tokio::test]
async fn models_are_the_published_ones() {
    let sandbox = sandbox().await;
    let list = call(&sandbox, "GET", "/v1/models", &[], "").await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), crate::MODELS.len());
    let one = call(&sandbox, "GET", "/v1/models/qwen-plus", &[], "").await.json();
    assert_eq!((&one["id"], &one["object"]), (&json!("qwen-plus"), &json!("model")));
    assert_eq!(call(&sandbox, "GET", "/v1/models/x", &[], "").await.status, 404);
}

#[tokio::test]
async fn responses_live_and_chain() {
    let sandbox = sandbox().await;
    let request = json!({"model": "gpt-5", "input": "first 一"});
    let first = post(&sandbox, "/v1/responses", "", request).await.json();
    assert_eq!(first["output"][0]["content"][0]["text"], "You said: first 一");
    let path = format!("/v1/responses/{}", first["id"].as_str().unwrap());
    assert_eq!(call(&sandbox, "GET", &path, &[], "").await.json(), first);

    let next = json!({"model": "gpt-5", "input": [{"role": "user", "content": "next"}],
        "previous_response_id": first["id"], "stream": true});
    let reply = post(&sandbox, "/v1/responses", "", next.clone()).await;
    let events = reply.events();
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], n);
        assert!(reply.text().contains(&format!("event: {}\n", event["type"].as_str().unwrap())));
    }
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!((types[0], types[4]), ("response.created", "response.output_text.delta"));
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    assert_eq!(last["response"]["usage"]["output_tokens"], 3);

    assert_eq!(call(&sandbox, "DELETE", &path, &[], "").await.json()["deleted"], true);
    assert_eq!(call(&sandbox, "GET", &path, &[], "").await.status, 404);
    let orphan = post(&sandbox, "/v1/responses", "", next).await;
    assert_eq!(orphan.json()["error"]["code"], "previous_response_not_found");
}

#[tokio::test]
async fn embeddings_agree_in_both_encodings() {
    let sandbox = sandbox().await;
    let ask = async |format: &str, input: Value| {
        let request = json!({"model": "text-embedding-3-small", "input": input,
            "encoding_format": format, "dimensions": 8});
        post(&sandbox, "/v1/embeddings", "", request).await.json()
    };
    let floats = ask("float", json!(["你好", "b"])).await;
    let packed = ask("base64", json!(["你好", "b"])).await;
    let other = ask("float", json!("b")).await;
    assert_eq!(floats["data"][1]["embedding"], other["data"][0]["embedding"]);
    for n in 0..2 {
        let packed = packed["data"][n]["embedding"].as_str().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(packed).unwrap();
        let unpacked: Vec<f64> =
            bytes.chunks(4).map(|four| f64::from(f32::from_le_bytes(four.try_into().unwrap()))).collect();
        let floats: Vec<f64> = serde_json::from_value(floats["data"][n]["embedding"].clone()).unwrap();
        assert_eq!(unpacked.len(), 8);
        assert!(unpacked.iter().zip(&floats).all(|(a, b)| (a - b).abs() < 1e-6));
        assert!((unpacked.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-4);
    }
    assert_eq!(floats["usage"]["prompt_tokens"], 3);
    assert_eq!(ask("float", json!([1, 2, 3])).await["usage"]["total_tokens"], 3);
    assert_eq!(ask("float", json!([])).await["error"]["param"], "input");
}

#[tokio::test]
async fn speech_is_a_valid_wav() {
    let sandbox = sandbox().await;
    let ask = async |input: &str, format: &str| {
        let request = json!({"model": "tts-1", "voice": "alloy", "input": input, "response_format": format});
        post(&sandbox, "/v1/audio/speech", "", request).await
    };
    let wav = ask("你好", "wav").await;
    assert_eq!(wav.headers["content-type"], "audio/wav");
    assert_eq!(wav.headers["transfer-encoding"], "chunked");
    assert_eq!(&wav.body[..4], b"RIFF");
    let size = u32::from_le_bytes(wav.body[40..44].try_into().unwrap()) as usize;
    assert_eq!((size, wav.body.len()), (2 * 2880, 44 + 2 * 2880));
    let mp3 = ask("hello", "mp3").await;
    assert_eq!((mp3.headers["content-type"].to_str().unwrap(), mp3.body.len()), ("audio/mpeg", 5 * 834));
    assert_eq!(ask("hello", "opus").await.status, 400);
}

#[tokio::test]
async fn images_and_transcriptions() {
    let sandbox = sandbox().await;
    let request = json!({"model": "gpt-image-1", "prompt": "cat", "n": 2});
    let images = post(&sandbox, "/v1/images/generations", "", request).await.json();
    let png = images["data"][1]["b64_json"].as_str().unwrap();
    let png = base64::engine::general_purpose::STANDARD.decode(png).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));

    let form = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"声.wav\"\r\n\r\nabc\
        \r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b--\r\n";
    let headers = [("content-type", "multipart/form-data; boundary=b")];
    let reply = call(&sandbox, "POST", "/v1/audio/transcriptions", &headers, form).await;
    assert_eq!(reply.json()["text"], "You said: 声.wav, 3 bytes");
    assert_eq!(reply.json()["usage"]["type"], "duration");
}
