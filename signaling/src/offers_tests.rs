use super::*;

const TYPE: &str = "multipart/form-data; boundary=\"b\"";

fn read(kind: &str, body: &str) -> Result<CallOffer, String> {
    Offers.read(Some(kind), body.as_bytes())
}

#[test]
fn offers_come_in_any_shape() {
    let raw = read("application/sdp; charset=utf-8", "v=0\r\n").unwrap();
    assert_eq!((raw.sdp.as_str(), raw.session, raw.shape), ("v=0\r\n", None, CallShape::Raw));
    let sdp = "Content-Disposition: form-data; name=\"sdp\"\r\nContent-Type: application/sdp\r\n\r\nv=0\r\ns=-\r\n\r\n";
    let bare = "content-disposition: form-data; name=sdp; filename=\"o\"\r\n\r\nv=0\r\ns=-\r\n\r\n";
    let session = "Content-Disposition: form-data; name=\"session\"\r\n\r\n{\"model\":\"m\"}\r\n";
    for body in [
        format!("--b\r\n{sdp}--b\r\n{session}--b--\r\n"),
        format!("--b\r\n{session}--b\r\n{bare}--b--"),
        format!("preamble\r\n--b  \r\n{session}--b\r\n{sdp}--b--\r\nepilogue"),
    ] {
        let offer = read(TYPE, &body).unwrap();
        assert_eq!((offer.sdp.as_str(), offer.shape), ("v=0\r\ns=-\r\n", CallShape::Multipart));
        assert_eq!(offer.session.as_deref(), Some("{\"model\":\"m\"}"));
        // What is written reads the same.
        let (kind, body) = Offers.write(&offer);
        assert_eq!(Offers.read(Some(&kind), &body).unwrap(), offer);
    }
    let body = r#"{"session":{"model":"gpt-live-1"},"transport":{"type":"webrtc","sdp":"v=0\r\n"}}"#;
    let live = read("application/json", body).unwrap();
    assert_eq!((live.sdp.as_str(), live.shape), ("v=0\r\n", CallShape::Live));
    let (kind, body) = Offers.write(&live);
    assert_eq!(Offers.read(Some(&kind), &body).unwrap(), live);
}

#[test]
fn what_is_no_offer_is_told_why() {
    for (kind, body, why) in [
        ("application/sdp", "", "is empty"),
        ("image/png", "v=0", "this is 'image/png'"),
        ("multipart/form-data", "v=0", "names no boundary"),
        (TYPE, "v=0", "does not occur"),
        (TYPE, "--b\r\n", "end of its head"),
        (TYPE, "--b\r\nContent-Disposition: form-data; name=sdp\r\n\r\nv=0", "last boundary is missing"),
        (TYPE, "--b\r\nX: y\r\n\r\nv=0\r\n--b--", "has no name"),
        (TYPE, "--b\r\nContent-Disposition: form-data; name=session\r\n\r\n{}\r\n--b--", "no part 'sdp'"),
        (TYPE, "--b\r\nContent-Disposition: form-data; name=session\r\n\r\n[]\r\n--b--", "no JSON object"),
        (TYPE, "--b--", "no part 'sdp'"),
        ("application/json", "{}", "no 'transport.sdp'"),
        ("application/json", "[1]", "no JSON object"),
        ("application/json", r#"{"transport":{"type":"websocket","sdp":"x"}}"#, "Only 'transport.type'"),
        ("application/json", r#"{"session":1,"transport":{"sdp":"x"}}"#, "'session' is no JSON object"),
    ] {
        let told = read(kind, body).unwrap_err();
        assert!(told.contains(why), "{kind} {body}: {told}");
    }
    let twice = "--b\r\nContent-Disposition: form-data; name=sdp\r\n\r\nv=0\r\n";
    assert!(read(TYPE, &format!("{twice}{twice}--b--")).unwrap_err().contains("two parts 'sdp'"));
    assert!(Offers.read(None, b"\xff\xfe").unwrap_err().contains("UTF-8"));
}

#[test]
fn settings_are_merged_and_the_model_is_ours() {
    let initial =
        r#"{"type":"realtime","model":"a","audio":{"input":{"x":1},"output":{"voice":"marin"}},"tools":[1]}"#;
    let session = r#"{"model":"b","audio":{"input":{"y":2}},"tools":[],"instructions":"说中文"}"#;
    let settled = Offers.settle(Some(session), Some(initial), Some("pinned")).unwrap();
    let settled: Value = serde_json::from_str(&settled).unwrap();
    let expected = serde_json::json!({
        "type": "realtime", "model": "pinned", "tools": [], "instructions": "说中文",
        "audio": {"input": {"x": 1, "y": 2}, "output": {"voice": "marin"}},
    });
    assert_eq!(settled, expected);
    assert_eq!(Offers.settle(None, None, Some("m")).unwrap(), r#"{"type":"realtime","model":"m"}"#);
    assert!(Offers.settle(Some("no"), None, None).is_err());
    // Of two of a name only one goes on.
    let twice = Offers.settle(Some(r#"{"model":"x","model":"y"}"#), None, None).unwrap();
    assert_eq!(twice.matches("model").count(), 1);
}

#[test]
fn all_models_of_a_session_are_named() {
    let session = r#"{"type":"realtime","model":"m","audio":{"input":{"transcription":{"model":"t"}}}}"#;
    let models = Offers.models(session);
    assert_eq!(models[0], NamedModel { name: "m".to_owned(), aside: false });
    assert!(models.contains(&NamedModel { name: "t".to_owned(), aside: true }), "{models:?}");
    assert!(Offers.models("{\"type\":\"realtime\"}").is_empty());
}

#[test]
fn answers_are_read_and_replaced() {
    let raw = Offers.answer(CallShape::Multipart, b"v=0\r\n").unwrap();
    assert_eq!((raw.sdp.as_str(), raw.id), ("v=0\r\n", None));
    assert_eq!(Offers.reply(CallShape::Raw, b"v=0", "v=1", "id"), ("application/sdp", "v=1".into()));
    let body = br#"{"session":{"id":"sess_1","model":"m"},"transport":{"type":"webrtc","sdp":"v=0"}}"#;
    let live = Offers.answer(CallShape::Live, body).unwrap();
    assert_eq!((live.sdp.as_str(), live.id.as_deref()), ("v=0", Some("sess_1")));
    let (kind, reply) = Offers.reply(CallShape::Live, body, "v=1", "rtc_ours");
    let expected = serde_json::json!({"session": {"id": "rtc_ours", "model": "m"}, "transport": {"type": "webrtc", "sdp": "v=1"}});
    assert_eq!((kind, serde_json::from_slice::<Value>(&reply).unwrap()), ("application/json", expected));
    assert!(Offers.answer(CallShape::Live, b"{}").is_err());
}
