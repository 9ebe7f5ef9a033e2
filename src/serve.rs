//! The relay from a configuration file.

use std::path::Path;

use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::cli::{self, Failure};
use crate::reload::{Before, Follower};
use crate::signals::Ending;
use crate::wiring;

/// Runs until a signal ends it.
///
/// # Errors
/// [`Failure::Usage`] for a bad configuration, [`Failure::Runtime`] for everything else.
pub fn run(config: &Path) -> Result<(), Failure> {
    let before = Before::loading(config);
    let loaded =
        aiproxy_config::load_file(config).map_err(|problems| Failure::Usage(problems.to_string()))?;
    cli::warn(&loaded.warnings);
    let level = wiring::start_log(&loaded.snapshot)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut ending = Ending::watch()?;
        let follower = Follower::new(config, before, level)?;
        let relay = wiring::start(loaded.snapshot).await?;
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
