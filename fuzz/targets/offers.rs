//! The bodies that carry SDP offers and answers.

#![no_main]

use aiproxy_core::ports::{CallShape, SdpHandler};
use aiproxy_signaling::Offers;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const KINDS: [&str; 4] =
    ["application/sdp", "multipart/form-data; boundary=b", "application/json; charset=utf-8", ""];

fn value(text: &str) -> Value {
    serde_json::from_str(text).expect("settings that were taken are JSON")
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, body)) = input.split_first() else { return };
    let kind = KINDS[usize::from(*choice) % KINDS.len()];
    if let Ok(offer) = Offers.read(Some(kind), body) {
        // What is written reads the same.
        let (written, bytes) = Offers.write(&offer);
        let again = Offers.read(Some(&written), &bytes).expect("what is written can be read");
        assert_eq!(again.sdp, offer.sdp);
        match (&again.session, &offer.session) {
            (Some(again), Some(before)) => assert_eq!(value(again), value(before)),
            // A form without settings goes on as the offer alone; Live has settings always.
            (again, None) => assert!(again.as_deref().is_none_or(|session| session == "{}")),
            (None, Some(_)) => panic!("the settings are gone"),
        }
        let session = offer.session.as_deref();
        for model in session.map(|session| Offers.models(session)).unwrap_or_default() {
            assert!(!model.name.is_empty() || session.is_some_and(|session| session.contains("\"\"")));
        }
        // There is one model, and it is the one that was put there.
        let settled =
            Offers.settle(session, Some("{\"model\":\"below\"}"), Some("ours")).expect("it was taken");
        assert_eq!(value(&settled)["model"], "ours");
        assert!(value(&settled)["type"] != Value::Null || session.is_some());
    }
    if let Ok(reply) = Offers.answer(CallShape::Live, body) {
        let (_, ours) = Offers.reply(CallShape::Live, body, "v=0\r\n", "rtc_ours");
        let again = Offers.answer(CallShape::Live, &ours).expect("what is written can be read");
        assert_eq!(again.sdp, "v=0\r\n");
        assert_eq!(again.id.is_some(), reply.id.is_some());
    }
});
