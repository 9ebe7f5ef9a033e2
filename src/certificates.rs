//! Certificates of the HTTPS listeners: loaded at the start, and again when their files change.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aiproxy_config::model::{System, Tls};
use aiproxy_gateway::Server;
use aiproxy_gateway::tls::{self, Loaded, Loader};
use aiproxy_registry::Registry;

use crate::reload::Stamp;

/// How often the files' metadata is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often certificates that expire soon are spoken of.
const REMIND: Duration = Duration::from_secs(24 * 3600);
/// What soon is, in seconds.
const SOON: i64 = 14 * 24 * 3600;

/// Knows which files there are and what they were like when they were last read.
#[derive(Debug)]
pub struct Certificates {
    loader: Loader,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tls: Option<Tls>,
    data_dir: PathBuf,
    stamps: Vec<Option<Stamp>>,
    /// A change was seen that is not read yet: the second file of a pair may still be to come.
    settling: bool,
    looked: Instant,
    reminded: Instant,
}

impl Certificates {
    /// What the configuration asks for at the start.
    ///
    /// # Errors
    /// When it cannot be had: there is nothing to fall back on yet.
    pub fn start(system: &System, registry: &Registry) -> anyhow::Result<(Self, Option<Loaded>)> {
        let state = State {
            tls: system.tls.clone(),
            data_dir: system.data_dir.clone(),
            stamps: Vec::new(),
            settling: false,
            looked: Instant::now(),
            reminded: Instant::now(),
        };
        let certificates = Self { loader: Loader::new()?, state: Mutex::new(state) };
        let loaded = {
            let mut state = certificates.state.lock().unwrap_or_else(PoisonError::into_inner);
            match certificates.load(&mut state) {
                Ok(loaded) => loaded,
                Err(error) => anyhow::bail!("cannot use the certificates of system.tls: {error}"),
            }
        };
        if let Some(loaded) = &loaded {
            registry.status.tls_loaded(loaded.certificates.clone());
            remind(registry);
        }
        Ok((certificates, loaded))
    }

    /// Notes the files as they are before they are read, so that what changes meanwhile is noticed.
    fn load(&self, state: &mut State) -> Result<Option<Loaded>, String> {
        let Some(tls) = &state.tls else {
            state.stamps.clear();
            return Ok(None);
        };
        state.stamps = stamps(tls);
        state.settling = false;
        self.loader.load(tls, &state.data_dir).map(Some)
    }

    /// Follows a changed configuration.
    pub fn apply(&self, system: &System, registry: &Registry, server: &Server) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.tls != system.tls {
            state.tls.clone_from(&system.tls);
            self.renew(&mut state, registry, server);
        }
    }

    /// Looks whether the files have changed and then stayed the same for one look; `asked` reads
    /// them whatever their metadata say. Returns whether certificates were loaded: there may now be
    /// something to listen with.
    pub fn look(&self, asked: bool, registry: &Registry, server: &Server) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.tls.is_none() || (!asked && state.looked.elapsed() < LOOK) {
            return false;
        }
        state.looked = Instant::now();
        if state.reminded.elapsed() > REMIND {
            state.reminded = Instant::now();
            remind(registry);
        }
        let now = state.tls.as_ref().map(stamps).unwrap_or_default();
        if now != state.stamps {
            state.stamps = now;
            state.settling = true;
            if !asked {
                return false;
            }
        }
        (asked || state.settling) && self.renew(&mut state, registry, server)
    }

    fn renew(&self, state: &mut State, registry: &Registry, server: &Server) -> bool {
        match self.load(state) {
            Ok(Some(loaded)) => {
                let same = registry.status.tls().certificates == loaded.certificates;
                server.set_tls(Some(loaded.config));
                registry.status.tls_loaded(loaded.certificates);
                tracing::info!(same, "certificates loaded");
                remind(registry);
                true
            }
            Ok(None) => {
                server.set_tls(None);
                registry.status.tls_gone();
                false
            }
            Err(error) => {
                tracing::error!(%error, "the certificates cannot be used; those in use stay");
                registry.status.tls_refused(error);
                false
            }
        }
    }
}

/// Says which certificates expire soon, or have.
fn remind(registry: &Registry) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    for certificate in registry.status.tls().certificates {
        let left = certificate.expires - now;
        if left < SOON {
            tracing::warn!(
                names = certificate.names.join(", "),
                fingerprint = certificate.fingerprint,
                days = left.div_euclid(24 * 3600),
                "a certificate expires soon, or has expired"
            );
        }
    }
}

fn stamps(tls: &Tls) -> Vec<Option<Stamp>> {
    tls::files(tls).iter().map(|path| std::fs::metadata(path).ok().map(Stamp::from)).collect()
}
