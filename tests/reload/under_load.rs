//! Many reloads while many are served.
//!
//! `AIPROXY_SOAK=1` runs the same for longer and with more of everything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aiproxy_testkit::{Ask, Client, PROXY_KEY, until, within};
use serde_json::json;

use crate::{chat, chat_stream, relay};

struct Size {
    /// Streams that are open all the time.
    streams: usize,
    valid: usize,
    invalid: usize,
    /// Between two versions of the file.
    pace: Duration,
}

const SHORT: Size = Size { streams: 40, valid: 40, invalid: 4, pace: Duration::from_millis(110) };
const SOAK: Size = Size { streams: 200, valid: 200, invalid: 20, pace: Duration::from_millis(20_000 / 220) };

/// What callers did meanwhile.
#[derive(Default)]
struct Done {
    enough: AtomicBool,
    requests: AtomicUsize,
    streams: AtomicUsize,
}

/// One request after the other on one connection: none may fail.
async fn keep_asking(addr: SocketAddr, done: Arc<Done>) {
    let mut client = Client::connect(addr).await;
    while !done.enough.load(Ordering::SeqCst) {
        let ask = Ask::new(addr, PROXY_KEY, "POST", "/v1/chat/completions").json(&chat("gpt-4o", "你好"));
        let mut answer = client.send(ask).await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().await.contains("你好"));
        done.requests.fetch_add(1, Ordering::SeqCst);
    }
}

/// One short stream after the other, each on a connection of its own.
async fn keep_streaming(addr: SocketAddr, done: Arc<Done>) {
    while !done.enough.load(Ordering::SeqCst) {
        let ask = Ask::new(addr, PROXY_KEY, "POST", "/v1/chat/completions");
        let ask = ask.json(&chat_stream("gpt-4o", "one two three four")).sandbox("delay=20");
        let mut answer = ask.send().await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().await.ends_with("data: [DONE]\n\n"));
        done.streams.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn nobody_notices() {
    let Size { streams, valid, invalid, pace } =
        if std::env::var_os("AIPROXY_SOAK").is_some() { SOAK } else { SHORT };
    let mut app = relay().config(|c| c["system"]["log_level"] = "info".into()).start().await;
    let mut open = Vec::new();
    for number in 0..streams {
        let ask = app
            .post("/v1/chat/completions", &chat_stream("gpt-4o", &format!("stream number {number} goes on")));
        // Half of them stand still, the others never do.
        let scenario = if number % 2 == 0 { "hold=end".to_owned() } else { "hold=end;delay=5".to_owned() };
        let mut stream = ask.sandbox(&scenario).send().await;
        assert_eq!(stream.status, 200);
        stream.piece().await.unwrap().unwrap();
        open.push(stream);
    }
    let done = Arc::new(Done::default());
    let mut callers = Vec::new();
    for _ in 0..4 {
        callers.push(tokio::spawn(keep_asking(app.addr(), Arc::clone(&done))));
        callers.push(tokio::spawn(keep_streaming(app.addr(), Arc::clone(&done))));
    }

    let versions = valid + invalid;
    let every = versions / invalid;
    for version in 0..versions {
        let spoiled = version % every == every - 1;
        app.reconfigure(|c| {
            let users = c["users"].as_object_mut().unwrap();
            users.retain(|id, _| id == "user1");
            users.insert(
                format!("guest{version}"),
                json!({"proxy_key": format!("pk_guest_{version:06}_Zt5Qw"), "channels": ["main"]}),
            );
            c["channels"]["main"]["timeouts"] = json!({"idle": format!("{}s", 60 + version)});
            c["channels"]["main"]["models"] = json!(["gpt-*", format!("m{version}")]);
            c["system"]["limits"] = json!({"keep_alive": format!("{}s", 60 + version)});
            match spoiled {
                true => c["users"]["user1"]["chanels"] = json!(["main"]),
                false => drop(c["users"]["user1"].as_object_mut().unwrap().remove("chanels")),
            }
        });
        // Not a bound on anything: the file only has to stand still for a moment now and then.
        tokio::time::sleep(pace).await;
        assert!(callers.iter().all(|caller| !caller.is_finished()), "a caller failed");
    }
    let last = app.reloads().0;
    let end = |c: &mut serde_json::Value| {
        c["users"]["user1"].as_object_mut().unwrap().remove("chanels");
        c["users"]["user1"]["name"] = "the end".into();
    };
    // What comes first may still be about the version before.
    if !app.change(end).await {
        until("the last version", || (app.reloads().0 > last).then_some(())).await;
    }

    done.enough.store(true, Ordering::SeqCst);
    for caller in callers {
        within("a caller", caller).await.expect("no request fails");
    }
    app.sandbox().release("end");
    for stream in &mut open {
        assert!(stream.text().await.ends_with("data: [DONE]\n\n"), "no stream fails");
    }
    let (applied, refused) = app.reloads();
    assert!(applied * 2 >= valid, "{applied} of {valid} valid versions were applied");
    assert!(refused >= 1, "no invalid version was reported");
    let said = app.process().stderr();
    let report = said.lines().find(|line| line.contains("the last good one stays")).unwrap();
    let place = report.find("aiproxy.yaml:").map(|at| &report[at + "aiproxy.yaml:".len()..]).unwrap();
    // Line and column.
    let mut numbers = place.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    assert!(matches!((numbers.next(), numbers.next()), (Some(Ok(1..)), Some(Ok(1..)))), "{report}");
    assert!(report.contains("chanels"), "{report}");
    assert_eq!(app.metric("aiproxy_reloads_total{result=\"applied\"}").await, count(applied));
    assert_eq!(app.metric("aiproxy_reloads_total{result=\"refused\"}").await, count(refused));
    // Everything that was recorded, was recorded as complete.
    until("every line", || {
        let log = app.process().stdout();
        let (all, complete) = (log.lines().count(), log.matches("\"outcome\":\"complete\"").count());
        assert_eq!(all, complete, "{log}");
        let (requests, short) = (done.requests.load(Ordering::SeqCst), done.streams.load(Ordering::SeqCst));
        (all == requests + short + streams).then_some(())
    })
    .await;
    println!(
        "{applied} of {valid} valid versions applied, {refused} of {invalid} invalid ones reported; \
         {streams} streams stood, {} short streams and {} requests were served; none failed",
        done.streams.load(Ordering::SeqCst),
        done.requests.load(Ordering::SeqCst),
    );
    app.finish().await;
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap())
}
