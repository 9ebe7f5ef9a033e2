//! OpenAI's API, also served below `/compatible-mode` as Aliyun does.

pub(crate) mod audio;
pub(crate) mod chat;
pub(crate) mod embeddings;
pub(crate) mod files;
pub(crate) mod images;
pub(crate) mod models;
pub(crate) mod responses;
mod store;

pub(crate) use responses::ResponseStore;
pub(crate) use store::FileStore;

use crate::route::State;
use crate::shape::Fault;
use serde_json::Value;

/// The `model` of a request, refused when missing or unknown.
fn model<'a>(state: &State, request: &'a Value) -> Result<&'a str, Fault> {
    let model = request["model"]
        .as_str()
        .ok_or_else(|| Fault::bad_request("you must provide a model parameter").param("model"))?;
    state.know_model(model)?;
    Ok(model)
}

/// The value of a query parameter, decoded.
fn query_param(query: Option<&str>, name: &str) -> Option<String> {
    query?.split('&').find_map(|pair| {
        let value = pair.strip_prefix(name)?.strip_prefix('=')?;
        let value = value.replace('+', " ");
        Some(percent_encoding::percent_decode_str(&value).decode_utf8_lossy().into_owned())
    })
}
