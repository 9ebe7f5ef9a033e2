//! CPU per request of HTTP/3: beside the relay's other doors, and of two ways to use several threads.
//!
//! `cargo bench -p aiproxy --bench quic`. Two tables, each of one interleaved run, of small JSON requests:
//!
//! - *doors*: one relay with one worker, asked over HTTP/1.1, HTTP/2 and HTTP/3, all with TLS and with 64
//!   requests under way;
//! - *endpoints*: no relay, only `crates/quic` answering at once on two threads, over many connections:
//!   an endpoint with a socket of its own for each thread (what the relay does), against one endpoint and
//!   socket from which both threads take connections.
//!
//! The load comes from other QUIC and HTTP/3 code than `crates/quic`'s own framing (`h3`), on one thread.
//! `AIPROXY_BENCH_SECONDS` (2), `AIPROXY_BENCH_ROUNDS` (5) and `AIPROXY_BENCH_CONNECTIONS` (64, of the
//! second table) set its length and size; `AIPROXY_BENCH_AGAINST` names another build of the program,
//! which takes part in the first table.

#![allow(clippy::print_stdout, reason = "printing is what a benchmark is for")]
#![allow(clippy::disallowed_methods, reason = "the main thread sleeps while others work")]

mod bare;
#[path = "../common/mod.rs"]
mod common;
mod load;
#[path = "../common/upstream.rs"]
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use aiproxy_testkit::Authority;

use common::{CHANNEL_KEY, Outcome, PROXY_KEY, Subject, median, setting};
use load::{Door, Shape};

/// Of the first table: as many requests under way, however many connections they share.
const DOORS: [(Door, Shape); 3] = [
    (Door::Http1, Shape { connections: 64, streams: 1 }),
    (Door::Http2, Shape { connections: 8, streams: 8 }),
    (Door::Http3, Shape { connections: 8, streams: 8 }),
];

struct Length {
    time: Duration,
    rounds: u64,
}

/// A row of a table: a program, and how it is asked.
struct Row<'a> {
    name: String,
    subject: &'a Subject,
    door: Door,
    shape: Shape,
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, folder] = &arguments[..]
        && let Some(mode) = bare::Mode::from_argument(mode)
    {
        return bare::serve(mode, Path::new(folder));
    }
    let length = Length {
        time: Duration::from_secs(setting("AIPROXY_BENCH_SECONDS", 2)),
        rounds: setting("AIPROXY_BENCH_ROUNDS", 5),
    };
    let folder = tempfile::tempdir()?;
    let authority = Authority::default();
    let own = authority.issue(&["localhost"]);
    for (name, text) in [("relay.pem", own.cert), ("relay.key", own.key)] {
        std::fs::write(folder.path().join(name), text)?;
    }
    doors(&length, folder.path(), &authority.pem())?;
    endpoints(&length, folder.path(), &authority.pem())
}

fn doors(length: &Length, folder: &Path, ca: &str) -> io::Result<()> {
    let upstream = upstream::start()?;
    let ours = Path::new(env!("CARGO_BIN_EXE_aiproxy"));
    let mut subjects = vec![relay("relay", ours, upstream, folder)?];
    if let Some(other) = std::env::var_os("AIPROXY_BENCH_AGAINST") {
        subjects.push(relay("other", Path::new(&other), upstream, folder)?);
    }
    let rows: Vec<_> = subjects
        .iter()
        .flat_map(|subject| {
            DOORS.map(|(door, shape)| Row {
                name: format!("{}, {}", subject.name, door.title()),
                subject,
                door,
                shape,
            })
        })
        .collect();
    println!("doors: 64 requests under way, {} rounds of {:?}, medians", length.rounds, length.time);
    compare(&rows, length, ca)
}

fn endpoints(length: &Length, folder: &Path, ca: &str) -> io::Result<()> {
    let connections = usize::try_from(setting("AIPROXY_BENCH_CONNECTIONS", 64)).unwrap_or(64);
    let shape = Shape { connections, streams: 2 };
    let modes = [bare::Mode::Each, bare::Mode::Shared];
    let subjects: Vec<_> = modes.iter().map(|mode| bare_server(*mode, folder)).collect::<io::Result<_>>()?;
    let rows: Vec<_> = subjects
        .iter()
        .map(|subject| Row { name: subject.name.to_owned(), subject, door: Door::Http3, shape })
        .collect();
    println!(
        "\nendpoints: {} threads, {connections} connections of {} requests, {} rounds of {:?}, medians",
        bare::THREADS,
        shape.streams,
        length.rounds,
        length.time
    );
    compare(&rows, length, ca)
}

/// Puts all under load by turns; the ratio is to the first.
fn compare(rows: &[Row<'_>], length: &Length, ca: &str) -> io::Result<()> {
    let mut results: Vec<Vec<Outcome>> = vec![Vec::new(); rows.len()];
    for round in 0..=length.rounds {
        for (row, results) in rows.iter().zip(&mut results) {
            let (door, shape, ca) = (row.door, row.shape, ca.to_owned());
            let load = move |address, done: &_, stop: &_| load::run(door, shape, address, &ca, done, stop);
            let outcome = row.subject.measure(length.time, load)?;
            // The first round warms up.
            if round > 0 {
                results.push(outcome);
            }
        }
    }
    println!("{:<32}{:>12}{:>18}{:>8}", "", "requests/s", "CPU s per 10,000", "ratio");
    let base = median(results[0].iter().map(|outcome| outcome.cpu_per_10k));
    for (row, results) in rows.iter().zip(&results) {
        let rate = median(results.iter().map(|outcome| outcome.rate));
        let cpu = median(results.iter().map(|outcome| outcome.cpu_per_10k));
        println!("{:<32}{rate:>12.0}{cpu:>18.3}{:>8.2}", row.name, cpu / base);
    }
    Ok(())
}

/// A relay with one worker, and every door on one port.
fn relay(name: &'static str, binary: &Path, upstream: SocketAddr, folder: &Path) -> io::Result<Subject> {
    let file = folder.join(format!("{name}.yaml"));
    std::fs::write(
        &file,
        format!(
            "users:\n  bench: {{name: bench, proxy_key: {PROXY_KEY}, channels: [mock]}}\n\
             channels:\n  mock: {{platform: custom, base_url: \"http://{upstream}\", api_key: {CHANNEL_KEY}}}\n\
             system:\n  listen: {{http: \"off\", https: \"127.0.0.1:0\", admin: \"off\"}}\n  \
             tls: {{cert: relay.pem, key: relay.key}}\n  workers: 1\n  log: {{access: \"off\", format: json}}\n  data_dir: {name}\n"
        ),
    )?;
    let mut command = Command::new(binary);
    let process = command.arg("serve").arg("--config").arg(file).stderr(Stdio::piped()).spawn()?;
    Subject::started(name, process, false)
}

fn bare_server(mode: bare::Mode, folder: &Path) -> io::Result<Subject> {
    let mut command = Command::new(std::env::current_exe()?);
    let process = command.arg(mode.argument()).arg(folder).stdout(Stdio::piped()).spawn()?;
    Subject::started(mode.title(), process, true)
}
