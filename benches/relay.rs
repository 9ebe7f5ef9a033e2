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

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use common::{PROXY_KEY, Subject, median, setting, single_threaded};

const CONNECTIONS: usize = 64;
const BODY: &str =
    r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"How long is a piece of string?"}]}"#;

fn main() -> io::Result<()> {
    if let Some(copied) = common::copies() {
        return copied;
    }
    let seconds = setting("AIPROXY_BENCH_SECONDS", 2);
    let rounds = setting("AIPROXY_BENCH_ROUNDS", 5);
    let upstream = start_upstream()?;
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

/// Reads one message with a content length; returns its head.
async fn read_message(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<String> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        let Some(end) = memchr::memmem::find(&buffer[..filled], b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let lower = head.to_ascii_lowercase();
        let length: usize = lower
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next()?.parse().ok())
            .unwrap_or(0);
        if filled >= end + 4 + length {
            return Ok(head);
        }
    }
}

/// A platform that answers every request at once; a thread of this process.
fn start_upstream() -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = single_threaded()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            let body = r#"{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Twice as long as half of it."},"finish_reason":"stop"}],"usage":{"prompt_tokens":14,"completion_tokens":9,"total_tokens":23}}"#;
            let answer: Arc<str> = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_1\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .into();
            loop {
                let (mut stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let mut buffer = vec![0; 16 * 1024];
                    while read_message(&mut stream, &mut buffer).await.is_ok() {
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            break;
                        }
                    }
                });
            }
            #[expect(unreachable_code, reason = "gives the block its type")]
            io::Result::Ok(())
        })
    });
    Ok(address)
}
