//! The relay from a configuration, and the leak guard at its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use aiproxy_sandbox::{Options, Sandbox, SeenRequest};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::client::{Ask, Client};
use crate::config::{self, CHANNEL_KEY, PROXY_KEY};
use crate::needles::Needles;
use crate::net;
use crate::process::Process;
use crate::raw::Raw;
use crate::upstream::RawUpstream;
use crate::wait::{BOUND, until};
use crate::wiretap::Wiretap;

/// What an [`App`] is made of.
#[derive(Debug)]
pub struct Builder {
    binary: PathBuf,
    config: Value,
    platform: Option<SocketAddr>,
    environment: Vec<(String, String)>,
}

/// The built relay at work, between a tap of its callers' connections and a tap of its platform's.
///
/// When it ends, by [`App::finish`] or by dropping it, the **leak guard** makes sure that no
/// channel key was seen on the callers' side and no Proxy-Key on the platform's, that neither is
/// in what the relay printed or logged, that it never panicked, and that SIGTERM ended it with
/// exit code 0.
#[derive(Debug)]
pub struct App {
    process: Process,
    relay: SocketAddr,
    callers: Wiretap,
    platform: Wiretap,
    sandbox: Option<Sandbox>,
    proxy_keys: Needles,
    channel_keys: Needles,
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

    /// Sets an environment variable of the relay, which has no others.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts everything and waits until the relay listens.
    ///
    /// # Panics
    /// When it does not.
    pub async fn start(self) -> App {
        let Self { binary, mut config, platform, environment } = self;
        let (sandbox, platform) = match platform {
            Some(addr) => (None, addr),
            None => {
                let options = Options { api_key: CHANNEL_KEY.to_owned(), ..Options::default() };
                let sandbox = net::run(Sandbox::start(options)).await.expect("a sandbox");
                let addr = sandbox.addr();
                (Some(sandbox), addr)
            }
        };
        let (proxy_keys, channel_keys) = (Needles::default(), Needles::default());
        let platform = Wiretap::of_platform(platform, &proxy_keys).await;
        config::lead(&mut config, platform.addr());
        config::secrets(&config, &proxy_keys, &channel_keys);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("aiproxy.yaml");
        write(&file, &config.to_string());
        let mut command = Command::new(binary);
        command.env_clear().envs(environment).current_dir(dir.path()).arg("serve").arg("--config").arg(&file);
        let process = Process::start(command);
        let relay = process.said("the relay listening", listening).await;
        let callers = Wiretap::of_callers(relay, &channel_keys).await;
        App {
            process,
            relay,
            callers,
            platform,
            sandbox,
            proxy_keys,
            channel_keys,
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
        Builder { binary: binary.into(), config: config::standard(), platform: None, environment: Vec::new() }
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
        change(&mut self.config);
        config::lead(&mut self.config, self.platform.addr());
        config::secrets(&self.config, &self.proxy_keys, &self.channel_keys);
        write(&self.dir.path().join("aiproxy.yaml"), &self.config.to_string());
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

    /// A secret that must not reach the platform, besides the configured Proxy-Keys.
    pub fn hide_from_platform(&self, name: &str, secret: &str) {
        self.proxy_keys.add(name, secret);
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
        self.process.signal("TERM");
        match self.process.block_until_ended(BOUND) {
            Some(status) if status.code() == Some(0) => {}
            Some(status) => found.push(format!("the relay ended with {status}")),
            None => found.push(format!("the relay did not end within {BOUND:?} of SIGTERM")),
        }
        self.process.signal("KILL");
        self.platform.hang_up();
        for tap in [&self.callers, &self.platform] {
            if !tap.wait_for_silence(BOUND) {
                found.push("a tapped connection outlived the relay".to_owned());
            }
            found.extend(tap.sightings());
        }
        let access_log = std::fs::read(self.dir.path().join("access.log")).unwrap_or_default();
        let (stdout, stderr) = (self.process.stdout(), self.process.stderr());
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

fn listening(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    line.get("address")?.as_str()?.parse().ok()
}

/// In one step, as careful editors do: a half-written file is a test of its own.
fn write(file: &Path, text: &str) {
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, text).expect("a file in the temporary folder");
    std::fs::rename(&fresh, file).expect("a file in the temporary folder");
}
