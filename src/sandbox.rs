//! The sandbox platform alone: something to point a channel at, without any account.

use std::net::SocketAddr;

use aiproxy_core::ids::random_key;
use aiproxy_sandbox::{Options, Sandbox};
use anyhow::Context as _;
use clap::Args;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::cli::{Failure, say};
use crate::signals::Ending;

/// `aiproxy sandbox`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 8090)]
    port: u16,
    /// The API key that it wants; a fresh one unless given. It opens nothing but the sandbox
    #[arg(long, value_name = "KEY", env = "AIPROXY_SANDBOX_KEY")]
    key: Option<String>,
}

/// Runs until a signal ends it.
///
/// # Errors
/// [`Failure::Runtime`] when the port is taken.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let api_key = arguments.key.clone().unwrap_or_else(|| random_key("sk-sandbox-", 32));
    let bind = SocketAddr::from(([127, 0, 0, 1], arguments.port));
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut ending = Ending::watch()?;
        let options = Options { bind, api_key: api_key.clone(), ..Options::default() };
        let sandbox = Sandbox::start(options)
            .await
            .with_context(|| format!("cannot start the sandbox platform on {bind}"))?;
        say(&format!("base_url: {}\napi_key: {api_key}", sandbox.base_url()))?;
        ending.next().await;
        sandbox.shutdown().await;
        Ok(())
    })
}
