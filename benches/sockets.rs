//! CPU per WebSocket message of the relay, beside the least that any relay must spend.
//!
//! `cargo bench --bench sockets`. In one run, interleaved: a bare TCP copy (`copy`), and the relay with
//! its journal, both with messages of 1 KiB and of 16 KiB that a platform sends back. The messages are
//! JSON, as realtime events are: the relay reads each of the platform's for usage, and gives each of the
//! caller's a fresh mask, since the platform is reached in the clear. One worker thread each; a message
//! there and back counts as one. `AIPROXY_BENCH_SECONDS` (2) and `AIPROXY_BENCH_ROUNDS` (5) set its
//! length.

#![allow(clippy::print_stdout, reason = "printing is what a benchmark is for")]
#![allow(clippy::disallowed_methods, reason = "the main thread sleeps while others work")]

mod common;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aiproxy_core::websocket;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use common::{PROXY_KEY, Subject, median, setting, single_threaded};

const CONNECTIONS: usize = 100;
/// Bytes of a message's payload.
const SIZES: [usize; 2] = [1024, 16 * 1024];
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn main() -> io::Result<()> {
    if let Some(copied) = common::copies() {
        return copied;
    }
    let seconds = setting("AIPROXY_BENCH_SECONDS", 2);
    let rounds = setting("AIPROXY_BENCH_ROUNDS", 5);
    let upstream = start_upstream()?;
    let folder = tempfile::tempdir()?;
    let ours = Path::new(env!("CARGO_BIN_EXE_aiproxy"));
    let journal = "  journal: {enabled: true}\n";
    let subjects =
        [Subject::copy(upstream)?, Subject::relay("relay", ours, (journal, "off"), upstream, folder.path())?];
    println!("messages there and back, {CONNECTIONS} sockets, {rounds} rounds of {seconds} s, medians");
    println!("{:<24}{:>12}{:>18}{:>8}", "", "messages/s", "CPU s per 10,000", "ratio");
    for size in SIZES {
        let mut results = vec![Vec::new(); subjects.len()];
        for round in 0..=rounds {
            for (subject, results) in subjects.iter().zip(&mut results) {
                let load =
                    move |address, done: &Arc<_>, stop: &Arc<_>| load(address, &message(size), done, stop);
                let outcome = subject.measure(Duration::from_secs(seconds), load)?;
                // The first round warms up.
                if round > 0 {
                    results.push(outcome);
                }
            }
        }
        let base = median(results[0].iter().map(|outcome| outcome.cpu_per_10k));
        for (subject, results) in subjects.iter().zip(&results) {
            let rate = median(results.iter().map(|outcome| outcome.rate));
            let cpu = median(results.iter().map(|outcome| outcome.cpu_per_10k));
            let name = format!("{}, {} KiB", subject.name, size / 1024);
            println!("{name:<24}{rate:>12.0}{cpu:>18.3}{:>8.2}", cpu / base);
        }
    }
    Ok(())
}

/// An event with so many bytes of sound.
fn message(size: usize) -> String {
    let event = r#"{"type":"response.output_audio.delta","event_id":"event_1","delta":""}"#;
    let (begin, end) = event.split_at(event.len() - 2);
    format!("{begin}{}{end}", "A".repeat(size - event.len()))
}

/// The message in one frame of a text.
fn frame(message: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit = u8::from(mask.is_some()) << 7;
    let mut frame = vec![0x81, bit | 126];
    frame.extend_from_slice(&u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes());
    frame.extend_from_slice(mask.as_ref().map_or(&[], |mask| &mask[..]));
    let mask = mask.unwrap_or_default();
    frame.extend(message.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    frame
}

/// Closed loop: each socket sends the next message when the last one has come back.
fn load(address: SocketAddr, message: &str, done: &Arc<AtomicU64>, stop: &Arc<AtomicBool>) -> io::Result<()> {
    let handshake = format!(
        "GET /v1/realtime?model=gpt-realtime HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {PROXY_KEY}\r\n\
         connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let there: Arc<[u8]> = frame(message.as_bytes(), Some(MASK)).into();
    let back = frame(message.as_bytes(), None).len();
    single_threaded()?.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (done, stop, handshake) = (Arc::clone(done), Arc::clone(stop), handshake.clone());
            let there = Arc::clone(&there);
            tasks.spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                stream.write_all(handshake.as_bytes()).await?;
                let head = read_head(&mut stream).await?;
                if !head.starts_with("HTTP/1.1 101") {
                    return Err(io::Error::other(format!("unexpected answer: {head}")));
                }
                let mut buffer = vec![0; back];
                while !stop.load(Ordering::Relaxed) {
                    stream.write_all(&there).await?;
                    stream.read_exact(&mut buffer).await?;
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

/// Reads a head, byte by byte: what follows is somebody else's.
async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A platform that sends every message back; a thread of this process.
fn start_upstream() -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = single_threaded()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(echo(stream));
            }
            #[expect(unreachable_code, reason = "gives the block its type")]
            io::Result::Ok(())
        })
    });
    Ok(address)
}

/// One socket: all its messages are of one length.
async fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let head = read_head(&mut stream).await?;
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("sec-websocket-key:"));
    let key = line.and_then(|line| line.split_once(':')).map_or("", |(_, key)| key.trim());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {}\r\n\r\n",
        websocket::accept(key)
    );
    stream.write_all(answer.as_bytes()).await?;
    let mut back = Vec::new();
    let mut payload = Vec::new();
    loop {
        let mut header = [0; 8];
        stream.read_exact(&mut header).await?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        payload.resize(length, 0);
        stream.read_exact(&mut payload).await?;
        if back.is_empty() {
            let mask = [header[4], header[5], header[6], header[7]];
            let said: Vec<u8> = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
            back = frame(&said, None);
        }
        stream.write_all(&back).await?;
    }
}
