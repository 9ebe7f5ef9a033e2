//! What a caller asks for who mints a client secret: the body of the request.

use std::time::Duration;

use aiproxy_secrets::Kind;
use serde_json::{Map, Value};
use url::Url;

/// How long a secret lives unless the caller says otherwise, and the shortest life, in seconds.
const USUAL: u64 = 600;
const SHORTEST: u64 = 10;
/// Bytes of the settings that a session begins with, as JSON.
const SETTINGS_BYTES: usize = 16 * 1024;
/// Origins of one secret, and the bytes of each.
const ORIGINS: usize = 16;
const ORIGIN_BYTES: usize = 256;
/// Bytes of a model's name.
const MODEL_BYTES: usize = 256;

/// A client secret as it is wanted.
#[derive(Debug, PartialEq)]
pub(crate) struct Wish {
    /// How long it is to live, in seconds.
    pub(crate) seconds: u64,
    pub(crate) kind: Kind,
    /// The model, if one is named.
    pub(crate) model: Option<String>,
    /// What the session is to begin with, if there is anything.
    pub(crate) settings: Option<Map<String, Value>>,
    pub(crate) channel: Option<String>,
    pub(crate) origins: Vec<String>,
    pub(crate) single_use: bool,
}

/// What is wrong, and where; a sentence for the caller.
type Wrong = String;

impl Wish {
    /// Reads a body. `usual` is the kind of session where it names none; the secret may live for
    /// `longest`.
    ///
    /// # Errors
    /// A sentence that says what is wrong and where.
    pub(crate) fn parse(body: &[u8], usual: Kind, longest: Duration) -> Result<Self, Wrong> {
        let body = match body.trim_ascii() {
            [] => Value::Object(Map::new()),
            body => serde_json::from_slice(body).map_err(|error| format!("The body is no JSON: {error}."))?,
        };
        let mut body = object(body, "The body")?;
        let mut take = |name: &str| body.remove(name).filter(|value| !value.is_null());
        let (expires_after, session, own) = (take("expires_after"), take("session"), take("aiproxy"));
        nothing_else(&body, "", "expires_after, session and aiproxy")?;
        let seconds = lifetime(expires_after, longest.as_secs())?;
        let (kind, model, settings) = self::session(session, usual)?;
        let mut wish =
            Self { seconds, kind, model, settings, channel: None, origins: Vec::new(), single_use: false };
        if let Some(own) = own {
            wish.own(object(own, "aiproxy")?)?;
        }
        Ok(wish)
    }

    /// What AIProxy adds to OpenAI's request.
    fn own(&mut self, mut own: Map<String, Value>) -> Result<(), Wrong> {
        let mut take = |name: &str| own.remove(name).filter(|value| !value.is_null());
        match take("channel") {
            None => {}
            Some(Value::String(channel)) => self.channel = Some(channel),
            Some(_) => return Err("aiproxy.channel: write the id of a channel, a text.".to_owned()),
        }
        match take("single_use") {
            None => {}
            Some(Value::Bool(single)) => self.single_use = single,
            Some(_) => return Err("aiproxy.single_use: write true or false.".to_owned()),
        }
        match take("origins") {
            None => {}
            // "None" must not silently become "any".
            Some(Value::Array(list)) if list.is_empty() => {
                return Err(
                    "aiproxy.origins: the list is empty. Leave it out where any page may use the secret."
                        .to_owned(),
                );
            }
            Some(Value::Array(list)) if list.len() > ORIGINS => {
                return Err(format!("aiproxy.origins: there are more than {ORIGINS}."));
            }
            Some(Value::Array(list)) => {
                for (index, value) in list.iter().enumerate() {
                    self.origins
                        .push(origin(value).map_err(|wrong| format!("aiproxy.origins[{index}]: {wrong}"))?);
                }
            }
            Some(_) => {
                return Err("aiproxy.origins: write a list such as [\"https://app.example.com\"].".to_owned());
            }
        }
        nothing_else(&own, "aiproxy.", "channel, origins and single_use")
    }
}

/// The origin as browsers send it.
fn origin(value: &Value) -> Result<String, Wrong> {
    let example = "write scheme and host as browsers send them, such as https://app.example.com.";
    let Some(text) = value.as_str().filter(|text| text.len() <= ORIGIN_BYTES) else {
        return Err(example.to_owned());
    };
    let clean = Url::parse(text).ok().map(|url| url.origin()).filter(url::Origin::is_tuple);
    match clean.map(|origin| origin.ascii_serialization()) {
        Some(clean) if clean == text => Ok(clean),
        Some(clean) => Err(format!("write {clean}, as browsers do.")),
        None => Err(example.to_owned()),
    }
}

fn lifetime(expires_after: Option<Value>, longest: u64) -> Result<u64, Wrong> {
    let usual = USUAL.min(longest);
    let Some(expires_after) = expires_after else { return Ok(usual) };
    let mut members = object(expires_after, "expires_after")?;
    match members.remove("anchor") {
        None => {}
        Some(Value::String(anchor)) if anchor == "created_at" => {}
        Some(_) => return Err("expires_after.anchor: only \"created_at\" is known.".to_owned()),
    }
    let seconds = match members.remove("seconds") {
        None | Some(Value::Null) => usual,
        Some(value) => {
            value.as_u64().filter(|seconds| (SHORTEST..=longest).contains(seconds)).ok_or_else(|| {
                format!("expires_after.seconds: write a whole number from {SHORTEST} to {longest}.")
            })?
        }
    };
    nothing_else(&members, "expires_after.", "anchor and seconds")?;
    Ok(seconds)
}

/// Kind, model, and what else there is.
type Session = (Kind, Option<String>, Option<Map<String, Value>>);

fn session(session: Option<Value>, usual: Kind) -> Result<Session, Wrong> {
    let mut session = object(session.unwrap_or_else(|| Value::Object(Map::new())), "session")?;
    // What is null is as good as absent.
    session.retain(|_, value| !value.is_null());
    let kind = match session.remove("type") {
        None => usual,
        Some(value) => value
            .as_str()
            .and_then(Kind::parse)
            .ok_or("session.type: write realtime, transcription or translation.")?,
    };
    let top = match session.remove("model") {
        None => None,
        Some(_) if kind == Kind::Transcription => {
            return Err("session.model: a transcription names its model in \
                        session.audio.input.transcription.model."
                .to_owned());
        }
        Some(value) => Some(model(&value).map_err(|wrong| format!("session.model: {wrong}"))?),
    };
    let model = match kind {
        Kind::Realtime | Kind::Translation => top,
        Kind::Transcription => {
            let place = "session.audio.input.transcription.model";
            let named = session.get("audio").and_then(|audio| audio.pointer("/input/transcription/model"));
            let named = named.ok_or(format!("{place}: a transcription has to name its model there."))?;
            Some(model(named).map_err(|wrong| format!("{place}: {wrong}"))?)
        }
    };
    if session.is_empty() {
        return Ok((kind, model, None));
    }
    if serde_json::to_vec(&session).map_or(usize::MAX, |bytes| bytes.len()) > SETTINGS_BYTES {
        return Err(format!(
            "session: the settings are larger than {SETTINGS_BYTES} bytes. Send some of them in the session."
        ));
    }
    Ok((kind, model, Some(session)))
}

/// The name of one model.
fn model(value: &Value) -> Result<String, Wrong> {
    let name = value.as_str().ok_or("write the name of a model, a text.")?;
    let clean = !name.is_empty()
        && name.len() <= MODEL_BYTES
        && name.trim() == name
        && !name.contains(|c: char| c.is_control() || c == '*');
    if clean { Ok(name.to_owned()) } else { Err("this is not the name of a model.".to_owned()) }
}

fn object(value: Value, place: &str) -> Result<Map<String, Value>, Wrong> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(format!("{place}: expected a JSON object.")),
    }
}

/// A member that is not known may be a restriction, spelt wrongly.
fn nothing_else(members: &Map<String, Value>, place: &str, known: &str) -> Result<(), Wrong> {
    match members.keys().next() {
        None => Ok(()),
        Some(name) => {
            let name: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
            Err(format!("{place}{name}: not known; known here are {known}."))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(body: &Value) -> Result<Wish, Wrong> {
        Wish::parse(body.to_string().as_bytes(), Kind::Realtime, Duration::from_secs(7200))
    }

    #[test]
    fn little_is_needed() {
        let bare = Wish {
            seconds: 600,
            kind: Kind::Realtime,
            model: None,
            settings: None,
            channel: None,
            origins: Vec::new(),
            single_use: false,
        };
        let at_most = |seconds| Duration::from_secs(seconds);
        for body in ["", " ", "{}", r#"{"session":null}"#, r#"{"session":{"instructions":null}}"#] {
            assert_eq!(
                Wish::parse(body.as_bytes(), Kind::Realtime, at_most(7200)).as_ref(),
                Ok(&bare),
                "{body}"
            );
        }
        let short = Wish::parse(b"", Kind::Translation, at_most(60)).unwrap();
        assert_eq!((short.seconds, short.kind), (60, Kind::Translation));
    }

    #[test]
    fn everything_is_read() {
        let wish = parse(&json!({
            "expires_after": {"anchor": "created_at", "seconds": 7200},
            "session": {"type": "realtime", "model": "gpt-realtime", "instructions": "你好", "tracing": null},
            "aiproxy": {"channel": "main", "origins": ["https://a.example", "http://localhost:8000"], "single_use": true},
        }))
        .unwrap();
        assert_eq!((wish.seconds, wish.model.as_deref()), (7200, Some("gpt-realtime")));
        assert_eq!(Value::Object(wish.settings.unwrap()), json!({"instructions": "你好"}));
        assert_eq!((wish.channel.as_deref(), wish.single_use), (Some("main"), true));
        assert_eq!(wish.origins, ["https://a.example", "http://localhost:8000"]);
        let audio = json!({"input": {"transcription": {"model": "whisper-1"}}});
        let wish = parse(&json!({"session": {"type": "transcription", "audio": audio}})).unwrap();
        assert_eq!((wish.kind, wish.model.as_deref()), (Kind::Transcription, Some("whisper-1")));
        assert_eq!(Value::Object(wish.settings.unwrap()), json!({ "audio": audio }));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (body, place) in [
            (json!([]), "The body: expected a JSON object."),
            (json!({"expires_afer": {}}), "expires_afer: not known"),
            (json!({"expires_after": 600}), "expires_after: expected"),
            (json!({"expires_after": {"anchor": "now"}}), "expires_after.anchor: "),
            (
                json!({"expires_after": {"seconds": 9}}),
                "expires_after.seconds: write a whole number from 10 to 7200.",
            ),
            (json!({"expires_after": {"seconds": 7201}}), "expires_after.seconds: "),
            (json!({"expires_after": {"seconds": 60.5}}), "expires_after.seconds: "),
            (json!({"expires_after": {"seconds": "60"}}), "expires_after.seconds: "),
            (json!({"expires_after": {"minutes": 1}}), "expires_after.minutes: not known"),
            (json!({"session": "gpt-realtime"}), "session: expected"),
            (json!({"session": {"type": "live"}}), "session.type: "),
            (json!({"session": {"model": 5}}), "session.model: write"),
            (json!({"session": {"model": ""}}), "session.model: this is not"),
            (json!({"session": {"model": "gpt-*"}}), "session.model: this is not"),
            (json!({"session": {"model": "a\nb"}}), "session.model: this is not"),
            (json!({"session": {"model": "m".repeat(257)}}), "session.model: this is not"),
            (
                json!({"session": {"type": "transcription"}}),
                "session.audio.input.transcription.model: a transc",
            ),
            (json!({"session": {"type": "transcription", "model": "m"}}), "session.model: a transcription"),
            (json!({"session": {"instructions": "x".repeat(16 * 1024)}}), "session: the settings are larger"),
            (json!({"aiproxy": true}), "aiproxy: expected"),
            (json!({"aiproxy": {"origin": "https://a.example"}}), "aiproxy.origin: not known"),
            (json!({"aiproxy": {"origins": "https://a.example"}}), "aiproxy.origins: write a list"),
            (json!({"aiproxy": {"origins": []}}), "aiproxy.origins: the list is empty"),
            (
                json!({"aiproxy": {"origins": vec!["https://a.example"; 17]}}),
                "aiproxy.origins: there are more",
            ),
            (json!({"aiproxy": {"origins": ["https://a.example", "*"]}}), "aiproxy.origins[1]: write scheme"),
            (
                json!({"aiproxy": {"origins": ["https://A.example/"]}}),
                "aiproxy.origins[0]: write https://a.example,",
            ),
            (json!({"aiproxy": {"single_use": 1}}), "aiproxy.single_use: "),
            (json!({"aiproxy": {"channel": ["main"]}}), "aiproxy.channel: "),
        ] {
            let wrong = parse(&body).unwrap_err();
            assert!(wrong.starts_with(place), "{body}: {wrong}");
        }
        let wrong = Wish::parse(b"{\"session\":", Kind::Realtime, Duration::from_secs(60)).unwrap_err();
        assert!(wrong.starts_with("The body is no JSON: "), "{wrong}");
    }
}
