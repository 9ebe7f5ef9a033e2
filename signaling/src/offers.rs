//! The bodies that carry SDP offers and answers.
//!
//! | shape | offer | answer | from |
//! |---|---|---|---|
//! | raw | `application/sdp` | `application/sdp` | OpenAI and Azure calls, the legacy path, DashScope |
//! | multipart | parts `sdp` and `session`, in any order, with or without types and file names | `application/sdp` | OpenAI and Azure calls |
//! | Live | `{"session":{…},"transport":{"type":"webrtc","sdp":"…"}}` | `{"session":{"id":"…"},"transport":{"type":"webrtc","sdp":"…"}}` | OpenAI Live |

use aiproxy_core::ports::{CallOffer, CallReply, CallShape, NamedModel, SdpHandler};
use aiproxy_taps::socket::Caller;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::multipart;

const SDP: &str = "application/sdp";

/// Reads and writes offers and answers.
#[derive(Debug, Default)]
pub struct Offers;

impl SdpHandler for Offers {
    fn read(&self, content_type: Option<&str>, body: &[u8]) -> Result<CallOffer, String> {
        let kind = content_type.unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "multipart/form-data" => parted(kind, body),
            "application/json" => live(body),
            // Some clients name no type, or the one that browsers put in.
            SDP | "" | "text/plain" | "application/x-www-form-urlencoded" => {
                Ok(CallOffer { sdp: text(body, "The body")?, session: None, shape: CallShape::Raw })
            }
            other => {
                let name: String = other.chars().filter(|letter| !letter.is_control()).take(64).collect();
                Err(format!(
                    "A call is offered as application/sdp, as multipart/form-data with the parts 'sdp' and 'session', or as application/json with 'transport.sdp'; this is '{name}'."
                ))
            }
        }
    }

    fn models(&self, session: &str) -> Vec<NamedModel> {
        let mut caller = Caller::default();
        for piece in ["{\"session\":", session, "}"] {
            caller.feed(piece.as_bytes());
        }
        caller.end_strictly(true);
        let named = caller.take_named().into_iter();
        let mut models: Vec<_> =
            named.map(|named| NamedModel { name: named.name, aside: named.aside }).collect();
        let own = object(session).ok().and_then(|session| Some(session.get("model")?.as_str()?.to_owned()));
        if let Some(name) = own {
            models.insert(0, NamedModel { name, aside: false });
        }
        models
    }

    fn settle(
        &self,
        session: Option<&str>,
        initial: Option<&str>,
        model: Option<&str>,
    ) -> Result<String, String> {
        let mut settled = match initial {
            Some(initial) => object(initial)?,
            None => Map::new(),
        };
        if let Some(session) = session {
            over(&mut settled, object(session)?);
        }
        settled.entry("type").or_insert_with(|| "realtime".into());
        if let Some(model) = model {
            settled.insert("model".to_owned(), model.into());
        }
        Ok(Value::Object(settled).to_string())
    }

    fn write(&self, offer: &CallOffer) -> (String, Bytes) {
        match (offer.shape, &offer.session) {
            (CallShape::Raw, _) | (CallShape::Multipart, None) => (SDP.to_owned(), offer.sdp.clone().into()),
            (CallShape::Multipart, Some(session)) => {
                let parts = [("sdp", SDP, &*offer.sdp), ("session", "application/json", session)];
                let (kind, body) = multipart::compose(&parts);
                (kind, body.into())
            }
            (CallShape::Live, session) => {
                let session = session.as_deref().and_then(|session| object(session).ok()).unwrap_or_default();
                let body = serde_json::json!({
                    "session": session,
                    "transport": {"type": "webrtc", "sdp": offer.sdp},
                });
                ("application/json".to_owned(), body.to_string().into())
            }
        }
    }

    fn answer(&self, shape: CallShape, body: &[u8]) -> Result<CallReply, String> {
        if shape != CallShape::Live {
            return Ok(CallReply { sdp: text(body, "The answer")?, id: None });
        }
        let body: Value = serde_json::from_slice(body).map_err(|error| format!("It is no JSON: {error}."))?;
        let sdp =
            body.pointer("/transport/sdp").and_then(Value::as_str).ok_or("It has no 'transport.sdp'.")?;
        let id = body.pointer("/session/id").and_then(Value::as_str).map(str::to_owned);
        Ok(CallReply { sdp: sdp.to_owned(), id })
    }

    fn reply(&self, shape: CallShape, body: &[u8], sdp: &str, id: &str) -> (&'static str, Bytes) {
        if shape != CallShape::Live {
            return (SDP, sdp.to_owned().into());
        }
        let mut body: Value = serde_json::from_slice(body).unwrap_or_default();
        for (place, value) in [("/transport/sdp", sdp), ("/session/id", id)] {
            if let Some(slot) = body.pointer_mut(place) {
                *slot = value.into();
            }
        }
        ("application/json", body.to_string().into())
    }
}

fn parted(kind: &str, body: &[u8]) -> Result<CallOffer, String> {
    let boundary =
        multipart::boundary(kind).ok_or("The Content-Type multipart/form-data names no boundary.")?;
    let parts = multipart::parts(boundary, body)
        .map_err(|why| format!("The multipart body cannot be read: {why}."))?;
    let (mut sdp, mut session) = (None, None);
    for (name, content) in parts {
        let slot = match name.as_str() {
            "sdp" => &mut sdp,
            "session" => &mut session,
            _ => continue,
        };
        if slot.is_some() {
            return Err(format!("The multipart body has two parts '{name}'."));
        }
        *slot = Some(text(content, &format!("The part '{name}'"))?);
    }
    if let Some(session) = &session {
        object(session)?;
    }
    let sdp = sdp.ok_or("The multipart body has no part 'sdp'.")?;
    Ok(CallOffer { sdp, session, shape: CallShape::Multipart })
}

fn live(body: &[u8]) -> Result<CallOffer, String> {
    let mut body: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| format!("The body is no JSON object: {error}."))?;
    let kind = body.get("transport").and_then(|transport| transport.get("type")?.as_str());
    if kind.is_some_and(|kind| kind != "webrtc") {
        return Err("Only 'transport.type' 'webrtc' carries an offer.".to_owned());
    }
    let sdp = body.get("transport").and_then(|transport| transport.get("sdp")?.as_str());
    let sdp = sdp.ok_or("The body has no 'transport.sdp'.")?.to_owned();
    let session = match body.remove("session") {
        None | Some(Value::Null) => None,
        Some(session @ Value::Object(_)) => Some(session.to_string()),
        Some(_) => return Err("'session' is no JSON object.".to_owned()),
    };
    Ok(CallOffer { sdp, session, shape: CallShape::Live })
}

fn text(bytes: &[u8], what: &str) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| format!("{what} is not in UTF-8."))?;
    if text.trim().is_empty() {
        return Err(format!("{what} is empty: it has to be an SDP offer."));
    }
    Ok(text.to_owned())
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("The session's settings are no JSON object: {error}."))
}

/// Puts what stands above over what lies below; objects are merged.
fn over(below: &mut Map<String, Value>, above: Map<String, Value>) {
    for (name, value) in above {
        match (below.get_mut(&name), value) {
            (Some(Value::Object(below)), Value::Object(above)) => over(below, above),
            (_, value) => {
                below.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
#[path = "offers_tests.rs"]
mod tests;
