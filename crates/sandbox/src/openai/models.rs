//! `GET /v1/models`.

use crate::http::Answer;
use crate::route::Call;
use crate::shape::Fault;
use serde_json::{Value, json};

pub(crate) fn list(call: &Call<'_>) -> Answer {
    let data: Vec<Value> = call.state.models().map(object).collect();
    Answer::json(&json!({"object": "list", "data": data}))
}

pub(crate) fn get(call: &Call<'_>, id: &str) -> Result<Answer, Fault> {
    call.state.know_model(id)?;
    Ok(Answer::json(&object(id)))
}

fn object(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "sandbox"})
}
