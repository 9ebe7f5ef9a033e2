//! Sessions are recorded while they go on: a process that is killed leaves them counted.

use aiproxy_testkit::ws::{Socket, closing, frame, opcode};
use aiproxy_testkit::{App, RawUpstream};
use serde_json::{Value, json};

use super::{lines, row, sum};
use crate::relay;

const REALTIME: &str = "/v1/realtime?model=gpt-realtime";

/// A platform that reports ten tokens in and twenty out for every message.
async fn reporting() -> RawUpstream {
    RawUpstream::start(|mut conn| async move {
        conn.accept("", "").await;
        let done = json!({"type": "response.done", "response": {
            "usage": {"total_tokens": 30, "input_tokens": 10, "output_tokens": 20}}});
        while let Some(next) = conn.frame().await {
            if next.opcode == opcode::CLOSE {
                conn.send(frame(opcode::CLOSE, &next.payload, false)).await;
                break;
            }
            conn.send(frame(opcode::TEXT, done.to_string(), false)).await;
        }
    })
    .await
}

async fn start(upstream: &RawUpstream) -> App {
    relay()
        .upstream(upstream)
        .config(|c| {
            c["system"]["log"]["access"] = "access.log".into();
            c["system"]["journal"] = json!({"session_interval": "1s"});
            c["channels"]["main"]["prices"] =
                json!({"currency": "USD", "models": {"gpt-realtime": {"input": 100_000, "output": 200_000}}});
        })
        .start()
        .await
}

async fn respond(socket: &mut Socket) {
    socket.json(&json!({"type": "response.create"})).await;
    assert_eq!(socket.event().await["type"], "response.done");
}

/// The sum of all, once it says that this many sessions have ended so, and that this many tokens were
/// written.
async fn once(app: &App, outcome: (&str, u64), output: u64) -> Value {
    for _ in 0..200 {
        let sum = sum(app, "outcome", &[]).await;
        if sum["total"]["tokens"]["output"] == output && sum["total"]["outcomes"][outcome.0] == outcome.1 {
            return sum;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("never {outcome:?} with {output} tokens");
}

#[tokio::test]
async fn a_session_that_goes_on_is_counted_so_far_and_once_at_its_end() {
    let upstream = reporting().await;
    let app = start(&upstream).await;
    let mut socket = app.socket(REALTIME).open().await;
    let open = once(&app, ("open", 1), 0).await;
    assert_eq!(
        (&row(&open, "outcome", "open")["requests"], &open["total"]["requests"]),
        (&json!(1), &json!(1))
    );
    respond(&mut socket).await;
    assert_eq!(row(&once(&app, ("open", 1), 20).await, "outcome", "open")["cost"], json!({"USD": 5.0}));
    respond(&mut socket).await;
    let sum_of_open = once(&app, ("open", 1), 40).await;
    assert_eq!(sum_of_open["total"]["tokens"]["input"], 20);
    assert_eq!(sum(&app, "outcome", &["--outcome", "complete"]).await["total"]["requests"], 0);
    respond(&mut socket).await;
    socket.send(opcode::CLOSE, closing(1000, "")).await;
    assert_eq!(socket.closed().await.0, 1000);
    drop(socket);
    let ended = once(&app, ("complete", 1), 60).await;
    assert_eq!(ended["total"]["outcomes"], json!({"complete": 1}));
    assert_eq!(ended["total"]["cost"], json!({"USD": 15.0}));
    let tail: Value =
        serde_json::from_str(&super::usage(&super::journal(&app), &["tail", "--json"]).await).unwrap();
    assert_eq!((&tail["outcome"], &tail["frames_in"]), (&json!("complete"), &json!(4)));
    app.metric_is("aiproxy_access_log_lines_total", 1.0).await;
    let [line] = &lines(app.dir())[..] else { panic!("one line") };
    assert_eq!(line["usage"]["output"], 60);
    app.finish().await;
}

#[tokio::test]
async fn sessions_of_a_killed_process_are_closed_by_the_next_one() {
    let upstream = reporting().await;
    let mut app = start(&upstream).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let mut socket = app.socket(REALTIME).open().await;
        respond(&mut socket).await;
        sockets.push(socket);
    }
    let ids: Vec<String> = sockets.iter().map(Socket::id).collect();
    // One ends as it should.
    let mut ended = sockets.pop().unwrap();
    ended.send(opcode::CLOSE, closing(1000, "")).await;
    ended.closed().await;
    drop(ended);
    once(&app, ("complete", 1), 60).await;
    app.restart_after("KILL").await;
    drop(sockets);
    let sum = once(&app, ("aborted", 2), 60).await;
    assert_eq!(sum["total"]["outcomes"], json!({"aborted": 2, "complete": 1}), "{sum}");
    assert_eq!((&sum["total"]["requests"], &sum["total"]["cost"]), (&json!(3), &json!({"USD": 15.0})));
    // What comes once is not told again, whatever becomes of the processes.
    app.restart_after("KILL").await;
    app.restart_after("TERM").await;
    assert_eq!(once(&app, ("aborted", 2), 60).await["total"], sum["total"]);
    let lines = lines(app.dir());
    let outcomes: Vec<_> = ids
        .iter()
        .map(|id| {
            let mut of_id = lines.iter().filter(|line| line["request_id"] == id.as_str());
            let line = of_id.next().unwrap();
            assert!(of_id.next().is_none(), "{id} twice");
            assert_eq!((&line["usage"]["output"], &line["status"]), (&json!(20), &json!(101)));
            (line["outcome"].as_str().unwrap(), line["error_class"].as_str(), &line["usage"]["estimated"])
        })
        .collect();
    let aborted = ("aborted", Some("relay"), &json!(true));
    assert_eq!(outcomes, [aborted, aborted, ("complete", None, &json!(false))]);
    app.finish().await;
}
