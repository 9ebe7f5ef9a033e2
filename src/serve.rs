//! The relay from a configuration file.

use std::path::{Path, PathBuf};

use aiproxy_config::{Loaded, Source};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::cli::{self, Failure};
use crate::reload::{Before, Follower};
use crate::signals::Ending;
use crate::wiring;

/// The configuration file where none is named.
const USUAL: &str = "aiproxy.yaml";

/// Runs until a signal ends it. Where no file is named and there is none of the usual name, the relay
/// begins with defaults, and users and channels come from the database.
///
/// # Errors
/// [`Failure::Usage`] for a bad configuration, [`Failure::Runtime`] for everything else.
pub fn run(config: Option<PathBuf>) -> Result<(), Failure> {
    let (config, loaded, before) = load(config)?;
    let config = &*config;
    cli::warn(&loaded.warnings);
    let level = wiring::start_log(&loaded.snapshot)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut ending = Ending::watch()?;
        let follower = Follower::new(config, before, level)?;
        let relay = wiring::start(loaded).await?;
        let chores = relay.chores();
        let running = relay.running();
        let mut following = std::pin::pin!(follower.follow(&running));
        let name = tokio::select! {
            name = ending.next() => name,
            never = &mut following => match never {},
        };
        tracing::info!("{name}: finishing requests in flight");
        // Access can be taken away to the end.
        tokio::select! {
            done = relay.shutdown(&mut ending) => done?,
            never = following => match never {},
        }
        drop(chores);
        Ok(())
    })
}

/// The configuration, and the file as it was before it was read.
///
/// # Errors
/// [`Failure::Usage`] with everything that is wrong with it.
pub fn load(config: Option<PathBuf>) -> Result<(PathBuf, Loaded, Before), Failure> {
    let named = config.is_some();
    let path = config.unwrap_or_else(|| PathBuf::from(USUAL));
    let before = Before::loading(&path);
    let loaded = match named || path.exists() {
        true => aiproxy_config::load_file(&path),
        false => aiproxy_config::load_str("system: {}", &Source::file(Path::new(USUAL)), &|_| None),
    };
    let loaded = loaded.map_err(|problems| Failure::Usage(problems.to_string()))?;
    Ok((path, loaded, before))
}
