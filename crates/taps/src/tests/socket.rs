//! Messages of sockets.

use super::*;

/// Reads the messages in pieces of every size.
fn read(messages: &[&str]) -> Option<report::Usage> {
    let mut outcome = None;
    for piece in [1, 2, 3, 7, 4096] {
        let mut platform = Platform::default();
        for message in messages {
            message.as_bytes().chunks(piece).for_each(|bytes| platform.feed(bytes));
            platform.end();
        }
        let usage = platform.settle(true);
        assert!(outcome.as_ref().is_none_or(|before| *before == usage), "pieces of {piece}");
        outcome = Some(usage);
    }
    outcome.flatten()
}

#[test]
fn responses_and_transcriptions_are_added_up() {
    let usage = read(&[
        r#"{"type":"session.created","session":{"model":"gpt-realtime-2025-08-28"}}"#,
        r#"{"type":"response.done","response":{"status":"completed","usage":{"total_tokens":30,"input_tokens":10,
            "output_tokens":20,"input_token_details":{"audio_tokens":6,"cached_tokens":4,
            "cached_tokens_details":{"audio_tokens":99}},"output_token_details":{"audio_tokens":15}}}}"#,
        r#"{"response":{"usage":{"input_tokens":1,"output_tokens":2}},"type":"response.done"}"#,
        r#"{"type":"conversation.item.input_audio_transcription.completed","transcript":"\"usage\"",
            "usage":{"type":"tokens","input_tokens":5,"output_tokens":7,"total_tokens":12}}"#,
        r#"{"type":"conversation.item.input_audio_transcription.completed","usage":{"type":"duration","seconds":2.5}}"#,
        r#"{"type":"response.output_text.delta","delta":"{\"usage\":{\"input_tokens\":1000}}"}"#,
        "no JSON {\"type\":\"response.done\"}",
    ])
    .unwrap();
    assert_eq!((usage.tokens.input, usage.tokens.output), (16, 29));
    assert_eq!((usage.tokens.audio_input, usage.tokens.audio_output, usage.tokens.cached), (6, 15, 4));
    assert_eq!(usage.seconds, Some(2.5));
    assert_eq!(usage.model.as_deref(), Some("gpt-realtime-2025-08-28"));
    assert!(usage.reported && !usage.estimated);
}

#[test]
fn cumulative_reports_are_not_summed() {
    let live = read(&[
        r#"{"type":"session.usage.updated","usage":{"seconds":15}}"#,
        r#"{"type":"session.usage.updated","usage":{"seconds":31.5}}"#,
    ]);
    assert_eq!(live.unwrap().seconds, Some(31.5));
    let tasks = read(&[
        r#"{"header":{"event":"task-started"},"payload":{}}"#,
        r#"{"header":{"event":"result-generated"},"payload":{"usage":{"duration":1}}}"#,
        r#"{"header":{"event":"result-generated"},"payload":{"usage":{"duration":3}}}"#,
        r#"{"header":{"event":"task-finished"},"payload":{}}"#,
        r#"{"header":{"event":"result-generated"},"payload":{"usage":{"characters":4}}}"#,
        r#"{"header":{"event":"task-finished"},"payload":{"usage":{"characters":9}}}"#,
        r#"{"header":{"event":"result-generated"},"payload":{"usage":{"duration":10}}}"#,
    ])
    .unwrap();
    assert_eq!((tasks.seconds, tasks.characters), (Some(13.0), 9));
}

#[test]
fn the_seconds_of_a_transcribed_stream_are_those_of_its_closing_account() {
    let results = r#"{"type":"Results","start":0.0,"duration":99.5,"is_final":true,"usage":{},
        "channel":{"alternatives":[{"transcript":"\"type\":\"Metadata\""}]}}"#;
    let heard = read(&[
        results,
        r#"{"type":"Metadata","request_id":"r","duration":2.5,"channels":1}"#,
        results,
        r#"{"duration":30.25,"models":["m"],"model_info":{"m":{"duration":7}},"type":"Metadata"}"#,
        results,
    ])
    .unwrap();
    assert_eq!(heard.seconds, Some(30.25));
    assert!(heard.reported && !heard.estimated && heard.tokens == Default::default());
    assert_eq!(read(&[results]), None, "no account, no report");
    // What opens a stream of speech says nothing of time.
    assert_eq!(read(&[r#"{"type":"Metadata","request_id":"r","model_name":"aura-2"}"#]), None);
    assert_eq!(read(&[r#"{"type":"Metadata","duration":-1,"usage":{"duration":4}}"#]), None);
    assert_eq!(read(&[r#"{"type":"Metadata","usage":4}"#]), None);
}

#[test]
fn what_reports_nothing_is_nothing() {
    assert_eq!(read(&[r#"{"type":"session.created","session":{}}"#, ""]), None);
    assert_eq!(read(&[r#"{"type":"response.created","usage":{"input_tokens":3}}"#]), None);
}

#[test]
fn a_response_that_was_broken_off_is_known_to_be_missing() {
    let mut platform = Platform::default();
    for message in [
        r#"{"type":"response.done","response":{"usage":{"input_tokens":1,"output_tokens":2}}}"#,
        r#"{"type":"response.created","response":{}}"#,
    ] {
        platform.feed(message.as_bytes());
        platform.end();
    }
    assert!(platform.settle(false).unwrap().estimated);
}

#[test]
fn models_are_found_where_they_mean_something() {
    let found = |message: &str| {
        let mut all = Vec::new();
        for piece in [1, 5, 4096] {
            let mut caller = Caller::default();
            message.as_bytes().chunks(piece).for_each(|bytes| caller.feed(bytes));
            caller.end();
            all.push(caller.take_models());
        }
        assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
        all.swap_remove(0)
    };
    for (message, models) in [
        (r#"{"type":"session.update","session":{"model":"m1"}}"#, vec!["m1"]),
        (r#"{"session":{"audio":{"input":{"transcription":{"model":"m2"}}}}}"#, vec!["m2"]),
        (r#"{"type":"response.create","model":"m3","response":{"mod\u0065l":"m\u0034"}}"#, vec!["m3", "m4"]),
        (r#"{"header":{"action":"run-task"},"payload":{"model":"m5","input":{}}}"#, vec!["m5"]),
        (
            r#"{"Session":{"MODEL":"m6"},"modelId":"m7","setup":{"Model":"models/m8"}}"#,
            vec!["m6", "m7", "m8"],
        ),
        (r#"{"type":"conversation.item.create","item":{"content":[{"text":"x","model":"m"}]}}"#, vec![]),
        (r#"{"type":"input_audio_buffer.append","audio":"\"model\":\"m\""}"#, vec![]),
    ] {
        assert_eq!(found(message), models, "{message}");
    }
    // Which of them are beside the session's own.
    let aside = |message: &str| {
        let mut caller = Caller::default();
        caller.feed(message.as_bytes());
        caller.end();
        caller.take_named().into_iter().map(|named| (named.name, named.aside)).collect::<Vec<_>>()
    };
    let many = r#""input_audio_transcription":{"model":"t"},"#.repeat(9);
    for (message, expected) in [
        (r#"{"session":{"audio":{"input":{"transcription":{"model":"m"}}}}}"#.to_owned(), vec![("m", true)]),
        (r#"{"session":{"input_audio_transcription":{"model":5}}}"#.to_owned(), vec![(UNREADABLE, true)]),
        (
            r#"{"session":{"transcription":{"x":{"model":"m"}},"model":"n"}}"#.to_owned(),
            vec![("m", false), ("n", false)],
        ),
        (r#"{"session":{"Transcription":{"model":"m"}}}"#.to_owned(), vec![("m", false)]),
        (r#"{"response":{"transcription":{"model":"m"}}}"#.to_owned(), vec![("m", false)]),
        (r#"{"transcription":{"model":"m"}}"#.to_owned(), vec![]),
        // Those beyond what is told apart do not hide each other.
        (
            format!(r#"{{"session":{{{many}{many}"model":"o3"}}}}"#),
            [vec![("t", true); 8], vec![(UNREADABLE, true), (UNREADABLE, false)]].concat(),
        ),
        (
            format!(r#"{{"session":{{{many}"model":"o3",{many}"model":"o3"}}}}"#),
            [vec![("t", true); 8], vec![(UNREADABLE, true), (UNREADABLE, false)]].concat(),
        ),
    ] {
        let found = aside(&message);
        let found: Vec<_> = found.iter().map(|(name, aside)| (name.as_str(), *aside)).collect();
        assert_eq!(found, expected, "{message}");
    }
    // What cannot be told stands for a model that nobody may use.
    let escaped = |name: &str| name.bytes().map(|byte| format!("\\u{byte:04x}")).collect::<String>();
    let long = escaped("gemini-2.5-flash-preview-native-audio-dialog");
    for message in [format!(r#"{{"model":"{long}"}}"#), format!(r#"{{"model":"{}"}}"#, "m".repeat(300))] {
        assert_eq!(found(&message), ["\u{fffd}"], "{message}");
    }
    let many = format!("{{{}\"model\":\"bad\"}}", r#""model":"ok","#.repeat(9));
    assert_eq!(found(&many).last().unwrap(), "\u{fffd}");
}
