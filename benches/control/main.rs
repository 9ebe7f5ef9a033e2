//! What ten thousand users, keys and mappings in the database cost: at the start, for one edit, for a
//! request.
//!
//! `cargo bench -p aiproxy --bench control`. Two relays of the same build, one with ten users and one with
//! `AIPROXY_BENCH_USERS` (10000), are asked in turns within one run. Prints the time of an import and of a
//! start; of an edit over the admin API until it is in effect, beside what of it is rebuilding (measured in
//! this process) and what a full rebuild would be; and the CPU time of requests.

#![allow(clippy::print_stdout, reason = "printing is what a benchmark is for")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on fails")]

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use aiproxy_config::catalog::Edit;
use aiproxy_config::model::Snapshot;
use aiproxy_config::{Catalog, load_file};
use aiproxy_core::EntityKind;

const BINARY: &str = env!("CARGO_BIN_EXE_aiproxy");
const PASSWORD: &str = "a password for a benchmark 1";
const EDITS: usize = 200;
const ROUNDS: usize = 5;
const REQUESTS: usize = 10_000;
/// Clock ticks a second: the same on every Linux.
const TICKS: f64 = 100.0;

fn main() {
    let many =
        std::env::var("AIPROXY_BENCH_USERS").ok().and_then(|value| value.parse().ok()).unwrap_or(10_000);
    let upstream = start_upstream();
    rebuilding(many, upstream);
    let mut few = Relay::start(10, upstream);
    let mut all = Relay::start(many, upstream);
    for relay in [&few, &all] {
        println!(
            "{:>6} users  import {:>8.1} ms  start until it listens {:>8.1} ms",
            relay.users, relay.imported, relay.started
        );
    }
    for relay in [&mut few, &mut all] {
        let (mut user, mut channel) = (Vec::new(), Vec::new());
        for edit in 0..EDITS {
            let id = edit % relay.users;
            user.push(
                relay.edit(&format!("/users/user{id}"), &format!("{{\"department\": \"部门{edit}\"}}")),
            );
        }
        for edit in 0..10 {
            channel.push(relay.edit("/channels/mock", &format!("{{\"name\": \"渠道{edit}\"}}")));
        }
        println!(
            "{:>6} users  edit of a user until in effect: p50 {:>6.2} ms, p99 {:>6.2} ms; of the channel of all: p50 {:>7.1} ms",
            relay.users,
            at(&mut user, 50),
            at(&mut user, 99),
            at(&mut channel, 50)
        );
    }
    let (mut of_few, mut of_all) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_few.push(few.requests());
        of_all.push(all.requests());
    }
    let (few_cpu, all_cpu) = (at(&mut of_few, 50), at(&mut of_all, 50));
    println!(
        "CPU of 10,000 requests: {:.3} s with {} users, {:.3} s with {} ({:.2} of it)",
        few_cpu,
        few.users,
        all_cpu,
        all.users,
        all_cpu / few_cpu
    );
}

/// The value at a percentile.
fn at(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What an edit rebuilds, and what all would be.
fn rebuilding(users: usize, upstream: SocketAddr) {
    let folder = tempfile::tempdir().unwrap();
    let loaded = load_file(&config(folder.path(), users, upstream)).unwrap();
    let documents = || loaded.documents.iter().map(|it| (it.kind, it.id.as_str(), &it.fields));
    let empty = || Snapshot::new([], Vec::new(), loaded.snapshot.system.clone());
    let (mut full, mut one, mut world) = (Vec::new(), Vec::new(), None);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let (mut catalog, prepared, faults) = Catalog::load(documents());
        let mut snapshot = empty();
        catalog.install(prepared, &mut snapshot);
        full.push(ms(began.elapsed()));
        assert!(faults.is_empty());
        world = Some((catalog, snapshot));
    }
    let (mut catalog, mut snapshot) = world.unwrap();
    let user = loaded.documents.iter().find(|it| it.kind == EntityKind::User).unwrap();
    for _ in 0..EDITS {
        let began = Instant::now();
        let prepared = catalog.prepare(&[Edit::Put(user.kind, &user.id, &user.fields)]).unwrap();
        let mut new = snapshot.clone();
        catalog.install(prepared, &mut new);
        let old = std::mem::replace(&mut snapshot, new);
        drop(old);
        one.push(ms(began.elapsed()));
    }
    println!(
        "{users:>6} users  building all of them {:>8.1} ms, what one edit touches {:>6.3} ms",
        at(&mut full, 50),
        at(&mut one, 50)
    );
}

fn config(folder: &Path, users: usize, upstream: SocketAddr) -> std::path::PathBuf {
    let mut text = String::from("users:\n");
    for user in 0..users {
        let _ = writeln!(
            text,
            "  user{user}: {{name: 用户{user}, proxy_key: pk_bench_{user:016}, channels: [mock]}}"
        );
    }
    let _ = write!(
        text,
        "channels:\n  mock: {{platform: custom, base_url: \"http://{upstream}\", api_key: sk-bench-0123456789}}\n\
         system:\n  listen: {{http: \"127.0.0.1:0\", admin: \"127.0.0.1:0\"}}\n  log: {{access: \"off\", format: json}}\n"
    );
    let file = folder.join("aiproxy.yaml");
    fs::write(&file, text).unwrap();
    file
}

struct Relay {
    users: usize,
    process: Child,
    address: SocketAddr,
    admin: TcpStream,
    token: String,
    imported: f64,
    started: f64,
    _folder: tempfile::TempDir,
}

impl Relay {
    fn start(users: usize, upstream: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = config(folder.path(), users, upstream);
        let began = Instant::now();
        let done = Command::new(BINARY).arg("import").arg(&file).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let imported = ms(began.elapsed());
        let began = Instant::now();
        let mut process = Command::new(BINARY)
            .args(["serve", "--config"])
            .arg(&file)
            .env("AIPROXY_ADMIN_PASSWORD", PASSWORD)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let stderr = process.stderr.take().unwrap();
        let (said, lines) = mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let (mut address, mut admin) = (None, None);
        while address.is_none() {
            let line: String = lines.recv_timeout(Duration::from_secs(60)).unwrap();
            let named =
                |name: &str| line.split(&format!("\"{name}\":\"")).nth(1)?.split('"').next()?.parse().ok();
            admin = admin.or_else(|| named("admin"));
            address = address.or_else(|| named("address"));
        }
        let started = ms(began.elapsed());
        let (address, admin): (SocketAddr, SocketAddr) = (address.unwrap(), admin.unwrap());
        let mut stream = TcpStream::connect(admin).unwrap();
        stream.set_nodelay(true).unwrap();
        let login = format!("{{\"name\": \"admin\", \"password\": \"{PASSWORD}\"}}");
        let answer = exchange(&mut stream, "POST", "/login", "", &login);
        let cookie = answer.split("set-cookie: ").nth(1).unwrap().split(';').next().unwrap().to_owned();
        let csrf = answer.split("\"csrf_token\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let headers = format!("cookie: {cookie}\r\nx-csrf-token: {csrf}\r\n");
        let wanted = "{\"name\": \"bench\", \"role\": \"administrator\", \"scopes\": [\"*\"]}";
        let answer = exchange(&mut stream, "POST", "/tokens", &headers, wanted);
        let token = answer.split("\"token\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        Self { users, process, address, admin: stream, token, imported, started, _folder: folder }
    }

    /// An edit; milliseconds until it was answered, which is when it is in effect.
    fn edit(&mut self, path: &str, body: &str) -> f64 {
        let headers = format!("authorization: Bearer {}\r\nif-match: *\r\n", self.token);
        let began = Instant::now();
        exchange(&mut self.admin, "PATCH", path, &headers, body);
        ms(began.elapsed())
    }

    /// Seconds of CPU of [`REQUESTS`] requests, by users in turns.
    fn requests(&self) -> f64 {
        let before = self.cpu();
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut buffer = [0; 4096];
        for request in 0..REQUESTS {
            let user = request * 7919 % self.users;
            let text = format!(
                "GET /v1/models/m HTTP/1.1\r\nhost: a\r\nauthorization: Bearer pk_bench_{user:016}\r\n\r\n"
            );
            stream.write_all(text.as_bytes()).unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut buffer).unwrap();
                assert_ne!(read, 0);
                head.extend_from_slice(&buffer[..read]);
            }
            assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
        }
        self.cpu() - before
    }

    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
        (ticks(11) + ticks(12)) / TICKS
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One request to the admin API; head and body of the answer.
fn exchange(stream: &mut TcpStream, method: &str, path: &str, headers: &str, body: &str) -> String {
    let text = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).unwrap();
    let (mut all, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let read = stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&all);
        let Some((head, rest)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if rest.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            assert!(head.starts_with("HTTP/1.1 20"), "{text}");
            return text.into_owned();
        }
    }
}

fn start_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => head.extend_from_slice(&buffer[..read]),
        }
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        }
    }
}
