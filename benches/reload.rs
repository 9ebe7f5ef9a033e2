//! What a reload of many users costs, and whether requests keep flowing meanwhile.
//!
//! `cargo bench --bench reload`. Prints the time to read and check the file, to compare two
//! snapshots, and, of the running program, the time from the write to the log line that says that it
//! was applied, beside the longest gap between two answers in that time and in quiet.
//! `AIPROXY_BENCH_USERS` (10000) sets the number of users.

#![allow(clippy::print_stdout, reason = "printing is what a benchmark is for")]
#![allow(clippy::disallowed_methods, reason = "the main thread sleeps while others work")]

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use aiproxy_config::{diff, load_file};

const ROUNDS: usize = 5;

fn main() -> io::Result<()> {
    let users =
        std::env::var("AIPROXY_BENCH_USERS").ok().and_then(|value| value.parse().ok()).unwrap_or(10_000);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("aiproxy.yaml");
    let upstream = start_upstream()?;
    println!("{users} users, {ROUNDS} rounds, medians");

    write(&file, users, 0, upstream)?;
    let (mut loads, mut diffs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let old = load_file(&file).map_err(io::Error::other)?.snapshot;
        loads.push(began.elapsed());
        let new = load_file(&file).map_err(io::Error::other)?.snapshot;
        let began = Instant::now();
        assert!(diff(&old, &new).is_empty());
        diffs.push(began.elapsed());
    }
    println!("read and check the file      {:>8.1} ms", median(loads));
    println!("compare two snapshots        {:>8.1} ms", median(diffs));

    let mut relay = Command::new(env!("CARGO_BIN_EXE_aiproxy"))
        .args(["serve", "--config"])
        .arg(&file)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let outcome = running(&mut relay, &file, users, upstream);
    relay.kill()?;
    relay.wait()?;
    outcome
}

fn running(
    relay: &mut std::process::Child,
    file: &Path,
    users: usize,
    upstream: SocketAddr,
) -> io::Result<()> {
    let stderr = relay.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (said, lines) = mpsc::sync_channel(1024);
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let _ = said.send((Instant::now(), line));
        }
    });
    let address = loop {
        let (_, line) = lines.recv_timeout(Duration::from_secs(30)).map_err(io::Error::other)?;
        let address =
            line.split("\"address\":\"").nth(1).and_then(|rest| rest.split('"').next()?.parse().ok());
        if let Some(address) = address {
            break address;
        }
    };
    let longest = Arc::new(Mutex::new(Duration::ZERO));
    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (longest, stop) = (Arc::clone(&longest), Arc::clone(&stop));
        std::thread::spawn(move || load(address, &longest, &stop))
    };
    let take = || std::mem::take(&mut *longest.lock().unwrap_or_else(PoisonError::into_inner));
    let (mut applied, mut gaps, mut quiet) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        std::thread::sleep(Duration::from_millis(500));
        quiet.push(take());
        let began = Instant::now();
        write(file, users, round, upstream)?;
        loop {
            let (at, line) = lines.recv_timeout(Duration::from_secs(60)).map_err(io::Error::other)?;
            if line.contains("configuration reloaded") {
                applied.push(at.duration_since(began));
                break;
            }
        }
        gaps.push(take());
    }
    stop.store(true, Ordering::Relaxed);
    let answered = load.join().map_err(|_| io::Error::other("the load generator panicked"))??;
    println!("from the write to applied    {:>8.1} ms", median(applied));
    println!("longest gap between answers  {:>8.1} ms ({:.1} ms in quiet)", median(gaps), median(quiet));
    println!("{answered} requests, all answered");
    Ok(())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

/// Each version differs in one user.
fn write(file: &Path, users: usize, version: usize, upstream: SocketAddr) -> io::Result<()> {
    let mut text = String::from("users:\n");
    for user in 0..users {
        let department = if user == 0 { version } else { 0 };
        let _ = writeln!(
            text,
            "  user{user}: {{name: 用户{user}, department: \"{department}\", proxy_key: pk_bench_{user:016}, channels: [mock]}}"
        );
    }
    let _ = write!(
        text,
        "channels:\n  mock: {{platform: custom, base_url: \"http://{upstream}\", api_key: sk-bench-0123456789}}\n\
         system:\n  listen: {{http: \"127.0.0.1:0\", admin: \"off\"}}\n  log: {{access: \"off\", format: json}}\n"
    );
    let fresh = file.with_extension("new");
    fs::write(&fresh, text)?;
    fs::rename(fresh, file)
}

/// One request after the other; returns how many were answered.
fn load(address: SocketAddr, longest: &Mutex<Duration>, stop: &AtomicBool) -> io::Result<u64> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /v1/models/m HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer pk_bench_{:016}\r\n\r\n",
        7
    );
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        stream.write_all(request.as_bytes())?;
        let head = read_head(&mut stream)?;
        if !head.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(head));
        }
        count += 1;
        let mut longest = longest.lock().unwrap_or_else(PoisonError::into_inner);
        *longest = (*longest).max(began.elapsed());
    }
    Ok(count)
}

/// Reads a head whose message has no body.
fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => head.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn start_upstream() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                while read_head(&mut stream).is_ok() {
                    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                        break;
                    }
                }
            });
        }
    });
    Ok(address)
}
