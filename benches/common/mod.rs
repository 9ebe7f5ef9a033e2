//! What the benchmarks share: programs under load, and what they cost.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

pub(crate) const PROXY_KEY: &str = "pk_bench_0123456789abcdefghij";
pub(crate) const CHANNEL_KEY: &str = "sk-bench-0123456789abcdefghij";

pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A program under load.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    process: Child,
}

#[derive(Clone)]
pub(crate) struct Outcome {
    pub(crate) rate: f64,
    pub(crate) cpu_per_10k: f64,
}

impl Subject {
    pub(crate) fn copy(upstream: SocketAddr) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let process = command.args(["--copy", &upstream.to_string()]).stdout(Stdio::piped()).spawn()?;
        Self::started("copy", process, true)
    }

    pub(crate) fn relay(
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

    /// Reads lines until one says where the program listens: `http://` or `https://`, and an address.
    pub(crate) fn started(name: &'static str, mut process: Child, on_stdout: bool) -> io::Result<Self> {
        let output: Box<dyn io::Read> = if on_stdout {
            process.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn io::Read>)
        } else {
            process.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn io::Read>)
        }
        .ok_or(io::ErrorKind::BrokenPipe)?;
        for line in BufReader::new(output).lines() {
            let line = line?;
            if let Some(address) =
                line.split("://").nth(1).and_then(|rest| rest.split(['"', ' ']).next()?.parse().ok())
            {
                return Ok(Self { name, address, process });
            }
        }
        Err(io::Error::other(format!("{name} did not start")))
    }

    /// Puts it under load; what it did in `time`, and what that took.
    pub(crate) fn measure(
        &self,
        time: Duration,
        load: impl FnOnce(SocketAddr, &Arc<AtomicU64>, &Arc<AtomicBool>) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Outcome> {
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

pub(crate) fn single_threaded() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Where this process is the bare copy that a benchmark compares with: what became of it.
pub(crate) fn copies() -> Option<io::Result<()>> {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[..] {
        [_, mode, upstream] if mode == "--copy" => Some(copy(upstream)),
        _ => None,
    }
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
