//! Serves a sandbox: `cargo run -p aiproxy-sandbox --example serve -- PORT KEY`.

use aiproxy_sandbox::{Options, Sandbox};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let port = args.next().and_then(|port| port.parse().ok()).unwrap_or(8089);
    let mut options = Options::default();
    options.bind.set_port(port);
    if let Some(key) = args.next() {
        options.api_key = key;
    }
    let sandbox = Sandbox::start(options).await?;
    tokio::signal::ctrl_c().await?;
    sandbox.shutdown().await;
    Ok(())
}
