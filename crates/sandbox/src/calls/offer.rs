//! What the request of a call asks for: an SDP offer, a model, a session.

use bytes::BytesMut;
use http::header::CONTENT_TYPE;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::http::RequestBody;
use crate::multipart::Multipart;
use crate::route::Call;
use crate::shape::Fault;

/// Bound of an offer, and of a session, in bytes.
const LIMIT: usize = 1 << 20;

/// An offer that can be tried.
pub(crate) struct Offer {
    pub(super) sdp: String,
    pub(super) model: String,
    /// What the caller wants of the session; null for nothing.
    pub(super) session: Value,
    /// The path it came on.
    pub(super) path: String,
    /// The platform opens the data channel, with this label.
    pub(super) opens: Option<&'static str>,
}

/// Which forms a path takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// An offer as it is, or a form with `sdp` and `session`.
    Either,
    /// An offer as it is.
    Raw,
    /// The same, and the platform opens the data channel.
    Aliyun,
    /// JSON of `session` and `transport`; so is the answer.
    Live,
}

impl Offer {
    pub(super) async fn read(call: &Call<'_>, form: Form, body: &mut RequestBody) -> Result<Offer, Fault> {
        let head = call.head;
        let kind = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let (sdp, session) = match (&*kind, form) {
            ("application/json", Form::Live) => live(body).await?,
            ("application/sdp", Form::Either | Form::Raw | Form::Aliyun) => (raw(body).await?, Value::Null),
            ("multipart/form-data", Form::Either) => parts(call, body).await?,
            _ => {
                let wanted = match form {
                    Form::Either => "'application/sdp' or 'multipart/form-data'",
                    Form::Raw | Form::Aliyun => "'application/sdp'",
                    Form::Live => "'application/json'",
                };
                let message = format!("Unsupported content type. This API method only accepts {wanted}.");
                return Err(Fault::bad_request(message).code("unsupported_content_type"));
            }
        };
        if sdp.trim().is_empty() {
            return Err(Fault::missing("sdp"));
        }
        let in_session = session["model"].as_str().map(str::to_owned);
        let query = head.uri.query().unwrap_or_default();
        let model = in_session.or_else(|| {
            let value = query.split('&').find_map(|pair| pair.strip_prefix("model="))?;
            Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
        });
        let model = model
            .filter(|model| !model.is_empty())
            .ok_or_else(|| Fault::missing(if session.is_null() { "model" } else { "session.model" }))?;
        let opens = (form == Form::Aliyun).then_some("txt");
        Ok(Offer { sdp, model, session, path: head.uri.path().to_owned(), opens })
    }
}

async fn raw(body: &mut RequestBody) -> Result<String, Fault> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = body.chunk().await? {
        if whole.len() + chunk.len() > LIMIT {
            return Err(Fault::too_large("An offer is at most 1 MiB."));
        }
        whole.extend_from_slice(&chunk);
    }
    String::from_utf8(whole.into()).map_err(|_| invalid("The offer is not UTF-8."))
}

/// A session and its transport.
async fn live(body: &mut RequestBody) -> Result<(String, Value), Fault> {
    let mut wish = body.json().await?;
    if wish["transport"]["type"] != "webrtc" {
        return Err(Fault::bad_request("'transport.type' must be 'webrtc'.").param("transport.type"));
    }
    let sdp = wish["transport"]["sdp"].as_str().ok_or_else(|| Fault::missing("transport.sdp"))?.to_owned();
    Ok((sdp, wish["session"].take()))
}

/// A form's `sdp` and `session`, in any order.
async fn parts(call: &Call<'_>, body: &mut RequestBody) -> Result<(String, Value), Fault> {
    let mut form = Multipart::new(&call.head.headers, body)?;
    let (mut sdp, mut session) = (None, None);
    while let Some(part) = form.next_part().await? {
        match &*part.name {
            "sdp" => sdp = Some(form.text(LIMIT).await?),
            "session" => session = Some(form.text(LIMIT).await?),
            other => return Err(Fault::bad_request(format!("Unknown parameter: '{other}'."))),
        }
    }
    let sdp = sdp.ok_or_else(|| Fault::missing("sdp"))?;
    let session: Value = match session {
        Some(text) => serde_json::from_str(&text).map_err(|error| {
            Fault::bad_request(format!("'session' is not JSON: {error}.")).param("session")
        })?,
        None => return Err(Fault::missing("session")),
    };
    if !session.is_object() {
        return Err(Fault::bad_request("'session' must be an object.").param("session"));
    }
    match session["type"].as_str() {
        Some("realtime") => Ok((sdp, session)),
        Some(other) => Err(Fault::bad_request(format!("Invalid value: '{other}'.")).param("session.type")),
        None => Err(Fault::missing("session.type")),
    }
}

/// An offer that cannot be answered.
pub(super) fn invalid(message: impl Into<String>) -> Fault {
    Fault::bad_request(message).code("invalid_offer").param("sdp")
}
