//! Programs and what they print.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::wait::{BOUND, within};

/// A running program. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    stdout: Captured,
    stderr: Captured,
    ended: Arc<Ended>,
}

#[derive(Debug, Default)]
struct Ended {
    status: Mutex<Option<ExitStatus>>,
    changed: Condvar,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a program to its end.
///
/// # Panics
/// When it cannot be started, or does not end within `bound`.
pub async fn run(command: Command, bound: Duration) -> Finished {
    let process = Process::start(command);
    match process.ended_within(bound).await {
        Some(status) => process.finished(status),
        None => panic!("still running after {bound:?}\n{}{}", process.stdout(), process.stderr()),
    }
}

impl Process {
    /// Starts a program and reads what it prints.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (out, stdout) = Captured::of(child.stdout.take());
        let (err, stderr) = Captured::of(child.stderr.take());
        let ended = Arc::new(Ended::default());
        let pid = child.id();
        let theirs = Arc::clone(&ended);
        thread("waits for a program", move || theirs.wait_for(child, [out, err]));
        Self { pid, stdout, stderr, ended }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has printed so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.0.borrow()).into_owned()
    }

    /// What it has said on standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.0.borrow()).into_owned()
    }

    /// The first line of standard output in which `find` finds something.
    ///
    /// # Panics
    /// After [`BOUND`], or when the program ends before.
    pub async fn printed<T>(&self, what: &str, find: impl FnMut(&str) -> Option<T>) -> T {
        self.line(&self.stdout, what, find).await
    }

    /// The first line of standard error in which `find` finds something.
    ///
    /// # Panics
    /// After [`BOUND`], or when the program ends before.
    pub async fn said<T>(&self, what: &str, find: impl FnMut(&str) -> Option<T>) -> T {
        self.line(&self.stderr, what, find).await
    }

    async fn line<T>(&self, from: &Captured, what: &str, mut find: impl FnMut(&str) -> Option<T>) -> T {
        let mut bytes = from.0.clone();
        let mut at = 0;
        let reading = async {
            loop {
                let fresh = bytes.borrow_and_update()[at..].to_vec();
                for line in fresh.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"))
                {
                    at += line.len();
                    if let Some(found) = find(String::from_utf8_lossy(line).trim_end()) {
                        return found;
                    }
                }
                if bytes.changed().await.is_err() {
                    panic!("the program ended before {what}\n{}{}", self.stdout(), self.stderr());
                }
            }
        };
        within(what, reading).await
    }

    /// Sends a signal by its name (`TERM`, `INT`, `HUP`, `KILL`), unless the program has ended.
    pub fn signal(&self, name: &str) {
        if self.ended.status().is_none() {
            // The standard library can only kill, and calling libc would be unsafe code.
            let kill = format!("kill -{name} {}", self.pid);
            let _ = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
        }
    }

    /// Waits for its end; `None` after `bound`.
    pub async fn ended_within(&self, bound: Duration) -> Option<ExitStatus> {
        let ended = Arc::clone(&self.ended);
        spawn_blocking(move || ended.wait(bound)).await.ok().flatten()
    }

    /// Waits for its end and takes what it printed.
    ///
    /// # Panics
    /// After [`BOUND`].
    pub async fn end(self) -> Finished {
        match self.ended_within(BOUND).await {
            Some(status) => self.finished(status),
            None => panic!("still running after {BOUND:?}\n{}{}", self.stdout(), self.stderr()),
        }
    }

    /// As [`Process::ended_within`], for threads that may block.
    pub(crate) fn block_until_ended(&self, bound: Duration) -> Option<ExitStatus> {
        self.ended.wait(bound)
    }

    /// Bytes of memory that the program holds at the moment: resident and its own, without the
    /// pages of its code.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("a running program");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
        line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
    }

    fn finished(&self, status: ExitStatus) -> Finished {
        Finished { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal("KILL");
    }
}

impl Ended {
    /// Waits for the child and for the ends of its pipes, so that nothing printed is missing
    /// once the end is known.
    fn wait_for(&self, mut child: Child, pipes: [std::thread::JoinHandle<()>; 2]) {
        let status = child.wait().expect("a child of ours");
        for pipe in pipes {
            let _ = pipe.join();
        }
        *lock(&self.status) = Some(status);
        self.changed.notify_all();
    }

    fn status(&self) -> Option<ExitStatus> {
        *lock(&self.status)
    }

    fn wait(&self, bound: Duration) -> Option<ExitStatus> {
        let status = lock(&self.status);
        let waited = self.changed.wait_timeout_while(status, bound, |status| status.is_none());
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What came out of a pipe; the sender goes with the pipe's end.
#[derive(Debug)]
struct Captured(watch::Receiver<Vec<u8>>);

impl Captured {
    fn of(pipe: Option<impl Read + Send + 'static>) -> (std::thread::JoinHandle<()>, Self) {
        let (sender, receiver) = watch::channel(Vec::new());
        let mut pipe = pipe.expect("a pipe was asked for");
        let reader = thread("reads a pipe", move || {
            let mut buffer = [0; 8192];
            while let Ok(bytes @ 1..) = pipe.read(&mut buffer) {
                sender.send_modify(|all| all.extend_from_slice(&buffer[..bytes]));
            }
        });
        (reader, Self(receiver))
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).expect("a thread")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
