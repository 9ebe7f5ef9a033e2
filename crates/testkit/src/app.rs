//! The relay from a configuration, and the leak guard at its end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use aiproxy_sandbox::{Options, Sandbox, SeenRequest};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::client::{Answer, Ask, Client};
use crate::config::{self, CHANNEL_KEY, PROXY_KEY};
use crate::needles::Needles;
use crate::net;
use crate::platform::{Platform, Record};
use crate::process::Process;
use crate::raw::Raw;
use crate::upstream::RawUpstream;
use crate::wait::{BOUND, until, within};
use crate::wiretap::Wiretap;

/// What an [`App`] is made of.
#[derive(Debug)]
pub struct Builder {
    binary: PathBuf,
    config: Value,
    platform: Option<SocketAddr>,
    others: Vec<(String, SocketAddr)>,
    environment: Vec<(String, String)>,
    records: Vec<Record>,
    files: Vec<(String, String)>,
}

/// The built relay at work, between a tap of its callers' connections and a tap of its platform's.
///
/// When it ends, by [`App::finish`] or by dropping it, the **leak guard** makes sure that no
/// channel key was seen on the callers' side and no Proxy-Key on the platform's, that neither is
/// in what the relay printed or logged, that it never panicked, and that SIGTERM ended it with
/// exit code 0.
#[derive(Debug)]
pub struct App {
    binary: PathBuf,
    environment: Vec<(String, String)>,
    process: Process,
    /// What ended before it in the same folder.
    earlier: Vec<(Process, Vec<Wiretap>)>,
    relay: SocketAddr,
    callers: Wiretap,
    /// Callers over TLS, in which nothing can be searched.
    https: Option<Wiretap>,
    /// Where HTTP/3 is served, without a tap.
    quic: Option<SocketAddr>,
    platform: Wiretap,
    others: BTreeMap<String, Wiretap>,
    admins: Option<Wiretap>,
    sandbox: Option<Sandbox>,
    proxy_keys: Needles,
    channel_keys: Needles,
    records: Vec<Record>,
    config: Value,
    dir: TempDir,
    finished: bool,
}

impl Builder {
    /// Changes the configuration, which begins as [`config::standard`].
    #[must_use]
    pub fn config(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    /// Stands in front of a scripted platform instead of the sandbox.
    #[must_use]
    pub fn upstream(mut self, upstream: &RawUpstream) -> Self {
        self.platform = Some(upstream.addr());
        self
    }

    /// Stands in front of one more platform, tapped as the first one is. Channels with the
    /// `base_url` `@name`, or `@name/path`, lead there.
    #[must_use]
    pub fn also(mut self, name: &str, platform: SocketAddr) -> Self {
        self.others.push((name.to_owned(), platform));
        self
    }

    /// Has the guard search what a platform behind TLS was sent.
    #[must_use]
    pub fn recorded(mut self, platform: &Platform) -> Self {
        self.records.push(platform.record());
        self
    }

    /// Sets an environment variable of the relay, which has no others.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts a file into the folder of the configuration before the relay starts.
    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Starts everything and waits until the relay listens.
    ///
    /// # Panics
    /// When it does not.
    pub async fn start(self) -> App {
        let Self { binary, mut config, platform, others, environment, records, files } = self;
        let (sandbox, platform) = match platform {
            Some(addr) => (None, addr),
            None => {
                let sandbox = sandbox(CHANNEL_KEY).await;
                let addr = sandbox.addr();
                (Some(sandbox), addr)
            }
        };
        let (proxy_keys, channel_keys) = (Needles::default(), Needles::default());
        let platform = Wiretap::of_platform(platform, &proxy_keys).await;
        let mut taps = BTreeMap::new();
        for (name, addr) in others {
            taps.insert(name, Wiretap::of_platform(addr, &proxy_keys).await);
        }
        config::lead(&mut config, platform.addr(), &taps);
        config::secrets(&config, &proxy_keys, &channel_keys);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("aiproxy.yaml");
        write(&file, &config.to_string());
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("a file in the temporary folder");
        }
        let launched = launch(&binary, &environment, &file, [&proxy_keys, &channel_keys]).await;
        let Launched { process, relay, callers, https, quic, admins } = launched;
        App {
            binary,
            environment,
            process,
            earlier: Vec::new(),
            relay,
            callers,
            https,
            quic,
            platform,
            others: taps,
            admins,
            sandbox,
            proxy_keys,
            channel_keys,
            records,
            config,
            dir,
            finished: false,
        }
    }
}

impl App {
    /// A relay from the built program `binary`.
    #[must_use]
    pub fn builder(binary: impl Into<PathBuf>) -> Builder {
        Builder {
            binary: binary.into(),
            config: config::standard(),
            platform: None,
            others: Vec::new(),
            environment: Vec::new(),
            records: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Where callers connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.callers.addr()
    }

    /// Where callers connect, as a URL without a path.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Where callers connect with TLS.
    ///
    /// # Panics
    /// When the relay has no such listener.
    #[must_use]
    pub fn https_addr(&self) -> SocketAddr {
        self.https.as_ref().expect("an HTTPS listener").addr()
    }

    /// Where callers connect over HTTP/3: the relay's own address over UDP, at which nothing is tapped.
    ///
    /// # Panics
    /// When the relay has no such listener.
    #[must_use]
    pub fn quic_addr(&self) -> SocketAddr {
        self.quic.expect("an HTTP/3 listener")
    }

    /// Where the relay itself listens, past the tap.
    #[must_use]
    pub fn relay_addr(&self) -> SocketAddr {
        self.relay
    }

    /// A request with the Proxy-Key of `user1` as a bearer token.
    #[must_use]
    pub fn ask(&self, method: &str, target: &str) -> Ask {
        Ask::new(self.addr(), PROXY_KEY, method, target)
    }

    /// A GET.
    #[must_use]
    pub fn get(&self, target: &str) -> Ask {
        self.ask("GET", target)
    }

    /// A POST of JSON.
    #[must_use]
    pub fn post(&self, target: &str, body: &Value) -> Ask {
        self.ask("POST", target).json(body)
    }

    /// A connection for several requests.
    pub async fn client(&self) -> Client {
        Client::connect(self.addr()).await
    }

    /// A connection for exact bytes.
    pub async fn raw(&self) -> Raw {
        Raw::connect(self.addr()).await
    }

    /// The tap between callers and relay.
    #[must_use]
    pub fn callers(&self) -> &Wiretap {
        &self.callers
    }

    /// The tap between relay and platform.
    #[must_use]
    pub fn platform(&self) -> &Wiretap {
        &self.platform
    }

    /// The tap between relay and the platform that was added under this name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn other(&self, name: &str) -> &Wiretap {
        self.others.get(name).unwrap_or_else(|| panic!("no platform '{name}'"))
    }

    /// Where whoever watches the relay connects.
    ///
    /// # Panics
    /// When the relay has no second listener.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admins.as_ref().expect("an admin listener").addr()
    }

    /// Asks the second listener, without a key.
    pub async fn admin(&self, path: &str) -> Answer {
        Ask::new(self.admin_addr(), "", "GET", path).no_key().send().await
    }

    /// A sample of `/metrics` by its name and labels as they are written there; 0 where it is
    /// absent.
    ///
    /// # Panics
    /// When it is no number.
    pub async fn metric(&self, sample: &str) -> f64 {
        let page = self.admin("/metrics").await.text().await;
        // Without labels, braces are written all the same.
        let after = |line| str::strip_prefix(line, sample);
        let value = page.lines().find_map(|line| {
            let rest = after(line)?;
            rest.strip_prefix("{}").unwrap_or(rest).strip_prefix(' ')
        });
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Waits until a sample of `/metrics` has this value.
    ///
    /// # Panics
    /// After [`BOUND`].
    pub async fn metric_is(&self, sample: &str, value: f64) {
        within(&format!("{sample} {value}"), async {
            while self.metric(sample).await.total_cmp(&value).is_ne() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// The platform.
    ///
    /// # Panics
    /// When the test brought one of its own.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        self.sandbox.as_ref().expect("an App in front of a sandbox")
    }

    /// The sandbox's record of a request, once there is one that `wanted` accepts.
    ///
    /// # Panics
    /// After [`BOUND`].
    pub async fn seen(&self, what: &str, wanted: impl Fn(&SeenRequest) -> bool) -> SeenRequest {
        until(what, || self.sandbox().requests().into_iter().find(|request| wanted(request))).await
    }

    /// The relay's process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The folder of the configuration.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The first line of the access log (on standard output) that `wanted` accepts.
    ///
    /// # Panics
    /// After [`BOUND`].
    pub async fn logged(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let line = |line: &str| serde_json::from_str(line).ok().filter(|line| wanted(line));
        self.process.printed(what, line).await
    }

    /// Changes the configuration file; when the relay looks at it is the test's business.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Value)) {
        let text = self.configure(change);
        write(&self.dir.path().join("aiproxy.yaml"), &text);
    }

    /// Changes the configuration but not the file: the text is the test's to put there.
    pub fn configure(&mut self, change: impl FnOnce(&mut Value)) -> String {
        change(&mut self.config);
        config::lead(&mut self.config, self.platform.addr(), &self.others);
        config::secrets(&self.config, &self.proxy_keys, &self.channel_keys);
        self.config.to_string()
    }

    /// The configurations that the relay says it has applied and refused so far, after the first.
    #[must_use]
    pub fn reloads(&self) -> (usize, usize) {
        let said = self.process.stderr();
        (said.matches("configuration reloaded").count(), said.matches("the last good one stays").count())
    }

    /// Changes the configuration file and waits until the relay has noticed by itself and said
    /// what came of it: whether it was taken.
    ///
    /// # Panics
    /// When it says nothing.
    pub async fn change(&mut self, change: impl FnOnce(&mut Value)) -> bool {
        let (applied, refused) = self.reloads();
        self.reconfigure(change);
        until("the relay noticing the changed file", || {
            let now = self.reloads();
            if now.0 > applied {
                return Some(true);
            }
            (now.1 > refused).then_some(false)
        })
        .await
    }

    /// Sends SIGHUP and waits until the relay has said what came of it: whether the file was
    /// taken.
    ///
    /// # Panics
    /// When it says nothing.
    pub async fn reload(&self) -> bool {
        let before = self.process.stderr().len();
        self.process.signal("HUP");
        until("the relay looking at its file", || {
            let said = self.process.stderr();
            let said = said.get(before..)?;
            if said.contains("configuration reloaded") {
                return Some(true);
            }
            said.contains("the last good").then_some(false)
        })
        .await
    }

    /// Ends the relay with this signal and starts it again in the same folder, on other ports.
    ///
    /// # Panics
    /// When it does not end, or does not start.
    pub async fn restart_after(&mut self, signal: &str) {
        self.process.signal(signal);
        assert!(self.process.ended_within(BOUND).await.is_some(), "the relay did not end of SIG{signal}");
        let file = self.dir.path().join("aiproxy.yaml");
        let needles = [&self.proxy_keys, &self.channel_keys];
        let launched = launch(&self.binary, &self.environment, &file, needles).await;
        let mut taps = vec![std::mem::replace(&mut self.callers, launched.callers)];
        taps.extend(std::mem::replace(&mut self.admins, launched.admins));
        taps.extend(std::mem::replace(&mut self.https, launched.https));
        self.earlier.push((std::mem::replace(&mut self.process, launched.process), taps));
        self.relay = launched.relay;
        self.quic = launched.quic;
    }

    /// A secret that must not reach the platform, besides the configured Proxy-Keys.
    pub fn hide_from_platform(&self, name: &str, secret: &str) {
        self.proxy_keys.add(name, secret);
    }

    /// What must not reach the platform; whoever makes Proxy-Keys adds them.
    #[must_use]
    pub fn proxy_keys(&self) -> &Needles {
        &self.proxy_keys
    }

    /// What must not reach callers and administrators; whoever makes channels adds their keys.
    #[must_use]
    pub fn channel_keys(&self) -> &Needles {
        &self.channel_keys
    }

    /// A secret that must not reach callers, besides the configured channel keys.
    pub fn hide_from_callers(&self, name: &str, secret: &str) {
        self.channel_keys.add(name, secret);
    }

    /// Ends the relay and applies the leak guard.
    ///
    /// # Panics
    /// With everything that the guard found.
    pub async fn finish(self) {
        let found = self.end().await;
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    /// Ends the relay; what the guard found.
    pub async fn end(mut self) -> Vec<String> {
        spawn_blocking(move || self.guard()).await.expect("the guard")
    }

    /// Blocks; the network has a thread of its own.
    fn guard(&mut self) -> Vec<String> {
        self.finished = true;
        let mut found = Vec::new();
        self.callers.hang_up();
        self.https.iter().for_each(Wiretap::hang_up);
        self.process.signal("TERM");
        match self.process.block_until_ended(BOUND) {
            Some(status) if status.code() == Some(0) => {}
            Some(status) => found.push(format!("the relay ended with {status}")),
            None => found.push(format!("the relay did not end within {BOUND:?} of SIGTERM")),
        }
        self.process.signal("KILL");
        self.platform.hang_up();
        self.admins.iter().chain(self.others.values()).for_each(Wiretap::hang_up);
        for tap in [&self.callers, &self.platform]
            .into_iter()
            .chain(&self.admins)
            .chain(&self.https)
            .chain(self.others.values())
        {
            if !tap.wait_for_silence(BOUND) {
                found.push("a tapped connection outlived the relay".to_owned());
            }
            found.extend(tap.sightings());
        }
        let records = self.records.iter().filter_map(|record| record.holds(&self.proxy_keys));
        found.extend(records.map(|name| format!("behind TLS at the platform: {name}")));
        let access_log = std::fs::read(self.dir.path().join("access.log")).unwrap_or_default();
        let (mut stdout, mut stderr) = (self.process.stdout(), self.process.stderr());
        for (process, taps) in &self.earlier {
            stdout += &process.stdout();
            stderr += &process.stderr();
            taps.iter().for_each(|tap| found.extend(tap.sightings()));
        }
        for (place, text) in [
            ("standard output", stdout.as_bytes()),
            ("standard error", stderr.as_bytes()),
            ("the access log", &access_log),
        ] {
            for needles in [&self.proxy_keys, &self.channel_keys] {
                found.extend(needles.search(text).map(|name| format!("{name} in {place}")));
            }
        }
        if stderr.contains("panicked") {
            found.push(format!("the relay panicked:\n{stderr}"));
        }
        found
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if std::thread::panicking() {
            self.explain();
            return;
        }
        let found = self.guard();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

impl App {
    /// What the relay said, for whoever reads why a test failed.
    #[expect(clippy::print_stderr, reason = "the test harness shows it with the failure")]
    fn explain(&self) {
        eprintln!(
            "--- the relay said:\n{}\n--- and logged:\n{}",
            self.process.stderr(),
            self.process.stdout()
        );
    }
}

/// A relay at work between its taps.
struct Launched {
    process: Process,
    relay: SocketAddr,
    callers: Wiretap,
    https: Option<Wiretap>,
    quic: Option<SocketAddr>,
    admins: Option<Wiretap>,
}

/// Starts the built program in the folder of its configuration; `needles` are the Proxy-Keys, then
/// the channel keys.
async fn launch(
    binary: &Path,
    environment: &[(String, String)],
    file: &Path,
    needles: [&Needles; 2],
) -> Launched {
    let folder = file.parent().expect("a file in a folder");
    let mut command = Command::new(binary);
    command.env_clear();
    // The allocator asks for huge pages, and the kernel then counts memory in steps of 2 MiB: too
    // coarse for tests that watch it.
    command.env("MIMALLOC_ALLOW_THP", "0");
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.current_dir(folder).arg("serve").arg("--config").arg(file);
    let process = Process::start(command);
    // The second listener comes first, and TLS before plain HTTP.
    let (mut admin, mut https, mut quic) = (None, None, None);
    let relay = process
        .said("the relay listening", |line| {
            admin = admin.or_else(|| address(line, "admin"));
            https = https.or_else(|| address(line, "https"));
            quic = quic.or_else(|| address(line, "quic"));
            address(line, "address")
        })
        .await;
    let admins = match admin {
        Some(admin) => Some(Wiretap::of_admins(admin, needles).await),
        None => None,
    };
    let callers = Wiretap::of_callers(relay, needles[1]).await;
    let https = match https {
        Some(https) => Some(Wiretap::of_callers(https, needles[1]).await),
        None => None,
    };
    Launched { process, relay, callers, https, quic, admins }
}

/// A sandbox that accepts this key, on a thread that no test can block.
///
/// # Panics
/// When it cannot be started.
pub async fn sandbox(key: &str) -> Sandbox {
    let options = Options { api_key: key.to_owned(), ..Options::default() };
    net::run(Sandbox::start(options)).await.expect("a sandbox")
}

fn address(line: &str, field: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    line.get(field)?.as_str()?.parse().ok()
}

/// In one step, as careful editors do: a half-written file is a test of its own.
fn write(file: &Path, text: &str) {
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, text).expect("a file in the temporary folder");
    std::fs::rename(&fresh, file).expect("a file in the temporary folder");
}
