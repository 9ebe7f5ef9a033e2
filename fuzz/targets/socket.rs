//! What passes through a socket, and what is read of it on the way.

#![no_main]

use std::task::{Context, Poll};
use std::time::Duration;

use aiproxy_core::ErrorKind;
use aiproxy_core::ports::{
    EndOrder, MessageEdit, ReadModels, SocketCause, SocketEnd, SocketGuard, SocketLimits, SocketUse, Sockets,
    UpgradeHandler as _,
};
use aiproxy_fuzz::frames::{self, Bounds, End, Frame};
use aiproxy_fuzz::pieces::Input;
use aiproxy_fuzz::streams;
use aiproxy_signaling::WebSockets;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const BOUNDS: Bounds = Bounds { frame: 1000, message: 1500 };
const UNBOUND: Bounds = Bounds { frame: u64::MAX, message: u64::MAX };
/// A model that may not be asked for.
const FORBIDDEN: &str = "bad";
/// Which a rewriting replaces by this.
const REWRITTEN: &[u8] = b"rewritten";

/// How a socket is relayed.
#[derive(Debug, Clone, Copy)]
struct Manner {
    /// The text is the caller's, else the platform's.
    up: bool,
    remask: bool,
    /// The caller's messages are read for models, or the platform's for usage.
    read: bool,
    /// The caller's messages are rewritten.
    edit: bool,
    /// So much of the text came with the handshake.
    ahead: bool,
}

struct Guard;

impl SocketGuard for Guard {
    fn poll_end(&self, _: &mut Context<'_>) -> Poll<EndOrder> {
        Poll::Pending
    }

    fn admits(&self, model: &str) -> bool {
        model != FORBIDDEN
    }

    fn passed_down(&self, _: usize) {}

    fn so_far(&self, _: SocketUse) {}
}

/// Replaces the first message that says what is to be replaced.
struct Edit(bool);

impl MessageEdit for Edit {
    fn edit(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, ErrorKind> {
        self.0 = true;
        Ok(message.starts_with(b"{").then(|| REWRITTEN.to_vec()))
    }

    fn wants_more(&self) -> bool {
        !self.0
    }
}

fn relay(pieces: &[&[u8]], manner: Manner) -> (Vec<u8>, SocketEnd) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let (ahead, pieces) = match pieces.split_first() {
        Some((first, rest)) if manner.ahead => (Bytes::copy_from_slice(first), rest),
        _ => (Bytes::new(), pieces),
    };
    let (speaker, _) = streams::End::new(pieces, true);
    let (listener, heard) = streams::End::new(&[], false);
    let (speaker, listener) = (Box::new(speaker), Box::new(listener));
    let mut sockets = Sockets {
        caller: speaker,
        caller_ahead: ahead,
        platform: listener,
        platform_ahead: Bytes::new(),
        prelude: None,
        remask: manner.remask,
        limits: SocketLimits {
            message_bytes: BOUNDS.message,
            frame_bytes: BOUNDS.frame,
            held_bytes: 4000,
            idle: Duration::from_secs(60),
            total: None,
            report: Some(Duration::from_secs(1)),
        },
        metered: manner.read,
        models: if manner.read { ReadModels::All } else { ReadModels::Never },
        edit: manner.edit.then(|| Box::new(Edit(false)) as _),
        guard: Box::new(Guard),
    };
    if !manner.up {
        std::mem::swap(&mut sockets.caller, &mut sockets.platform);
        std::mem::swap(&mut sockets.caller_ahead, &mut sockets.platform_ahead);
    }
    let end = runtime.expect("a runtime").block_on(async { WebSockets.relay(sockets).await });
    (heard.take(), end)
}

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::new(data) else { return };
    let bit = |number: u8| input.choice >> number & 1 == 1;
    let up = bit(0);
    let manner = Manner { up, remask: bit(1), read: bit(2), edit: up && bit(3), ahead: bit(4) };
    let (mut expected, ended) = frames::parse(input.text, up, BOUNDS);

    let (whole, end) = relay(&[input.text], manner);
    let passed = check(&whole, &mut expected, ended, manner, &end);
    for pieces in [input.pieces(), input.single()] {
        let (heard, again) = relay(&pieces, manner);
        let frames = check(&heard, &mut expected, ended, manner, &again);
        // What is refused for what it says is refused sooner or later in its message.
        if end.cause == again.cause && !matches!(end.cause, SocketCause::Refused(_)) {
            assert_eq!(frames, passed);
            assert_eq!(
                (end.used.frames_in, end.used.usage.clone()),
                (again.used.frames_in, again.used.usage)
            );
        }
    }
});

/// The frames that came through, which have to be those that were sent.
fn check(heard: &[u8], expected: &mut Vec<Frame>, ended: End, manner: Manner, end: &SocketEnd) -> Vec<Frame> {
    let (mut passed, rest) = frames::parse(heard, manner.up, UNBOUND);
    assert_ne!(rest, End::Violation, "{passed:?}");
    let refused = matches!(end.cause, SocketCause::Refused(_));
    match ended {
        End::Close => assert!(refused || matches!(end.cause, SocketCause::Closed(_)), "{end:?}"),
        End::Violation => {
            let named = matches!(end.cause, SocketCause::Violation(_) | SocketCause::TooLarge(_));
            assert!(refused || named, "{end:?}");
        }
        End::Bytes => assert!(refused || matches!(end.cause, SocketCause::Lost(_)), "{end:?}"),
    }
    // AIProxy's own last word stands between frames.
    let own = passed.last().is_some_and(|last| last.opcode == 8) && (refused || ended != End::Close);
    if own {
        passed.pop();
        assert!(passed.iter().all(|frame| frame.whole), "a close frame within a frame");
    }
    let messages = frames::messages(&passed);
    if manner.edit {
        // The first message is whole and rewritten, or has not passed.
        let sent = frames::messages(expected);
        if let (Some((first, _)), Some((said, whole))) = (messages.first(), sent.first()) {
            assert!(*whole);
            let rewritten = if said.starts_with(b"{") { REWRITTEN } else { said };
            assert_eq!(first, rewritten);
        }
        for (passed, sent) in messages.iter().zip(&sent).skip(1) {
            assert!(sent.0.starts_with(&passed.0));
        }
    } else {
        assert!(passed.len() <= expected.len(), "{passed:?}");
        for (passed, sent) in passed.iter().zip(&*expected) {
            assert_eq!((passed.fin, passed.opcode), (sent.fin, sent.opcode));
            assert!(sent.payload.starts_with(&passed.payload));
        }
        assert!(refused || passed == *expected, "{passed:?}\n{expected:?}");
    }
    if manner.read && manner.up {
        let forbidden = |said: &[u8]| {
            serde_json::from_slice::<Value>(said).is_ok_and(|value| value["model"] == FORBIDDEN)
        };
        for (said, whole) in &messages {
            assert!(!whole || !forbidden(said), "{said:?}");
        }
    }
    passed
}
