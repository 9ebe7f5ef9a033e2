//! How long callers wait between chunks when packets are lost: HTTP/3 beside HTTP/2.
//!
//! `cargo bench -p aiproxy --bench loss`. Callers and the relay are in two network namespaces; between them
//! is a line that loses 3 % of the packets of each direction and takes 50 ms each way. One caller reads 20
//! SSE streams at once, all on one connection, over HTTP/2 (TLS over TCP) and over HTTP/3, by turns: in
//! each round both meet a line with the same seed, so the n-th packet has the same fate. What is printed
//! are the gaps between two chunks of a stream as the caller reads them; a platform sends one every 20 ms.
//! A lost packet must be asked for again, so no protocol can keep the chunks in it from coming a round trip
//! late: with 3 % of them lost, that is where the 99th percentile cannot but be. How many others wait for
//! them shows in the lower ones, and in the share of its time that a stream stands still (in gaps longer
//! than three paces).
//!
//! Linux, as root or where users may make namespaces (`unshare --user --net`) and open `/dev/net/tun`;
//! elsewhere it says so and does nothing. `python3` carries the packets.
//! `AIPROXY_BENCH_ROUNDS` (5), `AIPROXY_BENCH_CHUNKS` (200, of each stream), `AIPROXY_BENCH_STREAMS` (20),
//! `AIPROXY_BENCH_PACE_MS` (20), `AIPROXY_BENCH_LOSS_PERCENT` (3), `AIPROXY_BENCH_DELAY_MS` (50, one way),
//! `AIPROXY_BENCH_KBIT` (0: no limit), `AIPROXY_BENCH_QUEUE` (10000 packets) and `AIPROXY_BENCH_SEED` (1, of
//! the first round) change what is measured; `AIPROXY_BENCH_AGAINST` names another build of the program,
//! which takes part with HTTP/3.

#![allow(clippy::print_stdout, reason = "printing is what a benchmark is for")]

mod caller;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aiproxy_sandbox::{Options, Sandbox};
use aiproxy_testkit::{Authority, BadLine, Carried, End, Impairment, NoLine, Process, run};
use serde_json::{Value, json};

use caller::{Protocol, Read, Wanted};

const PROXY_KEY: &str = "pk_bench_0123456789abcdefghij";
const CHANNEL_KEY: &str = "sk-bench-0123456789abcdefghij";
/// In a namespace of its own, any port is free.
const PORT: u16 = 8443;

/// What is measured.
struct Settings {
    rounds: u64,
    line: Impairment,
    wanted: Wanted,
}

/// Who answers, and how it is asked.
struct Subject {
    name: &'static str,
    protocol: Protocol,
    binary: PathBuf,
}

/// What was measured of one protocol.
#[derive(Default)]
struct Measured {
    /// Between two chunks of a stream, ms.
    gaps: Vec<f64>,
    /// The 99th percentile of each round, ms.
    p99: Vec<f64>,
    /// Shares of time in gaps longer than three paces, of each round.
    still: Vec<f64>,
    /// Streams that came to their end.
    whole: usize,
    carried: [Carried; 2],
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--platform"] => runtime.block_on(platform()),
        ["--caller", protocol, address, ca, wanted] => {
            runtime.block_on(caller::call(protocol, address, ca, wanted))
        }
        _ => runtime.block_on(compare()),
    }
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

async fn compare() -> io::Result<()> {
    let usual = Impairment::default();
    let settings = Settings {
        rounds: setting("AIPROXY_BENCH_ROUNDS", 5),
        line: Impairment {
            seed: setting("AIPROXY_BENCH_SEED", usual.seed),
            loss: setting("AIPROXY_BENCH_LOSS_PERCENT", usual.loss * 100.0) / 100.0,
            delay: Duration::from_millis(setting("AIPROXY_BENCH_DELAY_MS", 50)),
            kbit: setting("AIPROXY_BENCH_KBIT", usual.kbit),
            queue: setting("AIPROXY_BENCH_QUEUE", usual.queue),
        },
        wanted: Wanted {
            streams: setting("AIPROXY_BENCH_STREAMS", 20),
            chunks: setting("AIPROXY_BENCH_CHUNKS", 200),
            pace_ms: setting("AIPROXY_BENCH_PACE_MS", 20),
        },
    };
    let ours = PathBuf::from(env!("CARGO_BIN_EXE_aiproxy"));
    let mut subjects = vec![
        Subject { name: "HTTP/2", protocol: Protocol::Http2, binary: ours.clone() },
        Subject { name: "HTTP/3", protocol: Protocol::Http3, binary: ours },
    ];
    if let Some(other) = std::env::var_os("AIPROXY_BENCH_AGAINST") {
        subjects.push(Subject { name: "other/3", protocol: Protocol::Http3, binary: other.into() });
    }
    let mut results: Vec<_> = subjects.iter().map(|_| Measured::default()).collect();
    for round in 0..settings.rounds {
        for (subject, measured) in subjects.iter().zip(&mut results) {
            let seed = settings.line.seed + round;
            let line = match BadLine::lay(Impairment { seed, ..settings.line }) {
                Ok(line) => line,
                Err(NoLine::NotHere(reason)) => {
                    println!(
                        "skipped: this system does not let the benchmark make network namespaces and TUN \
                         devices ({reason}); root may"
                    );
                    return Ok(());
                }
                Err(NoLine::Failed(error)) => return Err(error),
            };
            let read = measure(&line, subject, settings.wanted).await?;
            measured.add(&read, &settings.wanted, line.cut()?);
        }
    }
    print(&settings, &subjects, &mut results);
    Ok(())
}

/// One caller over one line, with a relay and a platform of its own.
async fn measure(line: &BadLine, subject: &Subject, wanted: Wanted) -> io::Result<Read> {
    let folder = tempfile::tempdir()?;
    let own = std::env::current_exe()?;
    let mut command = line.at(End::Far, &own);
    command.arg("--platform");
    let platform = Process::start(command);
    let url = platform.printed("the platform listening", |line| Some(line.to_owned())).await;
    let address = SocketAddr::from((line.address(End::Far), PORT));
    let relay = Process::start(relay(line, &subject.binary, folder.path(), address, &url)?);
    relay.said("the relay listening", |line| line.contains(&address.to_string()).then_some(())).await;

    let mut command = line.at(End::Near, &own);
    command
        .args(["--caller", subject.protocol.name(), &address.to_string()])
        .arg(folder.path().join("ca.pem"))
        .arg(serde_json::to_string(&wanted.json())?);
    // Ten times as long as without loss: a protocol that cannot keep up shall show it.
    let pace = Duration::from_millis(wanted.pace_ms) * u32::try_from(wanted.chunks).unwrap_or(u32::MAX);
    let finished = run(command, pace * 10 + Duration::from_secs(30)).await;
    if finished.code != Some(0) {
        let said = format!("{}\n{}", finished.stderr, relay.stderr());
        return Err(io::Error::other(format!("{}: {said}", subject.name)));
    }
    let read: Value = serde_json::from_str(&finished.stdout)?;
    Ok(Read::from_json(&read))
}

/// The relay, at the far end of the line.
fn relay(
    line: &BadLine,
    binary: &Path,
    folder: &Path,
    address: SocketAddr,
    platform: &str,
) -> io::Result<Command> {
    let authority = Authority::default();
    let own = authority.issue(&["localhost"]);
    for (name, text) in [("ca.pem", authority.pem()), ("relay.pem", own.cert), ("relay.key", own.key)] {
        std::fs::write(folder.join(name), text)?;
    }
    let config = json!({
        "users": {"bench": {"name": "bench", "proxy_key": PROXY_KEY, "channels": ["mock"]}},
        "channels": {"mock": {"platform": "custom", "base_url": platform, "api_key": CHANNEL_KEY}},
        "system": {
            "listen": {"http": "off", "https": address.to_string(), "admin": "off"},
            "tls": {"cert": "relay.pem", "key": "relay.key"},
            "workers": 1,
            "log": {"format": "json", "access": "off"},
            "data_dir": "data",
        },
    });
    let file = folder.join("aiproxy.yaml");
    std::fs::write(&file, config.to_string())?;
    let mut command = line.at(End::Far, binary);
    command.arg("serve").arg("--config").arg(file).current_dir(folder);
    Ok(command)
}

/// The platform, beside the relay.
async fn platform() -> io::Result<()> {
    let options = Options { api_key: CHANNEL_KEY.to_owned(), ..Options::default() };
    let sandbox = Sandbox::start(options).await?;
    println!("{}", sandbox.base_url());
    std::future::pending().await
}

impl Measured {
    fn add(&mut self, read: &Read, wanted: &Wanted, carried: [Carried; 2]) {
        let mut gaps: Vec<f64> = read.gaps().collect();
        let long = wanted.pace_ms as f64 * 3.0;
        self.still.push(gaps.iter().filter(|gap| **gap > long).sum::<f64>() / gaps.iter().sum::<f64>());
        self.p99.push(percentile(&mut gaps, 0.99));
        self.gaps.append(&mut gaps);
        self.whole += read.whole;
        for (sum, carried) in self.carried.iter_mut().zip(carried) {
            sum.passed += carried.passed;
            sum.bytes += carried.bytes;
            sum.lost += carried.lost;
            sum.refused += carried.refused;
        }
    }
}

/// `values` are in order afterwards.
fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

fn print(settings: &Settings, subjects: &[Subject], results: &mut [Measured]) {
    let Settings { rounds, line, wanted } = settings;
    println!(
        "{} SSE streams on one connection, {} chunks of each, one every {} ms; {} % of packets lost, round trip {} ms",
        wanted.streams,
        wanted.chunks,
        wanted.pace_ms,
        line.loss * 100.0,
        line.delay.as_millis() * 2
    );
    println!(
        "{rounds} rounds, interleaved, seeds from {}; gaps between two chunks of a stream, ms",
        line.seed
    );
    println!(
        "{:<8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>18}{:>8}{:>14}{:>12}{:>8}",
        "", "p50", "p90", "p99", "p99.9", "max", "p99 by round", "still", "whole", "to caller", "lost"
    );
    for (subject, measured) in subjects.iter().zip(results.iter_mut()) {
        let [p50, p90, p99, p999, max] =
            [0.5, 0.9, 0.99, 0.999, 1.0].map(|share| percentile(&mut measured.gaps, share));
        let spread = [0.0, 1.0].map(|share| percentile(&mut measured.p99, share));
        let still = percentile(&mut measured.still, 0.5) * 100.0;
        let [_, back] = measured.carried;
        println!(
            "{:<8}{p50:>8.1}{p90:>8.1}{p99:>8.1}{p999:>8.1}{max:>8.1}{:>18}{:>8}{:>14}{:>12}{:>8}",
            subject.name,
            format!("{:.0} to {:.0}", spread[0], spread[1]),
            format!("{still:.0} %"),
            format!("{} of {}", measured.whole, wanted.streams as u64 * rounds),
            back.passed + back.lost,
            back.lost,
        );
        let refused: u64 = measured.carried.iter().map(|direction| direction.refused).sum();
        if refused > 0 {
            println!("  {refused} packets found no room, on the line or before it");
        }
    }
    if let [one, other, ..] = results {
        let ratio = percentile(&mut other.gaps, 0.99) / percentile(&mut one.gaps, 0.99);
        println!("p99 of {} to that of {}: {ratio:.2}", subjects[1].name, subjects[0].name);
    }
}
