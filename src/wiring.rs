//! Snapshot → registry, sink, gateway.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use aiproxy_admin::control::{self, File};
use aiproxy_admin::{Admin, Control, First, State, first, mirror};
use aiproxy_config::Loaded;
use aiproxy_config::model::{Certificates as Source, LogFormat, Quic, Snapshot, System};
use aiproxy_core::Secret;
use aiproxy_core::ids::random_key;
use aiproxy_core::ports::{Fanout, MediaPlane, UpgradeHandler, UsageSink};
use aiproxy_gateway::secrets::ClientSecrets;
use aiproxy_gateway::{Calls, Kind, Options, QuicListeners, Server, checks};
use aiproxy_registry::Registry;
use aiproxy_registry::minted::Minted;
use aiproxy_registry::owned::{self, OwnedObjects};
use aiproxy_relay::Media;
use aiproxy_secrets::key_file;
use aiproxy_signaling::{Offers, WebSockets};
use aiproxy_store::{ObjectFile, UsedFile};
use aiproxy_telemetry::metrics::{Metrics, Mirror};
use aiproxy_telemetry::{Format, LevelHandle};
use anyhow::Context as _;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::certificates::Certificates;
use crate::own_usage::JournalUsage;
use crate::records::Records;
use crate::reload::{Running, watch_expiry};
use crate::signals::Ending;

/// A relay at work.
#[derive(Debug)]
pub struct Relay {
    /// What may be and what is.
    pub registry: Arc<Registry>,
    /// The listeners and their threads.
    pub server: Arc<Server>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What the HTTPS listeners show.
    pub certificates: Arc<Certificates>,
    /// Who manages users and channels.
    pub control: Arc<Control>,
    /// The second listener.
    pub admin: Admin,
    records: Records,
}

/// Starts the process log as the configuration says.
///
/// # Errors
/// When the log level cannot be parsed.
pub fn start_log(snapshot: &Snapshot) -> anyhow::Result<LevelHandle> {
    let format = match snapshot.system.log.format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    Ok(aiproxy_telemetry::init(&snapshot.system.log_level, format)?)
}

/// Starts the relay that a configuration describes: users and channels come from it, or from the
/// database.
///
/// # Errors
/// When the access log cannot be opened, a listener not bound, or the database not used where it manages
/// users and channels.
pub async fn start(loaded: Loaded) -> anyhow::Result<Relay> {
    // A second call in one process finds the provider installed: nothing to do.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // From here on SIGUSR1 does not end the process.
    let _ = signal(SignalKind::user_defined1())?;
    let start = control::Start::load(File::from(loaded)).await?;
    let snapshot = start.snapshot.clone();
    let records = Records::open(&snapshot.system)?;
    raise_file_limit(snapshot.system.max_connections);
    let workers = snapshot.system.workers;
    let addresses = snapshot.system.admin.clone();
    let media = snapshot.system.media.as_ref().map(media).transpose()?;
    let registry = Arc::new(Registry::new(snapshot));
    let metrics = Arc::new(Metrics::new({
        let (registry, records, media) = (Arc::clone(&registry), records.clone(), media.clone());
        move || {
            let mut mirror = Mirror { records: records.counts(), ..mirror(&registry) };
            if let Some(counts) = media.as_ref().map(|media| media.counts()) {
                mirror.calls.relayed = counts.calls;
                mirror.calls.addresses = counts.addresses;
                (mirror.calls.unknown_packets, mirror.calls.dropped_packets) =
                    (counts.unknown, counts.dropped);
            }
            mirror
        }
    }));
    // Records last: they are given the event itself, the metrics a look at it.
    let mut sinks: Vec<Arc<dyn UsageSink>> = vec![Arc::clone(&metrics) as _];
    sinks.extend(records.sink());
    let sink = Arc::new(Fanout::new(sinks));
    let data_dir = registry.snapshot().system.data_dir.clone();
    let control = start.attach(Arc::clone(&registry), Arc::clone(&metrics));
    let state = State {
        registry: Arc::clone(&registry),
        metrics: Arc::clone(&metrics),
        control: Arc::clone(&control),
        hosts: Vec::new(),
        auth: Arc::default(),
        started: Instant::now(),
    };
    if !addresses.is_empty() {
        first_administrator(&control, &data_dir).await;
    }
    let admin = Admin::start(&addresses, state).await?;
    for address in admin.addresses() {
        tracing::info!(admin = %address, "admin listening on http://{address}");
    }
    let (file, loaded) = ObjectFile::start(&data_dir, owned::LIMIT)
        .with_context(|| format!("cannot use the data folder {}", data_dir.display()))?;
    let objects = Arc::new(OwnedObjects::kept(owned::LIMIT, Arc::new(file), loaded.records));
    let secrets = Arc::new(client_secrets(&data_dir));
    let system = registry.snapshot().system.clone();
    let (certificates, loaded) = Certificates::start(&system, &registry)?;
    let certificates = Arc::new(certificates);
    let tls = loaded.map(|loaded| loaded.config);
    let (http, https) = (system.http.clone(), system.https.clone());
    let upgrades = Some(Arc::new(WebSockets) as Arc<dyn UpgradeHandler>);
    let calls = Some(Calls {
        sdp: Arc::new(Offers),
        media: media.as_ref().map(|media| Arc::clone(media) as Arc<dyn MediaPlane>),
    });
    let options = Options {
        registry: Arc::clone(&registry),
        objects,
        secrets,
        sink,
        http,
        https,
        quic: quic_listeners(&system),
        tls,
        workers,
        upgrades,
        calls,
        own_usage: system
            .journal
            .as_ref()
            .map(|journal| Arc::new(JournalUsage::new(journal.dir.clone())) as _),
    };
    let server = Arc::new(Server::start(&options)?);
    server.https().iter().for_each(|address| listening(address, Kind::Https));
    server.quic().iter().for_each(|address| listening(address, Kind::Quic));
    server.http().iter().for_each(|address| listening(address, Kind::Http));
    if system.tls.as_ref().is_some_and(|tls| tls.certificates == Source::SelfSigned) {
        for certificate in registry.status.tls().certificates {
            tracing::info!(sha256 = certificate.fingerprint, "the certificate is self-signed");
        }
    }
    Ok(Relay { registry, server, metrics, certificates, control, admin, records })
}

/// Makes sure that somebody can sign in. That nobody can keeps nobody from calling.
async fn first_administrator(control: &Control, data_dir: &Path) {
    let Ok(store) = control.store() else { return };
    let password = std::env::var(first::ENVIRONMENT).ok().map(Secret::new);
    match first::ensure(&store, data_dir, password).await {
        Ok(First::Written(path)) => {
            tracing::info!(path = %path.display(), "the first administrator is `{}`; the one-time password is in this file", first::NAME);
        }
        Ok(First::FromEnvironment | First::Printed) => {
            tracing::info!("the first administrator is `{}`", first::NAME);
        }
        Ok(First::Known) => {}
        Err(error) => tracing::error!("{error}"),
    }
}

/// Where calls come.
fn media(media: &aiproxy_config::model::Media) -> anyhow::Result<Arc<Media>> {
    let options = aiproxy_relay::Options {
        listen: media.listen.clone(),
        public: media.public.clone(),
        ports: media.ports.clone(),
    };
    let media = Arc::new(Media::open(&options).context("system.listen.media")?);
    for address in media.candidates() {
        tracing::info!(media = %address, "callers' media at udp://{address}");
    }
    Ok(media)
}

/// The installation's own key and the secrets that are used up, from the data folder. A folder that
/// cannot be used keeps nobody from working: client secrets live as long as the process then.
fn client_secrets(data_dir: &Path) -> ClientSecrets {
    let path = data_dir.join(key_file::FILE_NAME);
    let key = key_file::load_or_create(data_dir).unwrap_or_else(|error| {
        tracing::error!(path = %path.display(), %error, "the key of client secrets cannot be used: unless system.client_secrets.keys lists one, those that are minted now end with the process");
        Secret::new(random_key("csk_", 43))
    });
    if key_file::is_exposed(data_dir) {
        tracing::warn!(path = %path.display(), "others than its owner may read the key of client secrets: chmod 600");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (file, used) = UsedFile::start(data_dir, i64::try_from(now).unwrap_or(i64::MAX));
    ClientSecrets::new(&key, Minted::kept(Arc::new(file), used))
}

/// Each caller's connection may need one towards a platform: the soft limit on open files is raised as
/// far as the hard one lets it be, and who is to know that this is not enough is told.
fn raise_file_limit(max_connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = u64::try_from(max_connections).unwrap_or(u64::MAX).saturating_mul(2);
    if now < needed {
        tracing::warn!(
            limit = now,
            needed,
            "the limit on open files is below what system.max_connections may need; raise it (LimitNOFILE, ulimit -n) or lower max_connections"
        );
    }
}

/// Says where callers may connect.
pub(crate) fn listening(address: &SocketAddr, kind: Kind) {
    match kind {
        Kind::Http => tracing::info!(%address, "listening on http://{address}"),
        Kind::Https => tracing::info!(https = %address, "listening on https://{address}"),
        Kind::Quic => tracing::info!(quic = %address, "HTTP/3 at udp://{address}"),
    }
}

/// Where HTTP/3 is served.
pub(crate) fn quic_listeners(system: &System) -> QuicListeners {
    let at = if let Quic::At(addresses) = &system.quic { addresses.clone() } else { Vec::new() };
    QuicListeners { like_https: system.quic == Quic::LikeHttps, at, advertise: system.quic_advertise }
}

impl Relay {
    /// What a changed configuration is applied to.
    #[must_use]
    pub fn running(&self) -> Running {
        Running {
            registry: Arc::clone(&self.registry),
            metrics: Arc::clone(&self.metrics),
            server: Arc::clone(&self.server),
            certificates: Arc::clone(&self.certificates),
            control: Arc::clone(&self.control),
        }
    }

    /// What goes on beside the requests, on the `LocalSet` that this is called from: expiry, health
    /// checks, and SIGUSR1, which says that the access log's file has been moved away. Ends when
    /// dropped.
    #[must_use]
    pub fn chores(&self) -> JoinSet<()> {
        let mut chores = JoinSet::new();
        chores.spawn_local(watch_expiry(Arc::clone(&self.registry)));
        chores.spawn_local(Arc::clone(&self.control).watch());
        chores.spawn_local(checks::run(Arc::clone(&self.registry)));
        let records = self.records.clone();
        chores.spawn_local(async move {
            let Ok(mut moved) = signal(SignalKind::user_defined1()) else { return };
            while moved.recv().await.is_some() {
                records.reopen();
            }
        });
        chores
    }

    /// Tells load balancers, waits for `drain.delay`, closes the listeners, waits for requests in
    /// flight, then writes the last lines of the access log. A second signal ends the process at
    /// once.
    ///
    /// # Errors
    /// When the thread that waits cannot be started.
    pub async fn shutdown(self, ending: &mut Ending) -> io::Result<()> {
        self.registry.status.drain();
        let delay = self.registry.snapshot().system.drain.delay;
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            name = ending.next() => {
                tracing::warn!("{name} again: stopping at once");
                // Dropping the server would wait for requests in flight.
                std::mem::forget(self.server);
                return Ok(());
            }
        }
        let (done, finished) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("shutdown".into()).spawn(move || {
            self.server.shutdown();
            self.records.close();
            let _ = done.send(());
        })?;
        tokio::select! {
            _ = finished => {
                self.admin.shutdown().await;
                self.control.close().await;
                tracing::info!("stopped");
            }
            name = ending.next() => tracing::warn!("{name} again: stopping at once"),
        }
        Ok(())
    }
}
