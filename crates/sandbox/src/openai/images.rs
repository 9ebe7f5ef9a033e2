//! `POST /v1/images/generations`: always the same one-pixel PNG.

use crate::http::{Answer, RequestBody};
use crate::ids::unix_now;
use crate::route::Call;
use crate::shape::Fault;
use crate::text::tokens;
use serde_json::{Value, json};

const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
/// What one image costs.
const IMAGE_TOKENS: u64 = 272;

pub(crate) async fn create(call: &Call<'_>, body: &mut RequestBody) -> Result<Answer, Fault> {
    let request = body.json().await?;
    let model = match &request["model"] {
        Value::Null => "gpt-image-1",
        _ => super::model(call.state, &request)?,
    };
    let prompt = request["prompt"].as_str().ok_or_else(|| Fault::missing("prompt"))?;
    let count = request["n"].as_u64().unwrap_or(1);
    if !(1..=10).contains(&count) {
        return Err(Fault::bad_request("'n' must be 1 to 10.").param("n"));
    }
    let data = vec![json!({"b64_json": PIXEL}); count as usize];
    let (input, output) = (tokens(prompt), IMAGE_TOKENS * count);
    let answer = json!({
        "created": unix_now(),
        "data": data,
        "background": "opaque",
        "output_format": "png",
        "quality": "low",
        "size": "1024x1024",
        "usage": {
            "input_tokens": input,
            "input_tokens_details": {"text_tokens": input, "image_tokens": 0},
            "output_tokens": output,
            "total_tokens": input + output,
        },
    });
    Ok(Answer::json(&answer).usage(model, input, output))
}
