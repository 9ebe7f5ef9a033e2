//! Egress proxies as companies run them: tinyproxy and microsocks, from Debian.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::wait::within;

/// A name service of a test's own, through `libnss_wrapper`: programs that get its environment
/// resolve the names of its file, and no others.
#[derive(Debug)]
pub struct Hosts(TempDir);

impl Hosts {
    /// Lines as in `/etc/hosts`.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[must_use]
    pub fn new(lines: &str) -> Self {
        let hosts = Self(tempfile::tempdir().expect("a temporary folder"));
        hosts.set(lines);
        hosts
    }

    /// Changes them in one step: they may be read at any time.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn set(&self, lines: &str) {
        let next = self.0.path().join("next");
        std::fs::write(&next, format!("{lines}\n")).expect("a file");
        std::fs::rename(next, self.file()).expect("a file");
    }

    /// Variables for the programs that are to use it.
    ///
    /// # Panics
    /// When the library is not installed (`scripts/test-deps.sh`).
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib").filter_map(Result::ok);
        let library = folders
            .map(|folder| folder.path().join("libnss_wrapper.so"))
            .find(|path| path.exists())
            .expect("libnss_wrapper.so; scripts/test-deps.sh installs it");
        let shown = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        [("LD_PRELOAD", shown(&library)), ("NSS_WRAPPER_HOSTS", shown(&self.file()))]
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("hosts")
    }
}

/// A proxy's process on loopback. It ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    addr: SocketAddr,
    _folder: TempDir,
}

/// Ports that are tried: neither program takes port 0, and a free one may be taken meanwhile.
const TRIES: usize = 5;

impl Proxy {
    /// An HTTP proxy; with user and password, it asks for them.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn http(credentials: Option<[&str; 2]>, hosts: &Hosts) -> Self {
        Self::start("tinyproxy", hosts, |port, folder| {
            let mut config =
                format!("Listen 127.0.0.1\nPort {port}\nAllow 127.0.0.1\nTimeout 600\nMaxClients 100\n");
            if let Some([user, password]) = credentials {
                let _ = writeln!(config, "BasicAuth {user} {password}");
            }
            let file = folder.join("tinyproxy.conf");
            std::fs::write(&file, config).expect("a file");
            vec!["-d".into(), "-c".into(), file.to_str().expect("a path in UTF-8").into()]
        })
        .await
    }

    /// A SOCKS5 proxy; with user and password, it asks for them.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn socks(credentials: Option<[&str; 2]>, hosts: &Hosts) -> Self {
        Self::start("microsocks", hosts, |port, _| {
            let mut arguments: Vec<String> =
                vec!["-i".into(), "127.0.0.1".into(), "-p".into(), port.to_string()];
            if let Some([user, password]) = credentials {
                arguments.extend(["-u", user, "-P", password].map(str::to_owned));
            }
            arguments
        })
        .await
    }

    async fn start(program: &str, hosts: &Hosts, arguments: impl Fn(u16, &Path) -> Vec<String>) -> Self {
        for _ in 0..TRIES {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let addr = free.local_addr().expect("a bound socket");
            drop(free);
            let folder = tempfile::tempdir().expect("a temporary folder");
            let child = Command::new(program)
                .args(arguments(addr.port(), folder.path()))
                .envs(hosts.environment())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("{program}: {error}; scripts/test-deps.sh installs it"));
            let mut proxy = Self { child, addr, _folder: folder };
            if within("the proxy listening", proxy.listens()).await {
                return proxy;
            }
        }
        panic!("{program} does not start");
    }

    /// False when it has ended.
    async fn listens(&mut self) -> bool {
        loop {
            if self.child.try_wait().expect("a child").is_some() {
                return false;
            }
            if TcpStream::connect(self.addr).await.is_ok() {
                return true;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
