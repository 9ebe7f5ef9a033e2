//! What real platforms and callers need of calls, by the numbers of the list that sockets follow too
//! (`tests/sockets`).
//!
//! - `signaling`: 13 to 16, 28, 30: offers and answers; `pages`: 15, 17: in a browser
//! - `media`: 17 to 21: sound; `channels`: 22 to 25: messages
//! - `ending`: 26: however a call ends; `joining`: 27: who acts upon it; `records`: 29: what is counted

mod channels;
mod ending;
mod joining;
mod media;
mod pages;
mod records;
mod signaling;

use std::collections::HashSet;
use std::path::PathBuf;

use aiproxy_testkit::{Answer, App, Ask, Builder, CHANNEL_KEY, PROXY_KEY, Process, Sandbox, SeenCall, until};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{relay, sdk};

/// Where most offers go.
pub(super) const CALLS: &str = "/v1/realtime/calls?model=gpt-realtime";

/// A relay that takes calls.
pub(super) fn calling() -> Builder {
    relay().config(|config| config["system"]["listen"]["media"] = json!("127.0.0.1:0"))
}

/// The URL of an offer.
pub(super) fn url(app: &App) -> String {
    format!("{}{CALLS}", app.url())
}

/// An offer of sound, with Opus under this number, and of data channels. Nobody is behind it.
pub(super) fn offer(opus: u8) -> String {
    let transport = format!(
        "c=IN IP4 0.0.0.0\r\na=ice-ufrag:Kb3s\r\na=ice-pwd:9hJ2mQ4rT6vX8zB1dF3gK5nP\r\na=ice-options:trickle\r\n\
         a=fingerprint:sha-256 {}\r\na=setup:actpass\r\n",
        ["7C"; 32].join(":")
    );
    format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF {opus} 0 8\r\n{transport}a=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\n\
         a=rtpmap:{opus} opus/48000/2\r\na=fmtp:{opus} minptime=10;useinbandfec=1\r\na=rtpmap:0 PCMU/8000\r\n\
         a=rtpmap:8 PCMA/8000\r\n\
         m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{transport}a=mid:1\r\na=sctp-port:5000\r\n\
         a=max-message-size:262144\r\n"
    )
}

/// Sends an offer as it is.
pub(super) fn offering(app: &App, target: &str) -> Ask {
    app.ask("POST", target).header("content-type", "application/sdp").body(offer(111))
}

/// What a refusal says.
pub(super) async fn refusal(ask: Ask) -> (u16, String, String) {
    let mut answer = ask.send().await;
    let body = answer.json().await;
    let text = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    (answer.status.as_u16(), text("code"), text("message"))
}

/// Our id of the call, from the answer's `Location`.
pub(super) fn id_of(answer: &Answer) -> String {
    let location = answer.header("location").expect("a Location");
    let id = location.rsplit('/').next().unwrap().to_owned();
    assert!(id.starts_with("rtc_aiproxy_") && id.len() > 30, "{location}");
    id
}

/// Hangs up: status.
pub(super) async fn hang_up(app: &App, id: &str) -> u16 {
    app.ask("POST", &format!("/v1/realtime/calls/{id}/hangup")).send().await.status.as_u16()
}

/// The sandbox's last call, once it has ended.
pub(super) async fn ended(sandbox: &Sandbox) -> SeenCall {
    until("the call's end", || sandbox.calls().pop().filter(|call| call.state == "ended")).await
}

/// The sandbox's last call, once it has ended and has been hung up. Which of the two goodbyes it heard
/// first, the connection's or that of the request, is chance.
pub(super) async fn hung_up(sandbox: &Sandbox) -> SeenCall {
    let call = ended(sandbox).await;
    assert!(matches!(call.ended, Some("hangup" | "peer")), "{:?}", call.ended);
    let path = format!("/v1/realtime/calls/{}/hangup", call.id);
    until("the hangup", || sandbox.requests().iter().any(|request| request.path == path).then_some(())).await;
    call
}

/// Hangs the sandbox's last call up, as the platform.
pub(super) async fn platform_hangs_up(sandbox: &Sandbox) {
    let id = sandbox.calls().pop().expect("a call").id;
    let target = format!("/v1/realtime/calls/{id}/hangup");
    assert_eq!(Ask::new(sandbox.addr(), CHANNEL_KEY, "POST", &target).send().await.status, 200);
}

/// Nothing is left of any call in the relay.
pub(super) async fn all_gone(app: &App) {
    app.metric_is("aiproxy_live_requests", 0.0).await;
    until("the sockets towards platforms to close", || (udp(app.process()) == 1).then_some(())).await;
}

/// UDP sockets of a process.
pub(super) fn udp(process: &Process) -> usize {
    let tables = ["udp", "udp6"].map(|name| {
        std::fs::read_to_string(format!("/proc/{}/net/{name}", process.pid())).unwrap_or_default()
    });
    let inodes: Vec<String> = tables
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(|line| Some(format!("socket:[{}]", line.split_ascii_whitespace().nth(9)?)))
        .collect();
    // One that is read by a thread of its own has two descriptors.
    let sockets: HashSet<PathBuf> = descriptors(process).into_iter().collect();
    sockets.iter().filter(|link| inodes.iter().any(|inode| link.as_os_str() == &**inode)).count()
}

/// What the descriptors of a process are.
pub(super) fn descriptors(process: &Process) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(format!("/proc/{}/fd", process.pid())).expect("a running program");
    folder.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect()
}

/// A caller on aiortc whose call goes on.
pub(super) struct Caller {
    process: Process,
    _work: TempDir,
    /// Our id of the call.
    pub(super) id: String,
}

impl Caller {
    /// Places a call and waits for the answer.
    pub(super) async fn place(url: &str, key: &str, arguments: &[&str]) -> Self {
        let work = tempfile::tempdir().expect("a temporary folder");
        let mut script = sdk::python("call.py");
        script.arg(url).args(["--key", key, "--tell"]).args(arguments).env("WORK_DIR", work.path());
        let process = Process::start(script);
        let line = |line: &str| serde_json::from_str::<Value>(line).ok();
        let told = process.printed("the answer to an offer", line).await;
        assert_eq!(told["answered"].as_u64().map(|status| status / 100), Some(2), "{told}");
        let id = told["location"]
            .as_str()
            .and_then(|place| place.rsplit('/').next())
            .unwrap_or_default()
            .to_owned();
        Self { process, _work: work, id }
    }

    /// One that waits for the other side's end, at the sandbox by now.
    pub(super) async fn connected(app: &App, arguments: &[&str]) -> Self {
        let before = app.sandbox().calls().len();
        let waits = ["--channel", "oai-events", "--seconds", "0.5", "--end", "stay"];
        let caller = Self::place(&url(app), PROXY_KEY, &[&waits[..], arguments].concat()).await;
        heard(app.sandbox(), before).await;
        caller
    }

    /// What it tells of its call, once that is over.
    pub(super) async fn report(self) -> Value {
        let status = self.process.ended_within(super::BOUND).await;
        let (stdout, stderr) = (self.process.stdout(), self.process.stderr());
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{stdout}\n{stderr}");
        serde_json::from_str(stdout.lines().last().unwrap_or_default()).expect("a report")
    }
}

/// Waits until the sandbox hears sound and messages in its call of this number.
pub(super) async fn heard(sandbox: &Sandbox, number: usize) {
    let heard = || sandbox.calls().into_iter().nth(number).filter(|it| it.packets_in > 5 && it.messages > 0);
    until("sound and messages at the platform", heard).await;
}

/// Sound came back as it went, of this frequency.
pub(super) fn sounds(report: &Value, hertz: f64) {
    let of = |name: &str| super::texts(&report[name]).len();
    assert!(of("sent") > 30 && of("received") * 10 > of("sent") * 7, "{} {}", of("sent"), of("received"));
    assert_eq!(report["strangers"], 0, "{report}");
    let heard = report["frequencies"][0].as_f64().unwrap_or_default();
    assert!((heard - hertz).abs() < 5.0, "{heard} Hz for {hertz} Hz");
}
