//! CPU per request of the relay, beside the least that any relay must spend.
//!
//! `cargo bench --bench relay`. In one run, interleaved: a bare TCP copy (`copy`), and the relay
//! with the usage journal off and on, with the access log off and on. Small JSON requests over keep-alive connections, one
//! worker thread each. The figure that counts is the ratio: absolute times are the machine's.
//! The upstream does not check the key: what is measured is the work, the tests check that it is done.
//! `AIPROXY_BENCH_SECONDS` (2) and `AIPROXY_BENCH_ROUNDS` (5) set its length; `AIPROXY_BENCH_AGAINST`
//! names another build of the program, which takes part without access log and with the defaults of
//! everything else.

#![allow(clippy::print_stdout, reason = "printing is what a benchmark is for")]
#![allow(clippy::disallowed_methods, reason = "the main thread sleeps while others work")]

mod common;
#[path = "common/upstream.rs"]
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use common::{PROXY_KEY, Subject, median, setting, single_threaded};
use upstream::{BODY, read_message};

const CONNECTIONS: usize = 64;

fn main() -> io::Result<()> {
    if let Some(copied) = common::copies() {
        return copied;
    }
    let seconds = setting("AIPROXY_BENCH_SECONDS", 2);
    let rounds = setting("AIPROXY_BENCH_ROUNDS", 5);
    let upstream = upstream::start()?;
    let folder = tempfile::tempdir()?;
    let ours = Path::new(env!("CARGO_BIN_EXE_aiproxy"));
    let (off, on) = ("  journal: {enabled: false}\n", "  journal: {enabled: true}\n");
    let relay = |name, binary, journal, access| {
        Subject::relay(name, binary, (journal, access), upstream, folder.path())
    };
    let mut subjects = vec![
        Subject::copy(upstream)?,
        relay("relay, no records", ours, off, "off")?,
        relay("relay, log", ours, off, "log.log")?,
        relay("relay, journal", ours, on, "off")?,
        relay("relay, journal and log", ours, on, "both.log")?,
    ];
    if let Some(other) = std::env::var_os("AIPROXY_BENCH_AGAINST") {
        subjects.push(relay("the other build", Path::new(&other), "", "off")?);
    }
    let mut results = vec![Vec::new(); subjects.len()];
    for round in 0..=rounds {
        for (subject, results) in subjects.iter().zip(&mut results) {
            let outcome = subject.measure(Duration::from_secs(seconds), load)?;
            // The first round warms up.
            if round > 0 {
                results.push(outcome);
            }
        }
    }
    println!(
        "small JSON, HTTP/1.1 keep-alive, {CONNECTIONS} connections, {rounds} rounds of {seconds} s, medians"
    );
    println!("{:<24}{:>12}{:>18}{:>8}", "", "requests/s", "CPU s per 10,000", "ratio");
    let base = median(results[0].iter().map(|outcome| outcome.cpu_per_10k));
    for (subject, results) in subjects.iter().zip(&results) {
        let rate = median(results.iter().map(|outcome| outcome.rate));
        let cpu = median(results.iter().map(|outcome| outcome.cpu_per_10k));
        println!("{:<24}{rate:>12.0}{cpu:>18.3}{:>8.2}", subject.name, cpu / base);
    }
    Ok(())
}

/// Closed loop: each connection sends the next request when it has the answer.
fn load(address: SocketAddr, done: &Arc<AtomicU64>, stop: &Arc<AtomicBool>) -> io::Result<()> {
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {PROXY_KEY}\r\n\
         accept: application/json\r\nuser-agent: bench/1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    single_threaded()?.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (done, stop, request) = (Arc::clone(done), Arc::clone(stop), request.clone());
            tasks.spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let mut buffer = vec![0; 16 * 1024];
                while !stop.load(Ordering::Relaxed) {
                    stream.write_all(request.as_bytes()).await?;
                    let status = read_message(&mut stream, &mut buffer).await?;
                    if !status.starts_with("HTTP/1.1 200") {
                        return Err(io::Error::other(format!("unexpected answer: {status}")));
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        while let Some(outcome) = tasks.join_next().await {
            outcome.map_err(io::Error::other)??;
        }
        Ok(())
    })
}
