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

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

const CONNECTIONS: usize = 64;
const PROXY_KEY: &str = "pk_bench_0123456789abcdefghij";
const CHANNEL_KEY: &str = "sk-bench-0123456789abcdefghij";
const BODY: &str =
    r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"How long is a piece of string?"}]}"#;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, upstream] = &arguments[..]
        && mode == "--copy"
    {
        return copy(upstream);
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
            let outcome = subject.measure(Duration::from_secs(seconds))?;
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

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A program under load.
struct Subject {
    name: &'static str,
    address: SocketAddr,
    process: Child,
}

#[derive(Clone)]
struct Outcome {
    rate: f64,
    cpu_per_10k: f64,
}

impl Subject {
    fn copy(upstream: SocketAddr) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let process = command.args(["--copy", &upstream.to_string()]).stdout(Stdio::piped()).spawn()?;
        Self::started("copy", process, true)
    }

    fn relay(
        name: &'static str,
        binary: &Path,
        (journal, access): (&str, &str),
        upstream: SocketAddr,
        folder: &Path,
    ) -> io::Result<Self> {
        let own = name.replace([' ', ','], "-");
        let file = folder.join(format!("{own}.yaml"));
        std::fs::write(
            &file,
            format!(
                "users:\n  bench: {{name: bench, proxy_key: {PROXY_KEY}, channels: [mock]}}\n\
                 channels:\n  mock: {{platform: custom, base_url: \"http://{upstream}\", api_key: {CHANNEL_KEY}}}\n\
                 system:\n  listen: {{http: \"127.0.0.1:0\", admin: \"off\"}}\n  workers: 1\n  log: {{access: \"{access}\", format: json}}\n  data_dir: {own}\n{journal}"
            ),
        )?;
        let mut command = Command::new(binary);
        let process = command.arg("serve").arg("--config").arg(file).stderr(Stdio::piped()).spawn()?;
        Self::started(name, process, false)
    }

    /// Reads lines until one says where the program listens.
    fn started(name: &'static str, mut process: Child, on_stdout: bool) -> io::Result<Self> {
        let output: Box<dyn io::Read> = if on_stdout {
            process.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn io::Read>)
        } else {
            process.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn io::Read>)
        }
        .ok_or(io::ErrorKind::BrokenPipe)?;
        for line in BufReader::new(output).lines() {
            let line = line?;
            if let Some(address) =
                line.split("http://").nth(1).and_then(|rest| rest.split(['"', ' ']).next()?.parse().ok())
            {
                return Ok(Self { name, address, process });
            }
        }
        Err(io::Error::other(format!("{name} did not start")))
    }

    fn measure(&self, time: Duration) -> io::Result<Outcome> {
        let done = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let load = {
            let (done, stop, address) = (Arc::clone(&done), Arc::clone(&stop), self.address);
            std::thread::spawn(move || load(address, &done, &stop))
        };
        std::thread::sleep(time / 4);
        let (cpu, count, began) =
            (cpu_time(self.process.id())?, done.load(Ordering::Relaxed), Instant::now());
        std::thread::sleep(time);
        let cpu = cpu_time(self.process.id())?.saturating_sub(cpu);
        let requests = (done.load(Ordering::Relaxed) - count) as f64;
        let elapsed = began.elapsed();
        stop.store(true, Ordering::Relaxed);
        load.join().map_err(|_| io::Error::other("the load generator panicked"))??;
        Ok(Outcome {
            rate: requests / elapsed.as_secs_f64(),
            cpu_per_10k: cpu.as_secs_f64() / requests * 10_000.0,
        })
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// CPU time of all threads, from the scheduler's own account (nanoseconds).
fn cpu_time(process: u32) -> io::Result<Duration> {
    let mut total = 0;
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(total))
}

fn single_threaded() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
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

/// The least that a relay must do: bytes in, bytes out.
fn copy(upstream: &str) -> io::Result<()> {
    let upstream: SocketAddr = upstream.parse().map_err(io::Error::other)?;
    single_threaded()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("http://{}", listener.local_addr()?);
        loop {
            let (mut caller, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut platform = TcpStream::connect(upstream).await?;
                caller.set_nodelay(true)?;
                platform.set_nodelay(true)?;
                copy_bidirectional(&mut caller, &mut platform).await
            });
        }
    })
}
