//! `POST /v1/embeddings`: unit vectors that depend on the text alone.

use crate::http::{Answer, RequestBody};
use crate::route::Call;
use crate::shape::Fault;
use crate::text::tokens;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The platform's bounds.
const MAX_INPUTS: usize = 2048;
const MAX_DIMENSIONS: u64 = 3072;

pub(crate) async fn create(call: &Call<'_>, body: &mut RequestBody) -> Result<Answer, Fault> {
    let request = body.json().await?;
    let model = super::model(call.state, &request)?;
    let usual = match model {
        "text-embedding-3-large" => 3072,
        "text-embedding-v4" => 1024,
        _ => 1536,
    };
    let dimensions = match &request["dimensions"] {
        Value::Null => usual,
        given => given.as_u64().filter(|n| (1..=MAX_DIMENSIONS).contains(n)).ok_or_else(|| {
            Fault::bad_request(format!("'dimensions' must be 1 to {MAX_DIMENSIONS}.")).param("dimensions")
        })?,
    };
    let base64 = match request["encoding_format"].as_str() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => {
            return Err(
                Fault::bad_request("'encoding_format' must be float or base64.").param("encoding_format")
            );
        }
    };
    let inputs = inputs(&request["input"])?;
    let total: u64 = inputs.iter().map(|input| input.tokens).sum();
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let vector = vector(&input.seed, dimensions as usize);
            let embedding = if base64 {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                STANDARD.encode(bytes).into()
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let answer = json!({
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": total, "total_tokens": total},
    });
    Ok(Answer::json(&answer).usage(model, total, 0))
}

struct Input {
    seed: [u8; 32],
    tokens: u64,
}

impl Input {
    fn text(text: &str) -> Input {
        Input { seed: Sha256::digest(text).into(), tokens: tokens(text) }
    }

    /// A text that the caller has already turned into token numbers.
    fn numbers(numbers: &[Value]) -> Input {
        Input { seed: Sha256::digest(json!(numbers).to_string()).into(), tokens: numbers.len() as u64 }
    }
}

/// A text, texts, token numbers, or lists of them.
fn inputs(input: &Value) -> Result<Vec<Input>, Fault> {
    let bad = || Fault::bad_request("'input' must be a text or a list of texts.").param("input");
    match input {
        Value::String(text) => Ok(vec![Input::text(text)]),
        Value::Array(list) if list.is_empty() || list.len() > MAX_INPUTS => Err(bad()),
        Value::Array(list) if list.iter().all(Value::is_number) => Ok(vec![Input::numbers(list)]),
        Value::Array(list) => list
            .iter()
            .map(|item| match item {
                Value::String(text) => Ok(Input::text(text)),
                Value::Array(numbers) if !numbers.is_empty() => Ok(Input::numbers(numbers)),
                _ => Err(bad()),
            })
            .collect(),
        _ => Err(Fault::missing("input")),
    }
}

/// A unit vector out of splitmix64, seeded by the text's hash.
fn vector(seed: &[u8; 32], dimensions: usize) -> Vec<f32> {
    let mut state = seed
        .chunks_exact(8)
        .fold(0u64, |mix, bytes| bytes.iter().fold(mix, |mix, b| mix.rotate_left(8) ^ u64::from(*b)));
    let mut vector: Vec<f32> = (0..dimensions)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            (z >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        })
        .collect();
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    // A lone dimension that happens to be zero has no direction; any will do.
    if norm > 0.0 {
        vector.iter_mut().for_each(|x| *x /= norm);
    } else {
        vector[0] = 1.0;
    }
    vector
}
