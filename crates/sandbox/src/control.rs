//! `/sandbox/...`: what tests ask the sandbox itself. No key, no record.

use crate::gates::NAME_LIMIT;
use crate::http::Answer;
use crate::route::State;
use crate::shape::Fault;
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// Answers `/sandbox/{rest}`.
pub(crate) fn answer(state: &State, method: &Method, rest: &str) -> Result<Answer, Fault> {
    let refuse = |allow: &str| {
        Err(Fault::new(StatusCode::METHOD_NOT_ALLOWED, format!("Use {allow} here.")).header("allow", allow))
    };
    if let Some(gate) = rest.strip_prefix("release/") {
        if method != Method::POST {
            return refuse("POST");
        }
        let gate = percent_decode_str(gate).decode_utf8_lossy();
        if !(1..=NAME_LIMIT).contains(&gate.len()) {
            return Err(Fault::bad_request("A gate's name is 1 to 128 bytes."));
        }
        state.gates.release(&gate);
        return Ok(Answer::empty(StatusCode::NO_CONTENT));
    }
    match (rest, method) {
        ("requests", &Method::GET) => {
            let seen = state.log.snapshot();
            let list = seen.iter().map(|request| request.to_json()).collect();
            Ok(Answer::json(&Value::Array(list)))
        }
        ("requests", &Method::DELETE) => {
            state.log.clear();
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        ("counters", &Method::GET) => Ok(Answer::json(&state.log.counters().to_json())),
        ("calls", &Method::GET) => {
            let list = state.calls.snapshot().iter().map(|call| call.to_json()).collect();
            Ok(Answer::json(&Value::Array(list)))
        }
        ("requests", _) => refuse("GET, DELETE"),
        ("counters" | "calls", _) => refuse("GET"),
        _ => {
            let there = "/sandbox/requests, /sandbox/calls, /sandbox/release/NAME and /sandbox/counters";
            Err(Fault::not_found(format!("There is {there}.")))
        }
    }
}
